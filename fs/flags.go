package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// flagsInherited are the flags that what is created in a directory gets from it.
const flagsInherited = layout.FlagSync | layout.FlagNoDump | layout.FlagNoAtime | layout.FlagDAX | layout.FlagProjInherit

// SetFlags changes an inode's flags (FS_*_FL, chattr(1)), and its project if proj is not
// nil. EOPNOTSUPP for flags that are not kept. Who may is the kernel's to decide, before it
// asks.
//
// Persistence order: transaction: core line, times line.
func (fs *FS) SetFlags(ctx *Caller, ino uint64, flags uint32, proj *uint32) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if flags&^layout.FlagsKnown != 0 || !in.isReg() && !in.isDir() {
		return syscall.EOPNOTSUPP
	}
	if !in.isDir() {
		flags &^= layout.FlagProjInherit
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	now := fs.now()
	c := fs.begin(ctx)
	u := c.update(in)
	u.Core.Flags = flags
	if proj != nil {
		u.Core.Proj = *proj
	}
	u.stamp(SetCtime, now)
	return errno(c.commit())
}

// Open says whether a file may be opened with the O_* in flags, and its own flags. The
// kernel has judged by mode and access control lists; of ours it knows nothing. EPERM if an
// immutable file would be written to, or one that can only be appended to otherwise. Release ends
// it.
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

// immutable: nothing of it may change (chattr +i).
func (in *inode) immutable() bool { return in.flags.Load()&layout.FlagImmutable != 0 }

// appendOnly: it may only grow (chattr +a). Of a directory: names may only be added.
func (in *inode) appendOnly() bool { return in.flags.Load()&layout.FlagAppend != 0 }

// immutableOrAppend: its attributes and names may not change.
func (in *inode) immutableOrAppend() bool {
	return in.flags.Load()&(layout.FlagImmutable|layout.FlagAppend) != 0
}

// mayAdd is for a name in d.
func mayAdd(d *inode) syscall.Errno {
	if d.immutable() {
		return syscall.EPERM
	}
	return 0
}

// mayDelete is for d's name of in, as may_delete of the kernel.
func mayDelete(d, in *inode) syscall.Errno {
	if d.immutableOrAppend() || in.immutableOrAppend() {
		return syscall.EPERM
	}
	return 0
}
