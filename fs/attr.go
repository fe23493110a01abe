package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Bits of SetAttr.Valid: the attributes to set.
const (
	SetMode uint32 = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetCtime
	// SetKillPriv clears set-user-ID, and set-group-ID if the group may execute the file, because a
	// caller without CAP_FSETID writes or truncates it.
	SetKillPriv
	// SetKillSGID clears set-group-ID even if the group may not execute the file, because the
	// caller is not in the file's group. It goes with SetKillPriv, or with a new owner.
	SetKillSGID
)

// SetAttr lists the attributes to change; fields whose bit is not in Valid are ignored. Size is in
// bytes; times are ns since the epoch.
type SetAttr struct {
	Valid               uint32
	Mode, UID, GID      uint32
	Size                uint64
	Atime, Mtime, Ctime int64
	Now                 bool // Atime and Mtime are the present time, not chosen by the program
}

// KillPriv returns mode without the bits that SetKillPriv clears. Analogous to the kernel's
// setattr_should_drop_suidgid.
func KillPriv(mode uint32) uint32 {
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		return mode
	}
	mode &^= syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// NeedsGroups reports whether the caller's groups decide if mode loses set-group-ID, for a caller
// without CAP_FSETID. Analogous to the kernel's setattr_should_drop_sgid.
func NeedsGroups(mode uint32) bool {
	return mode&(syscall.S_ISGID|syscall.S_IXGRP) == syscall.S_ISGID && mode&syscall.S_IFMT != syscall.S_IFDIR
}

// gainsPriv reports whether a change of a file's mode sets bits that a write clears.
func gainsPriv(old, now uint16) bool {
	return now&syscall.S_IFMT == syscall.S_IFREG && now&^old&(syscall.S_ISUID|syscall.S_ISGID) != 0
}

// killed returns mode without the bits that SetKillPriv and SetKillSGID clear.
func (s *SetAttr) killed(mode uint16) uint16 {
	m := KillPriv(uint32(mode))
	if s.Valid&SetKillSGID != 0 && NeedsGroups(m) {
		m &^= syscall.S_ISGID
	}
	return uint16(m)
}

// mayChange returns EPERM if an immutable or append-only inode forbids the change s, as the
// kernel's notify_change does.
func (s *SetAttr) mayChange(in *inode) syscall.Errno {
	chosen := s.Valid & (SetMode | SetUID | SetGID | SetCtime)
	if !s.Now {
		chosen |= s.Valid & (SetAtime | SetMtime)
	}
	if in.immutable() && s.Valid != 0 || in.appendOnly() && (chosen != 0 || s.Valid&SetSize != 0) {
		return syscall.EPERM
	}
	return 0
}

// fillLocked stores in's attributes in a. Called with in.mu held for reading or writing.
func (in *inode) fillLocked(a *Attr) {
	c := &in.core
	*a = Attr{
		Ino: in.ino, Gen: c.Gen, Mode: uint32(c.Mode), Nlink: c.Nlink, UID: c.UID, GID: c.GID, Rdev: c.Rdev,
		Size: c.Size, Blocks: in.blocks.Load() * (layout.BlockSize / 512),
		Atime: in.atime.Load(), Mtime: in.mtime.Load(), Ctime: in.ctime.Load(), Btime: in.btime,
		Flags: c.Flags &^ layout.FlagsHint, Hint: hintOf(c.Flags), Proj: c.Proj,
	}
}

// attr is fillLocked for callers that hold no lock. EAGAIN as from blocksKnown.
func (fs *FS) attr(ctx *Caller, in *inode, a *Attr) syscall.Errno {
	err := fs.blocksKnown(ctx, in)
	in.mu.RLock()
	in.fillLocked(a)
	in.mu.RUnlock()
	return errno(err)
}

// GetAttr fills a with the attributes of an inode, as stat(2). EAGAIN as from blocksKnown.
func (fs *FS) GetAttr(ctx *Caller, ino uint64, a *Attr) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	e = fs.attr(ctx, in, a)
	fs.put(in, 1)
	return e
}

// SetAttr changes an inode's attributes, as chmod, chown, truncate and utimens, and fills a with
// the result. A new size is a transaction of its own, together with SetKillPriv (see resize). All
// other changes are one transaction after it. A new mode also changes the access control list.
//
// Persistence order:
//  1. with a new size or owner: file capabilities are removed (killCapability)
//  2. the new size (resize)
//  3. a changed list is stored (swapXattrsLocked)
//  4. transaction: core line, times line
func (fs *FS) SetAttr(ctx *Caller, ino uint64, s *SetAttr, a *Attr) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.trySetAttr(ctx, in, s, a) })
}

// trySetAttr is one attempt of SetAttr.
func (fs *FS) trySetAttr(ctx *Caller, in *inode, s *SetAttr, a *Attr) syscall.Errno {
	if e := s.mayChange(in); e != 0 {
		return e
	}
	if err := fs.blocksKnown(ctx, in); err != nil { // for fillLocked; nothing has changed yet
		return errno(err)
	}
	if s.Valid&(SetSize|SetUID|SetGID) != 0 {
		if e := fs.killCapability(ctx, in); e != 0 {
			return e
		}
	}
	rest := *s
	if s.Valid&SetSize != 0 {
		if err := (&resize{fs, ctx, in, s}).run(); err != nil {
			return errno(err)
		}
		rest.Valid &^= SetSize | SetKillPriv
		if rest.Valid&(SetUID|SetGID) == 0 {
			rest.Valid &^= SetKillSGID
		}
	}
	if rest.Valid != 0 {
		if err := fs.setAttr(ctx, in, &rest); err != nil {
			return errno(err)
		}
	}
	return fs.attr(ctx, in, a)
}

// setAttr is SetAttr without a size: one transaction. Called with no lock held.
func (fs *FS) setAttr(ctx *Caller, in *inode, s *SetAttr) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	c := in.core
	ct := fs.now()
	if s.Valid&SetMode != 0 {
		c.Mode = c.Mode&syscall.S_IFMT | uint16(s.Mode&0o7777)
	}
	if s.Valid&SetUID != 0 {
		c.UID = s.UID
	}
	if s.Valid&SetGID != 0 {
		c.GID = s.GID
	}
	if s.Valid&(SetUID|SetGID|SetKillPriv) != 0 && s.Valid&SetMode == 0 {
		c.Mode = s.killed(c.Mode)
	}
	if s.Valid&SetCtime != 0 {
		ct = s.Ctime
	}
	var list *xattrSwap
	if c.Mode != in.core.Mode {
		var err error
		if list, err = fs.chmodACLLocked(ctx, in, c.Mode); err != nil {
			return err
		}
	}
	ch := fs.begin(ctx)
	u := ch.update(in)
	u.Core = c
	u.stamp(SetCtime, ct)
	u.stamp(s.Valid&SetAtime, s.Atime)
	u.stamp(s.Valid&SetMtime, s.Mtime)
	ch.swap(u, list)
	return ch.commit()
}
