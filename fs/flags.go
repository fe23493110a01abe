package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// flagsInherited are the flags that a new inode inherits from its directory.
const flagsInherited = layout.FlagSync | layout.FlagNoDump | layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit | layout.FlagsHint

// SetFlags changes an inode's flags (FS_*_FL, chattr(1)), and its project if proj is not nil.
// EOPNOTSUPP for unknown flags, and for inodes other than files and directories; EBUSY for flags
// that forbid writing while a program has a grant to write. The kernel has checked that the caller
// may do it.
//
// Persistence order: transaction: core line, times line.
func (fs *FS) SetFlags(ctx *Caller, ino uint64, flags uint32, proj *uint32) syscall.Errno {
	return fs.setFlags(ctx, ino, flags, layout.FlagsHint, proj)
}

// SetFlagsAndHint is SetFlags that changes the extent size hint, too.
func (fs *FS) SetFlagsAndHint(ctx *Caller, ino uint64, flags uint32, hint Hint, proj *uint32) syscall.Errno {
	if flags&^layout.FlagsKnown != 0 {
		return syscall.EOPNOTSUPP
	}
	return fs.setFlags(ctx, ino, flags|hint.flag(), 0, proj)
}

// setFlags replaces an inode's flags, except those of the mask keep, and its project if proj is not
// nil.
func (fs *FS) setFlags(ctx *Caller, ino uint64, flags, keep uint32, proj *uint32) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if flags&^(layout.FlagsKnown|layout.FlagsHint&^keep) != 0 || !in.isReg() && !in.isDir() {
		return syscall.EOPNOTSUPP
	}
	if !in.isDir() {
		flags &^= layout.FlagProjInherit
	}
	if in.isReg() && fs.direct.any() {
		if err := fs.extentsLoaded(ctx, in); err != nil {
			return errno(err)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	const frozen = layout.FlagImmutable | layout.FlagAppend
	if flags&^in.core.Flags&frozen != 0 && fs.direct.storesLocked(in) {
		return syscall.EBUSY
	}
	now := fs.now()
	c := fs.begin(ctx)
	u := c.update(in)
	u.Core.Flags = flags | u.Core.Flags&keep
	if proj != nil {
		u.Core.Proj = *proj
	}
	u.stamp(SetCtime, now)
	return errno(c.commit())
}

// Open checks whether a file may be opened with the O_* flags, and returns the file's own flags.
// The kernel has checked mode and access control lists, but does not know the file's flags. EPERM
// for a write to an immutable file, and for a write without O_APPEND to an append-only one. Release
// ends the open file.
func (fs *FS) Open(ctx *Caller, ino uint64, flags uint32) (own uint32, e syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	writes := flags&syscall.O_ACCMODE != syscall.O_RDONLY
	if writes && (in.immutable() || in.appendOnly() && flags&syscall.O_APPEND == 0) {
		return 0, syscall.EPERM
	}
	if opensMappable(flags) {
		in.mappers.Add(1)
	}
	return in.flags.Load(), 0
}

// immutable reports whether the inode must not change at all (chattr +i).
func (in *inode) immutable() bool { return in.flags.Load()&layout.FlagImmutable != 0 }

// appendOnly reports whether a file may only grow, or a directory only get new names (chattr +a).
func (in *inode) appendOnly() bool { return in.flags.Load()&layout.FlagAppend != 0 }

// immutableOrAppend reports whether the inode is immutable or append-only, so that its attributes
// and names must not change.
func (in *inode) immutableOrAppend() bool {
	return in.flags.Load()&(layout.FlagImmutable|layout.FlagAppend) != 0
}

// mayAdd returns EPERM if directory d must not get a new name.
func mayAdd(d *inode) syscall.Errno {
	if d.immutable() {
		return syscall.EPERM
	}
	return 0
}

// mayDelete returns EPERM if d's name of in must not be removed, as the kernel's may_delete does.
func mayDelete(d, in *inode) syscall.Errno {
	if d.immutableOrAppend() || in.immutableOrAppend() {
		return syscall.EPERM
	}
	return 0
}
