package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/posixacl"
)

// The kernel checks accesses against a file's access control lists. This file and package posixacl
// decide how the lists change modes and new inodes, in the transaction that changes the inode.

// acls holds an inode's access control lists; a nil list is absent.
type acls struct{ access, def posixacl.List }

// aclKept bounds the entries of an inode's lists that stay in DRAM with the inode. Longer lists are
// read from the media each time.
const aclKept = 64

// loadACLsLocked returns an inode's lists, and reads them if they are not in DRAM. Called with
// in.mu held for writing.
func (fs *FS) loadACLsLocked(in *inode) (*acls, error) {
	if in.acls != nil {
		return in.acls, nil
	}
	l := &acls{}
	xs, err := fs.loadXattrsLocked(in)
	if err != nil {
		return nil, err
	}
	for i := range xs.list {
		x := &xs.list[i]
		if !posixacl.IsName(x.Name) {
			continue
		}
		b := make([]byte, x.Len)
		if err := fs.xattrValue(in, x, b); err != nil {
			return nil, err
		}
		a, err := posixacl.Parse(b)
		if err != nil {
			return nil, corruptf("attribute %q of inode %d is malformed: not an access control list", x.Name, in.ino)
		}
		if x.Name == posixacl.Access {
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

// setACL sets the list called name, or removes it if value holds no entries. An access list also
// sets the mode, and is not stored if the mode can express all of it.
func (s *xattrSwap) setACL(name string, value []byte, c *layout.Core) error {
	a, err := posixacl.Parse(value)
	switch {
	case err != nil:
		return err
	case s.in.typ == syscall.S_IFLNK:
		return syscall.EOPNOTSUPP
	case name == posixacl.Default && !s.in.isDir() && a != nil:
		return syscall.EACCES
	case name == posixacl.Access && a != nil:
		c.Mode, a = a.SetMode(c.Mode)
	}
	if a == nil {
		s.remove(name)
		return nil
	}
	return s.set(name, a.Bytes())
}

// chmodACLLocked adapts an inode's access list to a new mode. The transaction that sets the mode
// must link the returned swap; nil: the list does not change. Called with in.mu held for writing
// and no lane.
func (fs *FS) chmodACLLocked(ctx *Caller, in *inode, mode uint16) (*xattrSwap, error) {
	if in.xroot == 0 {
		return nil, nil
	}
	l, err := fs.loadACLsLocked(in)
	if err != nil {
		return nil, err
	}
	a, changed := l.access.Chmod(mode)
	if !changed {
		return nil, nil
	}
	return fs.swapXattrsLocked(ctx, in, func(s *xattrSwap) error {
		return s.set(posixacl.Access, a.Bytes())
	})
}

// inheritACLLocked gives a new inode the lists that follow from the default list of directory d.
// Without a default list it takes the umask from the mode instead. The transaction that creates the
// inode must link the returned swap; nil: the inode has no list. Called with d.mu held for writing
// and no lane.
func (n *newborn) inheritACLLocked(d *inode) (*xattrSwap, error) {
	fs, ctx, in := n.fs, n.ctx, n.in
	if in.typ == syscall.S_IFLNK {
		return nil, nil
	}
	l := &acls{}
	if d.xroot != 0 {
		var err error
		if l, err = fs.loadACLsLocked(d); err != nil {
			return nil, err
		}
	}
	if l.def == nil {
		in.core.Mode &^= uint16(ctx.Umask & 0o777)
		return nil, nil
	}
	var access, def posixacl.List
	if in.core.Mode, access, def = l.def.Inherit(in.core.Mode, in.isDir()); access == nil && def == nil {
		return nil, nil
	}
	return fs.swapXattrsLocked(ctx, in, func(s *xattrSwap) (err error) {
		if access != nil {
			err = s.set(posixacl.Access, access.Bytes())
		}
		if def != nil && err == nil {
			err = s.set(posixacl.Default, def.Bytes())
		}
		return err
	})
}
