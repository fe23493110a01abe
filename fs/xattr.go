package fs

import (
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/posixacl"
)

// Flags of SetXattr, the first two as setxattr(2).
const (
	XattrCreate  uint32 = 1 << 0
	XattrReplace uint32 = 1 << 1
	// XattrKillSGID makes a file lose set-group-ID when its access ACL is set, as with a chmod by
	// a user who is not in the file's group.
	XattrKillSGID uint32 = 1 << 16
)

// capability is the attribute that a change of the file's content or owner removes.
const capability = "security.capability"

// checkXattr refuses names in namespaces that are not kept, and malformed names in the others. The
// kernel decides, before it asks, which attributes a caller may read and change.
func checkXattr(name string) syscall.Errno {
	switch ns, rest, ok := strings.Cut(name, "."); {
	case posixacl.IsName(name):
	case !ok, ns != "user" && ns != "trusted" && ns != "security":
		return syscall.EOPNOTSUPP
	case rest == "":
		return syscall.EINVAL
	case len(name) > 255:
		return syscall.ERANGE
	}
	return 0
}

// GetXattr returns the length of an attribute's value in bytes, and copies the value to buf unless
// buf is empty. ENODATA if there is no attribute of that name. ERANGE (and the length) if buf is
// too small. EOPNOTSUPP for namespaces other than user, trusted and security, and for names in
// system other than the two access control lists.
func (fs *FS) GetXattr(ctx *Caller, ino uint64, name string, buf []byte) (int, syscall.Errno) {
	if e := checkXattr(name); e != 0 {
		return 0, e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	in.mu.RLock()
	defer in.mu.RUnlock()
	xs, err := fs.loadXattrsLocked(in)
	if err != nil {
		return 0, errno(err)
	}
	i := findXattr(xs.list, name)
	if i < 0 {
		return 0, syscall.ENODATA
	}
	x := &xs.list[i]
	switch {
	case len(buf) == 0:
		return int(x.Len), 0
	case len(buf) < int(x.Len):
		return int(x.Len), syscall.ERANGE
	}
	return int(x.Len), errno(fs.xattrValue(in, x, buf[:x.Len]))
}

// ListXattr returns the length in bytes of the list of names, each ended by a NUL, and copies the
// list to buf unless buf is empty. ERANGE (and the length) if buf is too small. Only root gets
// names in namespace trusted.
func (fs *FS) ListXattr(ctx *Caller, ino uint64, buf []byte) (int, syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	in.mu.RLock()
	defer in.mu.RUnlock()
	xs, err := fs.loadXattrsLocked(in)
	if err != nil {
		return 0, errno(err)
	}
	n := 0
	fits := true
	for _, x := range xs.list {
		if ctx.UID != 0 && strings.HasPrefix(x.Name, "trusted.") {
			continue
		}
		if fits = fits && n+len(x.Name)+1 <= len(buf); fits {
			copy(buf[n:], x.Name)
			buf[n+len(x.Name)] = 0
		}
		n += len(x.Name) + 1
	}
	if !fits && len(buf) > 0 {
		return n, syscall.ERANGE
	}
	return n, 0
}

// SetXattr sets an attribute. With XattrCreate the attribute must be new (else EEXIST), with
// XattrReplace it must be present (else ENODATA). E2BIG for values longer than 64 KiB. ENOSPC also
// if the names and short values of one file exceed about 400 KiB. An access ACL changes the mode
// with it, as posix_acl_update_mode does, and removes set-group-ID if XattrKillSGID is set. EINVAL
// if an ACL is malformed. A crash leaves the old value or the new one.
func (fs *FS) SetXattr(ctx *Caller, ino uint64, name string, value []byte, flags uint32) syscall.Errno {
	if flags&^(XattrCreate|XattrReplace|XattrKillSGID) != 0 {
		return syscall.EINVAL
	}
	if len(value) > layout.XattrValueMax {
		return syscall.E2BIG
	}
	return fs.changeXattr(ctx, ino, name, func(s *xattrSwap, c *layout.Core) error {
		i := s.find(name)
		switch {
		case i >= 0 && flags&XattrCreate != 0:
			return syscall.EEXIST
		case i < 0 && flags&XattrReplace != 0:
			return syscall.ENODATA
		}
		if posixacl.IsName(name) {
			if flags&XattrKillSGID != 0 && name == posixacl.Access {
				c.Mode &^= syscall.S_ISGID
			}
			return s.setACL(name, value, c)
		}
		if name == capability {
			s.in.caps.Store(true)
			fs.direct.stale(s.in)
		}
		return s.set(name, value)
	})
}

// RemoveXattr removes an attribute. ENODATA if there is no attribute of that name; to remove an ACL
// that is not there succeeds.
func (fs *FS) RemoveXattr(ctx *Caller, ino uint64, name string) syscall.Errno {
	e := fs.changeXattr(ctx, ino, name, removal(name))
	if e == syscall.ENODATA && posixacl.IsName(name) {
		return 0
	}
	return e
}

// removal returns the edit that removes an attribute.
func removal(name string) xattrEdit {
	return func(s *xattrSwap, _ *layout.Core) error {
		if !s.remove(name) {
			return syscall.ENODATA
		}
		return nil
	}
}

// killCapability removes the file capabilities of a file that is about to change, which the kernel
// leaves to us (HANDLE_KILLPRIV_V2). When it returns 0 they are gone, whether this call or another
// one removed them.
func (fs *FS) killCapability(ctx *Caller, in *inode) syscall.Errno {
	if !in.caps.Load() {
		return 0
	}
	e := fs.editXattrs(ctx, in, func(s *xattrSwap, _ *layout.Core) error {
		if !s.remove(capability) {
			in.caps.Store(false)
			return syscall.ENODATA
		}
		return nil
	})
	if e == syscall.ENODATA {
		return 0
	}
	return e
}

// xattrEdit changes an inode's list of attributes, and its core line.
type xattrEdit func(s *xattrSwap, c *layout.Core) error

// changeXattr checks that a program may change the attribute, and calls editXattrs.
func (fs *FS) changeXattr(ctx *Caller, ino uint64, name string, edit xattrEdit) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if e := checkXattr(name); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if in.immutableOrAppend() {
		return syscall.EPERM
	}
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.editXattrs(ctx, in, edit) })
}

// editXattrs replaces an inode's list of attributes by the list that edit makes from it. If edit
// changes the core line, that changes in the same transaction.
//
// Persistence order:
//  1. the new list is stored (swapXattrsLocked)
//  2. transaction: the times line with the new root and ctime, and perhaps the core line
//  3. only then is the old list free
func (fs *FS) editXattrs(ctx *Caller, in *inode, edit xattrEdit) syscall.Errno {
	if err := fs.blocksKnown(ctx, in); err != nil { // so that it stays right from here on
		return errno(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	core := in.core
	s, err := fs.swapXattrsLocked(ctx, in, func(s *xattrSwap) error { return edit(s, &core) })
	if err != nil {
		return errno(err)
	}
	now := fs.now()
	c := fs.begin(ctx)
	u := c.update(in)
	u.Core = core
	u.stamp(SetCtime, now)
	c.swap(u, s)
	if err := c.commit(); err != nil {
		return errno(err)
	}
	in.caps.Store(s.find(capability) >= 0)
	return 0
}
