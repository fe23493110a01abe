package posix

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The users of the cases. They need no entry in the password file.
var (
	ann   = who{uid: 1001, gid: 1001}
	bob   = who{uid: 2002, gid: 2002}
	staff = who{uid: 2003, gid: 2003, groups: []int{3003}} // in group 3003
	root  = who{}
)

const (
	ro = unix.O_RDONLY
	wo = unix.O_WRONLY
	rw = unix.O_RDWR
)

// permCases checks which users may do what with files of each mode.
var permCases = []testCase{
	{name: "perm/open-by-class", run: func(c *ctx) {
		// Only the user's own class counts: an owner without a bit is refused what others may do.
		for mode := uint32(0); mode <= 0o777; mode += 11 {
			name := fmt.Sprintf("f%o", mode)
			c.file(name, mode)
			c.chown(name, ann.uid, 3003)
			for _, u := range []struct {
				who   who
				shift uint
			}{{ann, 6}, {staff, 3}, {bob, 0}} {
				c.as(u.who, func() {
					bits := mode >> u.shift & 7
					for _, o := range []struct {
						flags int
						need  uint32
					}{{ro, 4}, {wo, 2}, {rw, 6}, {ro | unix.O_TRUNC, 6}} {
						var want error
						if bits&o.need != o.need {
							want = unix.EACCES
						}
						c.is(try(name, o.flags), want, "open of mode %03o with flags %#x by uid %d", mode, o.flags, u.who.uid)
					}
				})
			}
		}
	}},
	{name: "perm/every-mode-is-kept", run: func(c *ctx) {
		c.file("f", 0o600)
		c.mkdir("d", 0o700)
		for mode := uint32(0); mode <= 0o7777; mode += 7 {
			c.do(unix.Chmod("f", mode))
			c.oct(c.mode("f"), mode, "file after chmod %04o", mode)
			c.do(unix.Chmod("d", mode))
			c.oct(c.mode("d"), mode, "directory after chmod %04o", mode)
		}
	}},
	{name: "perm/root-passes", run: func(c *ctx) {
		c.mkdir("d", 0)
		c.file("d/f", 0, "x")
		c.chown("d", ann.uid, ann.gid)
		c.chown("d/f", ann.uid, ann.gid)
		c.is(try("d/f", rw), nil, "open by root of mode 0")
		c.is(unix.Faccessat(cwd, "d/f", unix.X_OK, 0), unix.EACCES, "access X_OK by root of a file without any x bit")
		c.is(unix.Faccessat(cwd, "d", unix.X_OK, 0), nil, "access X_OK by root of a directory without any x bit")
		c.do(unix.Chmod("d/f", 0o001))
		c.is(unix.Faccessat(cwd, "d/f", unix.X_OK, 0), nil, "access X_OK by root of mode 001")
	}},
	{name: "perm/search", run: func(c *ctx) {
		c.mkdir("d", 0o700)
		c.mkdir("d/e", 0o777)
		c.file("d/e/f", 0o666)
		for _, mode := range []uint32{0o700, 0o701, 0o704, 0o705} {
			c.do(unix.Chmod("d", mode))
			c.as(bob, func() {
				var want error
				if mode&1 == 0 {
					want = unix.EACCES
				}
				var st unix.Stat_t
				c.is(unix.Stat("d/e/f", &st), want, "stat below mode %03o", mode)
				c.is(try("d/e/f", ro), want, "open below mode %03o", mode)
				c.is(unix.Chdir("d"), want, "chdir to mode %03o", mode)
				if want == nil {
					c.do(unix.Chdir(c.dir))
				}
				var wantList error
				if mode&4 == 0 {
					wantList = unix.EACCES
				}
				c.is(try("d", ro|unix.O_DIRECTORY), wantList, "opening a directory of mode %03o", mode)
			})
		}
	}},
	{name: "perm/access", run: func(c *ctx) {
		c.file("f", 0o640)
		c.chown("f", ann.uid, 3003)
		for _, x := range []struct {
			who  who
			mode uint32
			want error
		}{
			{ann, unix.R_OK | unix.W_OK, nil}, {ann, unix.X_OK, unix.EACCES}, {staff, unix.R_OK, nil}, {staff, unix.W_OK, unix.EACCES},
			{bob, unix.F_OK, nil}, {bob, unix.R_OK, unix.EACCES}, {bob, unix.W_OK, unix.EACCES}, {root, unix.R_OK | unix.W_OK, nil},
		} {
			c.as(x.who, func() {
				c.is(unix.Faccessat(cwd, "f", x.mode, 0), x.want, "access %d by %d", x.mode, x.who.uid)
				c.is(unix.Faccessat(cwd, "f", x.mode, unix.AT_EACCESS), x.want, "access %d by %d, effective", x.mode, x.who.uid)
			})
		}
		c.is(unix.Faccessat(cwd, "f", 8, 0), unix.EINVAL, "access with mode 8")
		c.is(unix.Faccessat(cwd, "none", 0, 0), unix.ENOENT, "access of nothing")
		c.is(unix.Faccessat(cwd, "f/x", 0, 0), unix.ENOTDIR, "access below a file")
	}},
	{name: "perm/access-uses-the-real-user", run: func(c *ctx) {
		c.file("f", 0o600)
		c.inThread(func() {
			c.do(become(bob.uid, root)) // real bob, effective root
			c.is(unix.Faccessat(cwd, "f", unix.R_OK, 0), unix.EACCES, "access(2) by real uid bob")
			c.is(unix.Faccessat(cwd, "f", unix.R_OK, unix.AT_EACCESS), nil, "faccessat AT_EACCESS by effective root")
		})
	}},
	{name: "perm/chmod-who", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.as(bob, func() {
			c.is(unix.Chmod("f", 0o666), unix.EPERM, "chmod by another")
			c.is(unix.Fchmod(c.open("f", ro), 0o666), unix.EPERM, "fchmod by another")
		})
		c.as(ann, func() { c.is(unix.Chmod("f", 0o600), nil, "chmod by the owner") })
		c.oct(c.mode("f"), 0o600, "after that")
		c.is(unix.Chmod("none", 0), unix.ENOENT, "chmod of nothing")
		c.is(unix.Chmod("f/x", 0), unix.ENOTDIR, "chmod below a file")
		c.is(unix.Fchmod(-1, 0), unix.EBADF, "fchmod of no descriptor")
	}},
	{name: "perm/chmod-sgid-of-non-member", run: func(c *ctx) {
		c.file("f", 0o755)
		c.chown("f", ann.uid, 3003)
		c.mkdir("d", 0o755)
		c.chown("d", ann.uid, 3003)
		c.as(ann, func() {
			c.do(unix.Chmod("f", 0o6755))
			c.oct(c.mode("f"), 0o4755, "set-group-ID by an owner not in the group")
			c.do(unix.Chmod("d", 0o2755))
			c.oct(c.mode("d"), 0o755, "of a directory, likewise")
		})
		c.as(who{uid: ann.uid, gid: ann.gid, groups: []int{3003}}, func() {
			c.do(unix.Chmod("f", 0o2755))
			c.oct(c.mode("f"), 0o2755, "set-group-ID by an owner in the group")
		})
		c.do(unix.Chmod("f", 0o6777))
		c.oct(c.mode("f"), 0o6777, "by root")
	}},
	{name: "perm/chmod-sticky-of-file", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.as(ann, func() {
			c.do(unix.Chmod("f", 0o1644)) // FreeBSD refuses; Linux keeps it
			c.oct(c.mode("f"), 0o1644, "sticky file by its owner")
		})
	}},
	{name: "perm/chown-who", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.as(bob, func() {
			c.is(unix.Chown("f", bob.uid, -1), unix.EPERM, "taking another's file")
			c.is(unix.Chown("f", -1, bob.gid), unix.EPERM, "another's file to my group")
			c.is(unix.Chown("f", -1, -1), nil, "chown -1 -1 by another")
		})
		c.as(who{uid: ann.uid, gid: ann.gid, groups: []int{3003}}, func() {
			c.is(unix.Chown("f", bob.uid, -1), unix.EPERM, "giving a file away")
			c.is(unix.Chown("f", -1, 4004), unix.EPERM, "to a group one is not in")
			c.is(unix.Chown("f", ann.uid, 3003), nil, "to a group one is in")
		})
		st := c.stat("f")
		eq(c, int(st.Uid), ann.uid, "owner")
		eq(c, int(st.Gid), 3003, "group")
		c.is(unix.Chown("none", 0, 0), unix.ENOENT, "chown of nothing")
		c.is(unix.Chown("f/x", 0, 0), unix.ENOTDIR, "chown below a file")
		c.is(unix.Fchown(-1, 0, 0), unix.EBADF, "fchown of no descriptor")
	}},
	{name: "perm/chown-ids-of-32-bits", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Chown("f", 0xfffffffe, 0x80000000))
		st := c.stat("f")
		eq(c, st.Uid, 0xfffffffe, "owner")
		eq(c, st.Gid, 0x80000000, "group")
	}},
	{name: "perm/lchown-of-symlink", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Symlink("f", "l"))
		c.do(unix.Lchown("l", 5, 6))
		eq(c, c.stat("f").Uid, 0, "owner of the target after lchown")
		eq(c, c.stat("l").Uid, 5, "owner of the link")
		c.do(unix.Chown("l", 7, 8))
		eq(c, c.stat("f").Uid, 7, "owner of the target after chown")
		eq(c, c.stat("l").Uid, 5, "owner of the link")
	}},
	{name: "perm/lchmod", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Symlink("f", "l"))
		c.is(unix.Fchmodat(cwd, "l", 0o600, unix.AT_SYMLINK_NOFOLLOW), unix.EOPNOTSUPP, "fchmodat of a symbolic link itself")
		c.oct(c.mode("f"), 0o644, "target")
	}},
	{name: "perm/umask", run: func(c *ctx) {
		for _, m := range []int{0, 0o22, 0o77, 0o777, 0o137} {
			unix.Umask(m)
			n := fmt.Sprintf("%o", m)
			want := uint32(0o777 &^ m)
			c.do(try("f"+n, ro|unix.O_CREAT, 0o777))
			c.oct(c.mode("f"+n), want, "open with umask %o", m)
			c.do(unix.Mkdir("d"+n, 0o777))
			c.oct(c.mode("d"+n), want, "mkdir with umask %o", m)
			c.do(unix.Mknod("p"+n, unix.S_IFIFO|0o777, 0))
			c.oct(c.mode("p"+n), want, "mknod with umask %o", m)
			c.do(unix.Symlink("x", "l"+n))
			c.oct(c.mode("l"+n), 0o777, "symlink with umask %o", m)
			fd := c.open(".", unix.O_TMPFILE|rw, 0o777)
			c.oct(c.fstat(fd).Mode&0o7777, want, "O_TMPFILE with umask %o", m)
		}
		unix.Umask(0)
		c.do(try("special", ro|unix.O_CREAT, 0o7777))
		c.oct(c.mode("special"), 0o7777, "open with mode 07777")
		c.do(unix.Mkdir("specialdir", 0o7777))
		c.oct(c.mode("specialdir")&^0o6000, 0o1777, "mkdir keeps sticky")
	}},
	{name: "perm/owner-of-new", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.chown("d", 9, 9)
		c.as(who{uid: ann.uid, gid: ann.gid, groups: []int{9}}, func() {
			c.do(unix.Chdir("d"))
			for _, k := range []struct {
				name string
				err  error
			}{
				{"f", try("f", wo|unix.O_CREAT, 0o644)}, {"d", unix.Mkdir("d", 0o755)}, {"l", unix.Symlink("x", "l")},
				{"p", unix.Mkfifo("p", 0o644)}, {"s", unix.Mknod("s", unix.S_IFSOCK|0o644, 0)},
			} {
				c.do(k.err)
				st := c.stat(k.name)
				eq(c, [2]uint32{st.Uid, st.Gid}, [2]uint32{1001, 1001}, "owner and group of new %s", k.name)
			}
		})
	}},
	{name: "perm/setgid-directory", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.chown("d", 9, 3003)
		c.do(unix.Chmod("d", 0o2777))
		c.as(ann, func() { // ann is not in the group
			c.do(unix.Chdir("d"))
			c.do(try("f", wo|unix.O_CREAT, 0o2755))
			c.do(unix.Mkdir("d", 0o755))
			c.do(unix.Symlink("x", "l"))
			c.do(unix.Mkfifo("p", 0o644))
			for _, n := range []string{"f", "d", "l", "p"} {
				eq(c, c.stat(n).Gid, 3003, "group of %s", n)
			}
			c.oct(c.mode("f"), 0o755, "a file asked for with set-group-ID in a group one is not in")
			c.oct(c.mode("d"), 0o2755, "a directory inherits set-group-ID")
			c.do(unix.Mkdir("d/e", 0o700))
			c.oct(c.mode("d/e"), 0o2700, "and so on")
			eq(c, c.stat("d/e").Gid, 3003, "group of the next")
		})
		c.as(staff, func() {
			c.do(unix.Chdir("d"))
			c.do(try("mine", wo|unix.O_CREAT, 0o2755))
			c.oct(c.mode("mine"), 0o2755, "a file asked for with set-group-ID in a group one is in")
			fd := c.open(".", unix.O_TMPFILE|rw, 0o644)
			eq(c, c.fstat(fd).Gid, 3003, "group of an O_TMPFILE")
		})
	}},
	{name: "perm/sticky", run: func(c *ctx) {
		c.mkdir("t", 0o1777)
		c.chown("t", 9, 9)
		for _, n := range []string{"a1", "a2", "a3", "a4"} {
			c.file("t/"+n, 0o666)
			c.chown("t/"+n, ann.uid, ann.gid)
		}
		c.mkdir("t/ad", 0o777)
		c.chown("t/ad", ann.uid, ann.gid)
		c.as(bob, func() {
			c.is(unix.Unlink("t/a1"), unix.EPERM, "unlink of another's file")
			c.is(unix.Rmdir("t/ad"), unix.EPERM, "rmdir of another's directory")
			c.is(unix.Rename("t/a1", "t/x"), unix.EPERM, "rename of another's file")
			c.do(try("t/b", wo|unix.O_CREAT, 0o666))
			c.is(unix.Rename("t/b", "t/a1"), unix.EPERM, "rename over another's file")
			c.is(unix.Renameat2(cwd, "t/b", cwd, "t/a1", unix.RENAME_EXCHANGE), unix.EPERM, "exchange with another's file")
			c.is(unix.Rename("t/b", "t/c"), nil, "rename of one's own")
			c.is(unix.Unlink("t/c"), nil, "unlink of one's own")
			c.is(unix.Link("t/a1", "t/linked"), nil, "link to a file that one may write")
		})
		c.as(ann, func() { c.is(unix.Unlink("t/a1"), nil, "unlink by the owner of the file") })
		c.as(who{uid: 9, gid: 10}, func() { c.is(unix.Unlink("t/a2"), nil, "unlink by the owner of the directory") })
		c.is(unix.Unlink("t/a3"), nil, "unlink by root")
	}},
	{name: "perm/mknod-of-devices", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.as(bob, func() {
			c.do(unix.Chdir("d"))
			c.is(unix.Mknod("c", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.EPERM, "a character device by a user")
			c.is(unix.Mknod("b", unix.S_IFBLK|0o666, int(unix.Mkdev(60, 7))), unix.EPERM, "a block device by a user")
			c.is(unix.Mknod("p", unix.S_IFIFO|0o666, 0), nil, "a fifo by a user")
			c.is(unix.Mknod("s", unix.S_IFSOCK|0o666, 0), nil, "a socket by a user")
			c.is(unix.Mknod("r", unix.S_IFREG|0o666, 0), nil, "a regular file by a user")
			c.is(unix.Mknod("w", unix.S_IFCHR|0o666, 0), nil, "a whiteout by a user")
		})
		c.is(unix.Mknod("d2", unix.S_IFDIR|0o755, 0), unix.EPERM, "mknod of a directory")
		c.is(unix.Mknod("l2", unix.S_IFLNK|0o755, 0), unix.EINVAL, "mknod of a symbolic link")
		c.is(unix.Mknod("x2", 0o170000|0o755, 0), unix.EINVAL, "mknod of type 017")
	}},
	{name: "perm/times-who", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.file("w", 0o666)
		c.chown("w", ann.uid, ann.gid)
		given := []unix.Timespec{{Sec: 1}, {Sec: 2}}
		now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
		half := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}
		omit := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
		c.as(bob, func() {
			c.is(unix.UtimesNanoAt(cwd, "w", given, 0), unix.EPERM, "times given, of another's file that one may write")
			c.is(unix.UtimesNanoAt(cwd, "w", half, 0), unix.EPERM, "one time now, the other one left")
			c.is(unix.UtimesNanoAt(cwd, "w", now, 0), nil, "both now")
			c.is(unix.UtimesNanoAt(cwd, "f", now, 0), unix.EACCES, "both now, of a file that one may not write")
			c.is(unix.UtimesNanoAt(cwd, "f", given, 0), unix.EPERM, "times given, of a file that one may not write")
			c.is(unix.UtimesNanoAt(cwd, "f", omit, 0), nil, "both left")
		})
		c.as(ann, func() { c.is(unix.UtimesNanoAt(cwd, "f", given, 0), nil, "by the owner") })
		c.is(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Nsec: 1e9}, {}}, 0), unix.EINVAL, "nanoseconds of 1e9")
		c.is(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Nsec: -1}, {}}, 0), unix.EINVAL, "nanoseconds of -1")
		c.is(unix.UtimesNanoAt(cwd, "none", given, 0), unix.ENOENT, "of nothing")
		c.is(unix.UtimesNanoAt(cwd, "f/x", given, 0), unix.ENOTDIR, "below a file")
	}},
	{name: "perm/noatime-who", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.as(bob, func() { c.is(try("f", ro|unix.O_NOATIME), unix.EPERM, "O_NOATIME by another") })
		c.as(ann, func() { c.is(try("f", ro|unix.O_NOATIME), nil, "O_NOATIME by the owner") })
	}},
	{name: "perm/revoked-while-open", run: func(c *ctx) {
		c.file("f", 0o666, "old")
		var fd int
		c.as(bob, func() { fd = c.open("f", rw) })
		c.do(unix.Chmod("f", 0))
		c.as(bob, func() {
			_, err := unix.Pwrite(fd, []byte("new"), 0)
			c.is(err, nil, "write by a descriptor from before")
			c.is(unix.Ftruncate(fd, 2), nil, "ftruncate by it")
			c.is(unix.Truncate("f", 1), unix.EACCES, "truncate by name")
			eq(c, c.pread(fd, 10, 0), "ne", "read by it")
		})
	}},
	{name: "perm/create-without-permission-to-write", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.as(bob, func() {
			fd := c.open("d/f", rw|unix.O_CREAT|unix.O_EXCL, 0) // POSIX: the mode does not apply to the creating open
			_, err := unix.Write(fd, []byte("x"))
			c.is(err, nil, "write to what was created with mode 0")
			c.is(try("d/f", ro), unix.EACCES, "opening it again")
		})
	}},
	{name: "perm/protected-hard-links-are-the-kernels", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.file("f", 0o644)
		c.as(bob, func() {
			err := unix.Link("f", "d/l")
			if err != nil { // sysctl fs.protected_hardlinks
				c.is(err, unix.EPERM, "link to a file that one may not write")
			}
		})
	}},
}

// permOps lists calls that need permissions of directories. d is the directory of the name; it
// gives other users only the permissions under test.
var permOps = []struct {
	name string
	need uint32 // permission bits of the directory, for others
	prep func(c *ctx)
	op   func(c *ctx) error
}{
	{"open-creat", 3, nil, func(c *ctx) error { return try("d/new", wo|unix.O_CREAT, 0o644) }},
	{"open-creat-of-existing", 1, func(c *ctx) { c.file("d/f", 0o666) }, func(c *ctx) error { return try("d/f", wo|unix.O_CREAT, 0o644) }},
	{"open-existing", 1, func(c *ctx) { c.file("d/f", 0o666) }, func(c *ctx) error { return try("d/f", rw) }},
	{"open-o_path", 1, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { return try("d/f", unix.O_PATH) }},
	{"tmpfile", 3, nil, func(c *ctx) error { return try("d", unix.O_TMPFILE|rw, 0o644) }},
	{"mkdir", 3, nil, func(c *ctx) error { return unix.Mkdir("d/new", 0o755) }},
	{"mknod", 3, nil, func(c *ctx) error { return unix.Mknod("d/new", unix.S_IFREG|0o644, 0) }},
	{"mkfifo", 3, nil, func(c *ctx) error { return unix.Mkfifo("d/new", 0o644) }},
	{"symlink", 3, nil, func(c *ctx) error { return unix.Symlink("x", "d/new") }},
	{"link-to", 3, func(c *ctx) { c.file("src", 0o666) }, func(c *ctx) error { return unix.Link("src", "d/new") }},
	{"link-from", 1, func(c *ctx) { c.file("d/src", 0o666) }, func(c *ctx) error { return unix.Link("d/src", "new") }},
	{"unlink", 3, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { return unix.Unlink("d/f") }},
	{"rmdir", 3, func(c *ctx) { c.mkdir("d/e", 0) }, func(c *ctx) error { return unix.Rmdir("d/e") }},
	{"rename-from", 3, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { return unix.Rename("d/f", "moved") }},
	{"rename-to", 3, func(c *ctx) { c.file("f", 0) }, func(c *ctx) error { return unix.Rename("f", "d/moved") }},
	{"rename-over", 3, func(c *ctx) { c.file("f", 0); c.file("d/f", 0) }, func(c *ctx) error { return unix.Rename("f", "d/f") }},
	{"rename-within", 3, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { return unix.Rename("d/f", "d/g") }},
	{"exchange", 3, func(c *ctx) { c.file("f", 0); c.file("d/f", 0) },
		func(c *ctx) error { return unix.Renameat2(cwd, "f", cwd, "d/f", unix.RENAME_EXCHANGE) }},
	{"readdir", 5, nil, func(c *ctx) error {
		fd, err := unix.Open("d", ro|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Stat("d/.", &st); err != nil {
			return err
		}
		_, err = unix.Getdents(fd, make([]byte, 1024))
		return err
	}},
	{"readlink", 1, func(c *ctx) { c.do(unix.Symlink("x", "d/l")) }, func(c *ctx) error { _, err := unix.Readlink("d/l", make([]byte, 9)); return err }},
	{"stat", 1, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { var st unix.Stat_t; return unix.Stat("d/f", &st) }},
	{"statfs", 1, func(c *ctx) { c.file("d/f", 0) }, func(c *ctx) error { var st unix.Statfs_t; return unix.Statfs("d/f", &st) }},
	{"truncate", 1, func(c *ctx) { c.file("d/f", 0o666) }, func(c *ctx) error { return unix.Truncate("d/f", 0) }},
	{"chdir", 1, nil, func(c *ctx) error {
		err := unix.Chdir("d")
		if err == nil {
			err = unix.Chdir(c.dir)
		}
		return err
	}},
	{"setxattr", 1, func(c *ctx) { c.file("d/f", 0o666) }, func(c *ctx) error { return unix.Setxattr("d/f", "user.a", []byte("v"), 0) }},
	{"setxattr-of-directory", 2, nil, func(c *ctx) error { return unix.Setxattr("d", "user.a", []byte("v"), 0) }},
	{"getxattr-of-directory", 4, func(c *ctx) { c.do(unix.Setxattr("d", "user.a", []byte("v"), 0)) },
		func(c *ctx) error { _, err := unix.Getxattr("d", "user.a", make([]byte, 9)); return err }},
	{"utimensat-now", 1, func(c *ctx) { c.file("d/f", 0o666) },
		func(c *ctx) error {
			return unix.UtimesNanoAt(cwd, "d/f", []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}, 0)
		}},
	{"inotify", 4, nil, func(c *ctx) error {
		in, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(in)
		_, err = unix.InotifyAddWatch(in, "d", unix.IN_CREATE)
		return err
	}},
}

// permOpCases checks each of permOps with every mode of the directory.
var permOpCases = func() (l []testCase) {
	for _, o := range permOps {
		l = append(l, testCase{name: "perm/op/" + o.name, run: func(c *ctx) {
			for mode := range uint32(8) {
				sub := fmt.Sprintf("m%d", mode)
				c.mkdir(sub, 0o777)
				c.do(unix.Chdir(sub))
				c.mkdir("d", 0o777)
				if o.prep != nil {
					o.prep(c)
				}
				c.do(unix.Chmod("d", 0o770|mode))
				var want error
				if mode&o.need != o.need {
					want = unix.EACCES
				}
				in := &ctx{target: c.target, mounted: c.mounted, dir: c.dir + "/" + sub}
				in.as(bob, func() { c.is(o.op(in), want, "directory of mode %o for others", mode) })
				in.cleanup()
				c.errs = append(c.errs, in.errs...)
				c.do(unix.Chdir(".."))
			}
		}})
	}
	return l
}()
