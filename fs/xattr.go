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
	// XattrKillSGID: with an access control list of access the file loses set-group-ID, as
	// with a chmod by who is not of its group.
	XattrKillSGID uint32 = 1 << 16
)

// capability is the attribute that a change of the file's content or owner takes away.
const capability = "security.capability"

// checkXattr refuses names of namespaces that are not kept. What may be read and changed
// in those that are is the kernel's to decide, before it asks.
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

// GetXattr returns the length of an attribute's value, copied to buf unless that is
// empty. ENODATA if there is none of that name, ERANGE (and the length) if buf is too
// small, EOPNOTSUPP for other namespaces than user, trusted and security, and other names
// of system than the two access control lists.
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

// ListXattr returns the length of the list of names, each ended by a NUL, copied to buf
// unless that is empty. Those of namespace trusted are told to root only.
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

// SetXattr sets an attribute: a new one only with XattrCreate (else EEXIST), a present
// one only with XattrReplace (else ENODATA). E2BIG for values longer than 64 KiB, ENOSPC
// also if the names and short values of one file exceed about 400 KiB. The access control
// list of access changes the mode with it, and takes set-group-ID if XattrKillSGID is set, as
// posix_acl_update_mode; EINVAL if a list is none. A crash leaves the old value or the new one.
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
		}
		return s.set(name, value)
	})
}

// RemoveXattr removes an attribute. ENODATA if there is none of that name, unless that is
// an access control list.
func (fs *FS) RemoveXattr(ctx *Caller, ino uint64, name string) syscall.Errno {
	e := fs.changeXattr(ctx, ino, name, removal(name))
	if e == syscall.ENODATA && posixacl.IsName(name) {
		return 0
	}
	return e
}

// removal is the edit that removes an attribute.
func removal(name string) xattrEdit {
	return func(s *xattrSwap, _ *layout.Core) error {
		if !s.remove(name) {
			return syscall.ENODATA
		}
		return nil
	}
}

// killCapability takes the file capabilities from a file that is about to change: the
// kernel leaves it to us (HANDLE_KILLPRIV_V2). When it returns they are gone, whoever took them.
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

// xattrEdit changes an inode's list of attributes, and its core.
type xattrEdit func(s *xattrSwap, c *layout.Core) error

// changeXattr is editXattrs for who asks from outside.
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

// editXattrs replaces an inode's list of attributes by what edit makes of it, and its core,
// if edit changes that, in the same transaction.
//
// Persistence order:
//  1. the new list is stored (swapXattrsLocked)
//  2. transaction: the times line with the new root and ctime, and perhaps the core line
//  3. only then is the old list free
func (fs *FS) editXattrs(ctx *Caller, in *inode, edit xattrEdit) syscall.Errno {
	if err := fs.blocksKnown(ctx, in); err != nil { // from here on
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
