package posix

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// listxattr returns the sorted names of a file's extended attributes.
func (c *ctx) listxattr(name string) string {
	b := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, b)
	c.do(err)
	l := strings.Split(strings.TrimSuffix(string(b[:n]), "\x00"), "\x00")
	slices.Sort(l)
	return strings.Join(l, " ")
}

func (c *ctx) getxattr(name, attr string) string {
	b := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(name, attr, b)
	if err != nil {
		c.errorf("getxattr %s of %s: %v", attr, name, err)
		return "(none)"
	}
	return string(b[:n])
}

var xattrCases = []testCase{
	{name: "xattr/set-get-remove", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		for _, n := range []string{"f", "d"} {
			for _, ns := range []string{"user.", "trusted.", "security."} {
				a := ns + "posixcase"
				c.is(unix.Setxattr(n, a, []byte("value"), 0), nil, "setting %s of %s", a, n)
				eq(c, c.getxattr(n, a), "value", "%s of %s", a, n)
				c.is(unix.Setxattr(n, a, []byte("another, longer value"), 0), nil, "again")
				eq(c, c.getxattr(n, a), "another, longer value", "%s of %s", a, n)
				c.is(unix.Setxattr(n, a, nil, 0), nil, "an empty value")
				eq(c, c.getxattr(n, a), "", "%s of %s", a, n)
				c.is(unix.Removexattr(n, a), nil, "removing")
				_, err := unix.Getxattr(n, a, nil)
				c.is(err, unix.ENODATA, "getting what was removed")
				c.is(unix.Removexattr(n, a), unix.ENODATA, "removing what is not there")
			}
		}
	}},
	{name: "xattr/create-replace", run: func(c *ctx) {
		c.file("f", 0o644)
		c.is(unix.Setxattr("f", "user.a", []byte("1"), unix.XATTR_REPLACE), unix.ENODATA, "REPLACE of nothing")
		c.is(unix.Setxattr("f", "user.a", []byte("2"), unix.XATTR_CREATE), nil, "CREATE")
		c.is(unix.Setxattr("f", "user.a", []byte("3"), unix.XATTR_CREATE), unix.EEXIST, "CREATE again")
		eq(c, c.getxattr("f", "user.a"), "2", "value")
		c.is(unix.Setxattr("f", "user.a", []byte("4"), unix.XATTR_REPLACE), nil, "REPLACE")
		eq(c, c.getxattr("f", "user.a"), "4", "value")
		c.is(unix.Setxattr("f", "user.a", []byte("5"), 4), unix.EINVAL, "flag 4")
	}},
	{name: "xattr/create-and-replace-together", run: func(c *ctx) {
		c.file("f", 0o644)
		c.is(unix.Setxattr("f", "user.a", []byte("1"), unix.XATTR_CREATE|unix.XATTR_REPLACE), unix.ENODATA, "both flags, of nothing")
		c.do(unix.Setxattr("f", "user.a", []byte("1"), 0))
		c.is(unix.Setxattr("f", "user.a", []byte("1"), unix.XATTR_CREATE|unix.XATTR_REPLACE), unix.EEXIST, "both flags, of something")
	}},
	{name: "xattr/erange-and-size", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Setxattr("f", "user.a", []byte("12345"), 0))
		n, err := unix.Getxattr("f", "user.a", nil)
		c.is(err, nil, "asking for the size")
		eq(c, n, 5, "the size")
		_, err = unix.Getxattr("f", "user.a", make([]byte, 4))
		c.is(err, unix.ERANGE, "a buffer that is too small")
		n, err = unix.Getxattr("f", "user.a", make([]byte, 5))
		c.is(err, nil, "one that fits")
		eq(c, n, 5, "the size")
		n, err = unix.Listxattr("f", nil)
		c.is(err, nil, "asking for the size of the list")
		eq(c, n, len("user.a")+1, "the size of the list")
		_, err = unix.Listxattr("f", make([]byte, 3))
		c.is(err, unix.ERANGE, "a list that does not fit")
	}},
	{name: "xattr/names", run: func(c *ctx) {
		c.file("f", 0o644)
		long := "user." + strings.Repeat("n", 250)
		c.is(unix.Setxattr("f", long, []byte("v"), 0), nil, "a name of 255 bytes")
		eq(c, c.getxattr("f", long), "v", "its value")
		c.is(unix.Setxattr("f", long+"n", []byte("v"), 0), unix.ERANGE, "a name of 256 bytes")
		c.is(unix.Setxattr("f", "user.", []byte("v"), 0), unix.EINVAL, "a prefix alone")
		c.is(unix.Setxattr("f", "user", []byte("v"), 0), unix.EOPNOTSUPP, "a name without a dot")
		c.is(unix.Setxattr("f", "nosuch.a", []byte("v"), 0), unix.EOPNOTSUPP, "another namespace")
		c.is(unix.Setxattr("f", "", []byte("v"), 0), unix.ERANGE, "an empty name")
		odd := "user.\x01 \xff=\"\n."
		c.is(unix.Setxattr("f", odd, []byte("v"), 0), nil, "a name of odd bytes")
		eq(c, c.listxattr("f"), odd+" "+long, "the list")
	}},
	{name: "xattr/unknown-namespace-read", run: func(c *ctx) {
		c.file("f", 0o644)
		_, err := unix.Getxattr("f", "nosuch.a", nil)
		c.is(err, unix.EOPNOTSUPP, "getting")
		c.is(unix.Removexattr("f", "nosuch.a"), unix.EOPNOTSUPP, "removing")
	}},
	{name: "xattr/value-of-64k", needs: needsBigXattr, run: func(c *ctx) {
		c.file("f", 0o644)
		v := strings.Repeat("0123456789abcdef", 4096)
		c.is(unix.Setxattr("f", "user.big", []byte(v), 0), nil, "64 KiB")
		c.true(c.getxattr("f", "user.big") == v, "64 KiB come back")
		c.is(unix.Setxattr("f", "user.big", []byte(v+"x"), 0), unix.E2BIG, "64 KiB and a byte")
		c.true(c.getxattr("f", "user.big") == v, "the old value stays")
		c.is(unix.Setxattr("f", "user.big", []byte("small"), 0), nil, "a small one instead")
		eq(c, c.getxattr("f", "user.big"), "small", "value")
		c.is(unix.Setxattr("f", "user.big", []byte(v), unix.XATTR_REPLACE), nil, "and large again")
		c.is(unix.Removexattr("f", "user.big"), nil, "removing")
		eq(c, c.listxattr("f"), "", "the list")
	}},
	{name: "xattr/values-of-many-sizes", needs: needsBigXattr, run: func(c *ctx) {
		c.file("f", 0o644)
		for _, n := range []int{0, 1, 31, 32, 33, 63, 64, 100, 127, 128, 255, 256, 1000, 2047, 2048, 3000, 3999, 4000, 4095, 4096, 4097, 8192, 20000, 65535, 3, 65536, 0} {
			v := strings.Repeat("v", n)
			c.is(unix.Setxattr("f", "user.sized", []byte(v), 0), nil, "%d bytes", n)
			c.true(c.getxattr("f", "user.sized") == v, "%d bytes come back", n)
		}
	}},
	{name: "xattr/hundreds", needs: needsManyXattr, run: func(c *ctx) {
		c.file("f", 0o644)
		const n = 600
		name := func(i int) string { return fmt.Sprintf("user.attribute-%04d", i) }
		for i := range n {
			c.do(unix.Setxattr("f", name(i), []byte(strings.Repeat(fmt.Sprint(i), 1+i%9)), unix.XATTR_CREATE))
		}
		for i := 0; i < n; i += 3 {
			c.do(unix.Removexattr("f", name(i)))
		}
		var want []string
		for i := range n {
			if i%3 != 0 {
				want = append(want, name(i))
				eq(c, c.getxattr("f", name(i)), strings.Repeat(fmt.Sprint(i), 1+i%9), "value %d", i)
			}
		}
		eq(c, c.listxattr("f"), strings.Join(want, " "), "the list")
	}},
	{name: "xattr/rights-of-user", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.do(unix.Setxattr("f", "user.a", []byte("v"), 0))
		c.do(unix.Setxattr("f", "trusted.a", []byte("v"), 0))
		c.do(unix.Setxattr("f", "security.a", []byte("v"), 0))
		get := func(a string) error { _, err := unix.Getxattr("f", a, nil); return err }
		c.as(bob, func() {
			c.is(get("user.a"), nil, "getting user by one who may read")
			c.is(unix.Setxattr("f", "user.a", []byte("w"), 0), unix.EACCES, "setting user by one who may not write")
			c.is(unix.Removexattr("f", "user.a"), unix.EACCES, "removing it")
			c.is(get("trusted.a"), unix.ENODATA, "getting trusted by a user")
			c.is(unix.Setxattr("f", "trusted.a", []byte("w"), 0), unix.EPERM, "setting trusted by a user")
			c.is(unix.Removexattr("f", "trusted.a"), unix.EPERM, "removing trusted by a user")
			c.is(unix.Setxattr("f", "security.a", []byte("w"), 0), unix.EPERM, "setting security by a user")
			c.is(unix.Removexattr("f", "security.a"), unix.EPERM, "removing security by a user")
			c.is(get("security.a"), nil, "getting security by a user")
		})
		c.as(ann, func() {
			c.is(unix.Setxattr("f", "trusted.a", []byte("w"), 0), unix.EPERM, "setting trusted by the owner")
			c.is(unix.Setxattr("f", "user.a", []byte("w"), 0), nil, "setting user by the owner")
		})
		c.do(unix.Chmod("f", 0o600))
		c.as(bob, func() { c.is(get("user.a"), unix.EACCES, "getting user by one who may not read") })
	}},
	{name: "xattr/trusted-is-not-listed-to-users", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Setxattr("f", "user.a", []byte("v"), 0))
		c.do(unix.Setxattr("f", "trusted.a", []byte("v"), 0))
		eq(c, c.listxattr("f"), "trusted.a user.a", "to root")
		c.as(bob, func() { eq(c, c.listxattr("f"), "user.a", "to a user") })
	}},
	{name: "xattr/user-only-of-files-and-directories", run: func(c *ctx) {
		for _, k := range c.kinds() {
			var want error
			if k != "reg" && k != "dir" {
				want = unix.EPERM
			}
			err := unix.Lsetxattr(k, "user.a", []byte("v"), 0)
			if k == "sock" && err == nil { // newer kernels, such as 7.3, allow it
				want = nil
			}
			c.is(err, want, "user of %s", k)
			_, err = unix.Lgetxattr(k, "user.a", make([]byte, 9))
			if want != nil {
				want = unix.ENODATA
			}
			c.is(err, want, "getting user of %s", k)
			c.is(unix.Lsetxattr(k, "trusted.a", []byte("v"), 0), nil, "trusted of %s", k)
			eq(c, c.getxattr(k, "trusted.a"), "v", "value of %s", k)
		}
	}},
	{name: "xattr/user-of-sticky-directory", run: func(c *ctx) {
		c.mkdir("t", 0o1777)
		c.mkdir("d", 0o777)
		c.as(bob, func() {
			c.is(unix.Setxattr("t", "user.a", []byte("v"), 0), unix.EPERM, "of another's sticky directory that one may write")
			c.is(unix.Setxattr("d", "user.a", []byte("v"), 0), nil, "without the sticky bit")
		})
	}},
	{name: "xattr/errno", run: func(c *ctx) {
		c.file("f", 0o644)
		set := func(n string) error { return unix.Setxattr(n, "user.a", []byte("v"), 0) }
		c.is(set("none"), unix.ENOENT, "of nothing")
		c.is(set("f/x"), unix.ENOTDIR, "below a file")
		c.is(set(strings.Repeat("n", 256)), unix.ENAMETOOLONG, "of a long name")
		c.is(unix.Fsetxattr(-1, "user.a", nil, 0), unix.EBADF, "of no descriptor")
		c.is(unix.Fsetxattr(c.open("f", unix.O_PATH), "user.a", nil, 0), unix.EBADF, "of an O_PATH descriptor")
		c.is(unix.Setxattr("f", "user.a", make([]byte, 65537), 0), unix.E2BIG, "a value of 64 KiB and a byte")
		_, err := unix.Getxattr("f", "user.none", nil)
		c.is(err, unix.ENODATA, "what is not there")
		c.is(unix.Fsetxattr(c.open("f", ro), "user.fd", []byte("v"), 0), nil, "by a descriptor for reading")
		eq(c, c.getxattr("f", "user.fd"), "v", "value")
	}},
	{name: "xattr/of-unlinked", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.do(unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		c.do(unix.Unlink("f"))
		b := make([]byte, 10)
		n, err := unix.Fgetxattr(fd, "user.a", b)
		c.is(err, nil, "getting")
		eq(c, string(b[:max(n, 0)]), "v", "value")
		c.is(unix.Fsetxattr(fd, "user.b", []byte("v"), 0), nil, "setting")
		c.is(unix.Fremovexattr(fd, "user.a"), nil, "removing")
	}},
	{name: "xattr/changes-ctime-only", run: func(c *ctx) {
		c.file("f", 0o644)
		c.changes(func() { c.do(unix.Setxattr("f", "user.a", []byte("v"), 0)) }, "f", "c", ".", "")
		c.changes(func() { c.getxattr("f", "user.a"); c.listxattr("f") }, "f", "")
		c.changes(func() { c.do(unix.Removexattr("f", "user.a")) }, "f", "c")
	}},
	{name: "xattr/capability-goes-with-a-write", run: func(c *ctx) {
		c.file("f", 0o777)
		v := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_raw+e, version 2
		for _, x := range []struct {
			what string
			op   func()
		}{
			{"write", func() { c.pwrite(c.open("f", rw), "x", 0) }},
			{"truncate", func() { c.do(unix.Truncate("f", 0)) }},
			{"chown", func() { c.do(unix.Chown("f", 5, 5)) }},
		} {
			c.is(unix.Setxattr("f", "security.capability", v, 0), nil, "setting")
			x.op()
			_, err := unix.Getxattr("f", "security.capability", nil)
			c.is(err, unix.ENODATA, "the capability after %s", x.what)
		}
	}},
	{name: "xattr/two-names-one-file", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Link("f", "g"))
		c.do(unix.Setxattr("f", "user.a", []byte("v"), 0))
		eq(c, c.getxattr("g", "user.a"), "v", "by the other name")
		c.do(unix.Unlink("f"))
		eq(c, c.getxattr("g", "user.a"), "v", "when the first is gone")
	}},
}
