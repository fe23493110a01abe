package fs

import (
	"encoding/binary"
	"slices"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
)

// The attributes that are a file's access control lists (acl(5)). The kernel judges by them;
// what they do to modes, and to what is created, is done here.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default" // of directories: what is created there inherits it
)

// acl is a POSIX access control list as fs/posix_acl.c of the kernel has it: entries in the
// order owner, users, owning group, groups, mask, others.
type acl []aclEntry

type aclEntry struct {
	tag, perm uint16 // perm is a combination of r 4, w 2, x 1
	id        uint32 // of users and groups
}

// The tags, and what else there is in the form of an attribute's value.
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclVersion   = 2
	aclHeadSize  = 4
	aclEntrySize = 8
)

// isACL reports whether an attribute is an access control list.
func isACL(name string) bool { return name == aclAccess || name == aclDefault }

// parseACL reads the value of an attribute. EINVAL if that is none, as posix_acl_from_xattr
// and posix_acl_valid; a list without entries is nil.
func parseACL(b []byte) (acl, error) {
	if len(b) < aclHeadSize || (len(b)-aclHeadSize)%aclEntrySize != 0 {
		return nil, syscall.EINVAL
	}
	if binary.LittleEndian.Uint32(b) != aclVersion {
		return nil, syscall.EOPNOTSUPP
	}
	var a acl
	for b = b[aclHeadSize:]; len(b) > 0; b = b[aclEntrySize:] {
		a = append(a, aclEntry{binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])})
	}
	if len(a) > 0 && !a.valid() {
		return nil, syscall.EINVAL
	}
	return a, nil
}

// valid is posix_acl_valid.
func (a acl) valid() bool {
	// What may stand behind a tag; behind the last one nothing.
	next := map[uint16][]uint16{
		0:           {aclUserObj},
		aclUserObj:  {aclUser, aclGroupObj},
		aclUser:     {aclUser, aclGroupObj},
		aclGroupObj: {aclGroup, aclMask, aclOther},
		aclGroup:    {aclGroup, aclMask},
		aclMask:     {aclOther},
	}
	last, users := uint16(0), false
	for _, e := range a {
		if e.perm > 7 || !slices.Contains(next[last], e.tag) || e.tag == aclOther && users && last != aclMask {
			return false
		}
		users = users || e.tag == aclUser
		last = e.tag
	}
	return last == aclOther
}

// bytes is the value of the attribute.
func (a acl) bytes() []byte {
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for _, e := range a {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		id := e.id
		if e.tag != aclUser && e.tag != aclGroup {
			id = 1<<32 - 1 // undefined
		}
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return b
}

// get is the entry of a tag that stands once; nil: there is none.
func (a acl) get(tag uint16) *aclEntry {
	for i := range a {
		if a[i].tag == tag {
			return &a[i]
		}
	}
	return nil
}

// class is the entry that a file's mode shows for its group: the mask, if there is one.
func (a acl) class() *aclEntry {
	if e := a.get(aclMask); e != nil {
		return e
	}
	return a.get(aclGroupObj)
}

// minimal reports whether the permissions of a mode say all that a says
// (posix_acl_equiv_mode).
func (a acl) minimal() bool { return len(a) == 3 }

// perm is what a mode shows of a.
func (a acl) perm() uint16 {
	return a.get(aclUserObj).perm<<6 | a.class().perm<<3 | a.get(aclOther).perm
}

// chmod is a as a mode's permissions make it (__posix_acl_chmod).
func (a acl) chmod(mode uint16) acl {
	a = slices.Clone(a)
	a.get(aclUserObj).perm = mode >> 6 & 7
	a.class().perm = mode >> 3 & 7
	a.get(aclOther).perm = mode & 7
	return a
}

// create is what a file that is created with mode gets of the default list a
// (__posix_acl_create): no more than either gives.
func (a acl) create(mode uint16) acl { return a.chmod(mode & a.perm()) }

// acls are an inode's lists; nil: none.
type acls struct{ access, def acl }

// aclKept is how many entries of an inode's lists stay in DRAM with it; longer ones are read anew.
const aclKept = 64

// loadACLs reads an inode's lists. Called with mu held.
func (fs *FS) loadACLs(in *inode) (*acls, error) {
	if in.acls != nil {
		return in.acls, nil
	}
	l := &acls{}
	xs, err := fs.loadXattrs(in)
	if err != nil {
		return nil, err
	}
	for i := range xs.list {
		x := &xs.list[i]
		if !isACL(x.Name) {
			continue
		}
		b := make([]byte, x.Len)
		if err := fs.xattrValue(in, x, b); err != nil {
			return nil, err
		}
		a, err := parseACL(b)
		if err != nil {
			return nil, corruptf("attribute %q of inode %d is no access control list", x.Name, in.ino)
		}
		if x.Name == aclAccess {
			l.access = a
		} else {
			l.def = a
		}
	}
	if len(l.access)+len(l.def) <= aclKept {
		in.acls = l
	}
	return l, nil
}

// setACL sets a list, or removes it if value holds no entry. That of access says what the
// mode is: an equivalent mode replaces it.
func (fs *FS) setACL(ctx *Context, in *inode, xs *xattrs, name string, value []byte, c *layout.Core) error {
	a, err := parseACL(value)
	switch {
	case err != nil:
		return err
	case in.typ == syscall.S_IFLNK:
		return syscall.EOPNOTSUPP
	case name == aclDefault && !in.isDir() && a != nil:
		return syscall.EACCES
	case name == aclAccess && a != nil:
		c.Mode = c.Mode&^0o777 | a.perm()
		if a.minimal() {
			a = nil
		}
	}
	if a == nil {
		xs.remove(name)
		return nil
	}
	return fs.setValue(ctx, xs, name, a.bytes())
}

// chmodACL makes an inode's list follow a new mode: the swap has to be linked by the
// transaction that sets it. nil: there is none.
func (fs *FS) chmodACL(ctx *Context, in *inode, mode uint16) (*xattrSwap, error) {
	if in.xroot == 0 {
		return nil, nil
	}
	l, err := fs.loadACLs(in)
	if err != nil || l.access == nil || l.access.perm() == mode&0o777 {
		return nil, err
	}
	return fs.swapXattrs(ctx, in, func(xs *xattrs) error {
		return fs.setValue(ctx, xs, aclAccess, l.access.chmod(mode).bytes())
	})
}

// inheritACL gives a new inode what its directory's default list says, or takes the umask
// from its mode if there is none. The swap has to be linked by the transaction that makes
// it; nil: there is none.
func (fs *FS) inheritACL(ctx *Context, d, in *inode) (*xattrSwap, error) {
	if in.typ == syscall.S_IFLNK {
		return nil, nil
	}
	l := &acls{}
	if d.xroot != 0 {
		var err error
		if l, err = fs.loadACLs(d); err != nil {
			return nil, err
		}
	}
	if l.def == nil {
		in.core.Mode &^= uint16(ctx.Umask & 0o777)
		return nil, nil
	}
	a := l.def.create(in.core.Mode)
	in.core.Mode = in.core.Mode&^0o777 | a.perm()
	if a.minimal() && !in.isDir() {
		return nil, nil
	}
	return fs.swapXattrs(ctx, in, func(xs *xattrs) (err error) {
		if !a.minimal() {
			err = fs.setValue(ctx, xs, aclAccess, a.bytes())
		}
		if in.isDir() && err == nil {
			err = fs.setValue(ctx, xs, aclDefault, l.def.bytes())
		}
		return err
	})
}
