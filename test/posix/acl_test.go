package posix

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tags of an entry of an ACL, as in linux/posix_acl.h.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

type ace struct {
	tag, perm uint16
	id        uint32
}

const noID = ^uint32(0)

func aclBytes(l ...ace) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range l {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		id := e.id
		if e.tag != aclUser && e.tag != aclGroup {
			id = noID
		}
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// acl returns the attribute's value for a list in the words of setfacl: "u:1001:6 g::4 m::7 o::0
// u::6".
func acl(s string) []byte {
	var l []ace
	for _, w := range strings.Fields(s) {
		var kind byte
		var who string
		var e ace
		parts := strings.Split(w, ":")
		kind, who = parts[0][0], parts[1]
		fmt.Sscan(parts[2], &e.perm)
		if who != "" {
			fmt.Sscan(who, &e.id)
		}
		switch {
		case kind == 'u' && who == "":
			e.tag = aclUserObj
		case kind == 'u':
			e.tag = aclUser
		case kind == 'g' && who == "":
			e.tag = aclGroupObj
		case kind == 'g':
			e.tag = aclGroup
		case kind == 'm':
			e.tag = aclMask
		default:
			e.tag = aclOther
		}
		l = append(l, e)
	}
	slices.SortStableFunc(l, func(a, b ace) int { return int(a.tag)*1e5 + int(a.id) - int(b.tag)*1e5 - int(b.id) })
	return aclBytes(l...)
}

// aclOf returns a file's list in the same words; "" if it has none.
func (c *ctx) aclOf(name, attr string) string {
	b := make([]byte, 4096)
	n, err := unix.Getxattr(name, attr, b)
	if err == unix.ENODATA {
		return ""
	}
	c.do(err)
	var l []string
	for b = b[4:n]; len(b) >= 8; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		who := ""
		if tag == aclUser || tag == aclGroup {
			who = fmt.Sprint(id)
		}
		l = append(l, fmt.Sprintf("%s:%s:%d", map[uint16]string{1: "u", 2: "u", 4: "g", 8: "g", 16: "m", 32: "o"}[tag], who, perm))
	}
	return strings.Join(l, " ")
}

func (c *ctx) setACL(name, attr, s string) { c.do(unix.Setxattr(name, attr, acl(s), 0)) }

var aclCases = []testCase{
	{name: "acl/grants-and-denies", run: func(c *ctx) {
		c.file("f", 0o600)
		c.chown("f", ann.uid, ann.gid)
		c.setACL("f", aclAccess, "u::6 u:2002:6 u:2003:0 u:5005:6 g::4 g:3003:2 g:4004:4 m::6 o::4")
		want := func(w who, r, write bool) {
			c.as(w, func() {
				e := func(ok bool) error {
					if ok {
						return nil
					}
					return unix.EACCES
				}
				c.is(try("f", ro), e(r), "reading by %v", w)
				c.is(try("f", wo), e(write), "writing by %v", w)
			})
		}
		want(ann, true, true)
		want(bob, true, true)                                            // named
		want(who{uid: 2003, gid: 4004}, false, false)                    // named user without rights, whatever its groups
		want(who{uid: 6, gid: 3003}, false, true)                        // named group
		want(who{uid: 6, gid: 7, groups: []int{3003, 4004}}, true, true) // two named groups, each checked by itself
		want(who{uid: 6, gid: ann.gid}, true, false)                     // owning group
		want(who{uid: 6, gid: 6}, true, false)                           // others
		c.do(unix.Chmod("f", 0o640))                                     // now the mask is the group bits
		want(bob, true, false)
		want(who{uid: 6, gid: 3003}, false, false)
		want(who{uid: 6, gid: 6}, false, false)
	}},
	{name: "acl/two-groups-do-not-add-up", run: func(c *ctx) {
		c.file("f", 0o600)
		c.chown("f", ann.uid, ann.gid)
		c.setACL("f", aclAccess, "u::6 g::0 g:3003:2 g:4004:4 m::6 o::0")
		c.as(who{uid: 6, gid: 7, groups: []int{3003, 4004}}, func() {
			c.is(try("f", ro), nil, "reading, by group 4004")
			c.is(try("f", wo), nil, "writing, by group 3003")
			c.is(try("f", rw), unix.EACCES, "both, which no single group may")
		})
	}},
	{name: "acl/directory", run: func(c *ctx) {
		c.mkdir("d", 0o700)
		c.setACL("d", aclAccess, "u::7 u:2002:7 u:2003:5 g::0 m::7 o::0")
		c.as(bob, func() { c.is(try("d/f", wo|unix.O_CREAT, 0o644), nil, "creating by one with 7") })
		c.as(staff, func() {
			c.is(try("d/g", wo|unix.O_CREAT, 0o644), unix.EACCES, "creating by one with 5")
			c.is(try("d/f", ro), nil, "opening by one with 5")
			c.is(unix.Unlink("d/f"), unix.EACCES, "deleting by one with 5")
		})
		c.as(ann, func() { c.is(try("d/f", ro), unix.EACCES, "by others") })
	}},
	{name: "acl/mode-and-mask", run: func(c *ctx) {
		c.file("f", 0o600)
		c.setACL("f", aclAccess, "u::6 u:2002:7 g::5 m::7 o::1")
		c.oct(c.mode("f"), 0o671, "the list sets the mode")
		c.do(unix.Chmod("f", 0o4752))
		c.oct(c.mode("f"), 0o4752, "chmod")
		eq(c, c.aclOf("f", aclAccess), "u::7 u:2002:7 g::5 m::5 o::2", "chmod changes user, mask and others")
		c.setACL("f", aclAccess, "u::6 g::4 m::6 o::0")
		c.oct(c.mode("f"), 0o4660, "a list with a mask and nobody named")
	}},
	{name: "acl/minimal-is-the-mode", run: func(c *ctx) {
		c.file("f", 0o777)
		c.setACL("f", aclAccess, "u::6 g::4 o::1")
		c.oct(c.mode("f"), 0o641, "mode")
		eq(c, c.aclOf("f", aclAccess), "", "a list that says what the mode says")
		c.setACL("f", aclAccess, "u::6 u:1:1 g::4 m::7 o::1")
		c.setACL("f", aclAccess, "u::6 g::4 o::0")
		eq(c, c.aclOf("f", aclAccess), "", "and it replaces one that says more")
		c.oct(c.mode("f"), 0o640, "mode")
	}},
	{name: "acl/remove", run: func(c *ctx) {
		c.file("f", 0o600)
		c.setACL("f", aclAccess, "u::6 u:2002:6 g::0 m::6 o::0")
		c.do(unix.Removexattr("f", aclAccess))
		eq(c, c.aclOf("f", aclAccess), "", "removed")
		c.oct(c.mode("f"), 0o660, "the mode stays")
		c.as(bob, func() { c.is(try("f", ro), unix.EACCES, "access by one who was named") })
		c.is(unix.Removexattr("f", aclDefault), nil, "removing the default of a file")
		c.mkdir("d", 0o700)
		c.setACL("d", aclDefault, "u::6 g::0 o::0")
		c.is(unix.Removexattr("d", aclDefault), nil, "removing a default")
		eq(c, c.aclOf("d", aclDefault), "", "removed")
		_, err := unix.Getxattr("d", aclDefault, nil)
		c.is(err, unix.ENODATA, "getting what was removed")
	}},
	{name: "acl/remove-none", run: func(c *ctx) {
		c.file("f", 0o600)
		c.mkdir("d", 0o700)
		c.is(unix.Removexattr("f", aclAccess), nil, "removing the list of a file that has none")
		c.is(unix.Removexattr("d", aclAccess), nil, "of a directory")
		c.is(unix.Removexattr("d", aclDefault), nil, "removing the default that is not there")
		c.is(unix.Setxattr("d", aclDefault, nil, 0), nil, "setting an empty one")
	}},
	{name: "acl/inherited", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.setACL("d", aclDefault, "u::7 u:2002:6 g::5 g:3003:7 m::7 o::0")
		c.oct(c.mode("d"), 0o755, "a default list does not change the mode")
		unix.Umask(0o777) // the umask does not apply where there is a default list
		c.do(try("d/f", wo|unix.O_CREAT, 0o666))
		eq(c, c.aclOf("d/f", aclAccess), "u::6 u:2002:6 g::5 g:3003:7 m::6 o::0", "of a file created with 0666")
		c.oct(c.mode("d/f"), 0o660, "its mode")
		eq(c, c.aclOf("d/f", aclDefault), "", "its default")
		c.do(unix.Mkdir("d/e", 0o750))
		eq(c, c.aclOf("d/e", aclAccess), "u::7 u:2002:6 g::5 g:3003:7 m::5 o::0", "of a directory created with 0750")
		eq(c, c.aclOf("d/e", aclDefault), "u::7 u:2002:6 g::5 g:3003:7 m::7 o::0", "its default")
		c.do(unix.Mkfifo("d/p", 0o600))
		eq(c, c.aclOf("d/p", aclAccess), "u::6 u:2002:6 g::5 g:3003:7 m::0 o::0", "of a fifo created with 0600")
		c.do(unix.Mknod("d/s", unix.S_IFSOCK|0o777, 0))
		c.oct(c.mode("d/s"), 0o770, "of a socket")
		c.do(unix.Symlink("x", "d/l"))
		c.oct(c.mode("d/l"), 0o777, "of a symbolic link")
		c.do(try("d/e/f", wo|unix.O_CREAT, 0o600))
		c.oct(c.mode("d/e/f"), 0o600, "in the second generation")
		fd := c.open("d", unix.O_TMPFILE|rw, 0o666)
		c.oct(c.fstat(fd).Mode&0o7777, 0o660, "of an O_TMPFILE")
	}},
	{name: "acl/inherited-minimal", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.setACL("d", aclDefault, "u::7 g::7 o::5")
		unix.Umask(0o77)
		c.do(try("d/f", wo|unix.O_CREAT, 0o666))
		c.oct(c.mode("d/f"), 0o664, "the umask is ignored")
		eq(c, c.aclOf("d/f", aclAccess), "", "and there is no list")
		c.do(unix.Mkdir("d/e", 0o777))
		c.oct(c.mode("d/e"), 0o775, "directory")
		eq(c, c.aclOf("d/e", aclDefault), "u::7 g::7 o::5", "its default")
	}},
	{name: "acl/inherited-in-setgid-directory", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.chown("d", 0, 3003)
		c.do(unix.Chmod("d", 0o2777))
		c.setACL("d", aclDefault, "u::7 g::7 g:4004:7 m::7 o::7")
		c.as(bob, func() {
			c.do(unix.Mkdir("d/e", 0o755))
			c.oct(c.mode("d/e"), 0o2755, "directory")
			eq(c, c.stat("d/e").Gid, 3003, "its group")
			c.do(try("d/f", wo|unix.O_CREAT, 0o2777))
			c.oct(c.mode("d/f"), 0o777, "a file asked for with set-group-ID by no member")
		})
	}},
	{name: "acl/set-clears-setgid-of-non-member", run: func(c *ctx) {
		c.file("f", 0o755)
		c.chown("f", ann.uid, 3003)
		c.do(unix.Chmod("f", 0o6755))
		c.as(ann, func() { c.is(unix.Setxattr("f", aclAccess, acl("u::7 u:2:7 g::5 m::5 o::5"), 0), nil, "setting") })
		c.oct(c.mode("f"), 0o4755, "set-group-ID after a list set by an owner not in the group")
		c.do(unix.Chmod("f", 0o6755))
		c.setACL("f", aclAccess, "u::7 u:2:5 g::5 m::5 o::5")
		c.oct(c.mode("f"), 0o6755, "set by root")
	}},
	{name: "acl/who-may", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.file("d/f", 0o666)
		c.chown("d/f", ann.uid, ann.gid)
		c.as(bob, func() {
			c.is(unix.Setxattr("d/f", aclAccess, acl("u::6 u:2:7 g::5 m::7 o::0"), 0), unix.EPERM, "setting another's")
			c.is(unix.Setxattr("d", aclDefault, acl("u::7 g::5 o::0"), 0), unix.EPERM, "setting another's default")
			c.is(unix.Removexattr("d/f", aclAccess), unix.EPERM, "removing another's")
			eq(c, c.aclOf("d/f", aclAccess), "", "reading another's")
		})
		c.as(ann, func() {
			c.is(unix.Setxattr("d/f", aclAccess, acl("u::6 u:2:7 g::5 m::7 o::0"), 0), nil, "setting one's own")
		})
		c.as(bob, func() {
			eq(c, c.aclOf("d/f", aclAccess), "u::6 u:2:7 g::5 m::7 o::0", "reading another's, without the right to read the file")
		})
	}},
	{name: "acl/einval", run: func(c *ctx) {
		c.file("f", 0o640)
		c.mkdir("d", 0o750)
		for _, x := range []struct {
			what string
			list []byte
			want error
		}{
			{"of one byte", []byte{2}, unix.EINVAL},
			{"of half an entry", append(acl("u::6 g::4 o::0"), 0, 0, 0, 0), unix.EINVAL},
			{"of version 1", append([]byte{1, 0, 0, 0}, acl("u::6 g::4 o::0")[4:]...), unix.EOPNOTSUPP},
			{"without others", acl("u::6 g::4"), unix.EINVAL},
			{"without an owner", acl("g::4 o::0"), unix.EINVAL},
			{"without a group", acl("u::4 o::0"), unix.EINVAL},
			{"with somebody named and no mask", acl("u::6 u:2:6 g::4 o::0"), unix.EINVAL},
			{"with a group named and no mask", acl("u::6 g::4 g:2:6 o::0"), unix.EINVAL},
			{"with two masks", acl("u::6 g::4 m::6 m::6 o::0"), unix.EINVAL},
			{"with two owners", acl("u::6 u::6 g::4 o::0"), unix.EINVAL},
			{"not in order", aclBytes(ace{aclOther, 0, 0}, ace{aclGroupObj, 4, 0}, ace{aclUserObj, 6, 0}), unix.EINVAL},
			{"with permission 8", acl("u::8 g::4 o::0"), unix.EINVAL},
			{"with an unknown tag", aclBytes(ace{aclUserObj, 6, 0}, ace{aclGroupObj, 4, 0}, ace{aclOther, 4, 0}, ace{0x40, 4, 0}), unix.EINVAL},
			{"with user -1", aclBytes(ace{aclUserObj, 6, 0}, ace{aclUser, 6, noID}, ace{aclGroupObj, 4, 0}, ace{aclMask, 6, 0}, ace{aclOther, 4, 0}), unix.EINVAL},
		} {
			c.is(unix.Setxattr("f", aclAccess, x.list, 0), x.want, "a list %s", x.what)
			c.is(unix.Setxattr("d", aclDefault, x.list, 0), x.want, "a default %s", x.what)
		}
		c.oct(c.mode("f"), 0o640, "nothing of that changed the mode")
		c.is(unix.Setxattr("f", aclDefault, acl("u::6 g::4 o::0"), 0), unix.EACCES, "a default list of a file")
		c.do(unix.Symlink("f", "l"))
		c.is(unix.Lsetxattr("l", aclAccess, acl("u::6 g::4 o::0"), 0), unix.EOPNOTSUPP, "a list of a symbolic link")
	}},
	{name: "acl/empty-list-removes", run: func(c *ctx) {
		c.mkdir("d", 0o750)
		c.setACL("d", aclDefault, "u::7 g::5 o::0")
		c.setACL("d", aclAccess, "u::7 u:5:5 g::5 m::5 o::0")
		c.is(unix.Setxattr("d", aclDefault, nil, 0), nil, "an empty value")
		eq(c, c.aclOf("d", aclDefault), "", "default")
		c.is(unix.Setxattr("d", aclAccess, []byte{2, 0, 0, 0}, 0), nil, "a list of no entries")
		eq(c, c.aclOf("d", aclAccess), "", "list")
	}},
	{name: "acl/listed", run: func(c *ctx) {
		c.mkdir("d", 0o750)
		eq(c, c.listxattr("d"), "", "names before")
		c.setACL("d", aclDefault, "u::7 g::5 o::0")
		eq(c, c.listxattr("d"), aclDefault, "names with a default")
		c.setACL("d", aclAccess, "u::7 u:5:5 g::5 m::5 o::0")
		eq(c, c.listxattr("d"), aclAccess+" "+aclDefault, "names with both")
	}},
	{name: "acl/many-entries", run: func(c *ctx) {
		c.file("f", 0o600)
		l := []ace{{aclUserObj, 6, 0}}
		for i := range 100 {
			l = append(l, ace{aclUser, uint16(i & 7), uint32(10000 + i)})
		}
		l = append(l, ace{aclGroupObj, 0, 0}, ace{aclMask, 7, 0}, ace{aclOther, 0, 0})
		c.do(unix.Setxattr("f", aclAccess, aclBytes(l...), 0))
		b := make([]byte, 4096)
		n, err := unix.Getxattr("f", aclAccess, b)
		c.do(err)
		eq(c, string(b[:n]), string(aclBytes(l...)), "the list")
		for _, i := range []int{3, 4, 50, 96, 99} {
			c.as(who{uid: 10000 + i, gid: 1}, func() {
				var want error
				if i&4 == 0 {
					want = unix.EACCES
				}
				c.is(try("f", ro), want, "entry %d", i)
			})
		}
	}},
	{name: "acl/survives-rename-and-link", run: func(c *ctx) {
		c.file("f", 0o600)
		c.setACL("f", aclAccess, "u::6 u:2002:4 g::0 m::4 o::0")
		c.do(unix.Link("f", "g"))
		c.do(unix.Rename("f", "h"))
		for _, n := range []string{"g", "h"} {
			c.as(bob, func() { c.is(try(n, ro), nil, "open of %s by the one named", n) })
		}
	}},
	{name: "acl/chown-keeps", run: func(c *ctx) {
		c.file("f", 0o600)
		c.setACL("f", aclAccess, "u::6 u:2002:4 g::0 m::4 o::0")
		c.do(unix.Chown("f", 7, 7))
		eq(c, c.aclOf("f", aclAccess), "u::6 u:2002:4 g::0 m::4 o::0", "the list after chown")
	}},
	{name: "acl/changes-ctime-only", run: func(c *ctx) {
		c.file("f", 0o600)
		c.changes(func() { c.setACL("f", aclAccess, "u::6 u:2002:4 g::0 m::4 o::0") }, "f", "c")
		c.mkdir("d", 0o700)
		c.changes(func() { c.setACL("d", aclDefault, "u::6 u:2002:4 g::0 m::4 o::0") }, "d", "c")
	}},
}
