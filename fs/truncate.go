package fs

import (
	"runtime"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// resize is a truncate(2) under way: the new size in s, and the SetKillPriv that came with it.
type resize struct {
	fs  *FS
	ctx *Caller
	in  *inode
	s   *SetAttr
}

// run changes the size. Called with no lock held.
func (r *resize) run() error {
	in, size := r.in, r.s.Size
	switch {
	case in.isDir():
		return syscall.EISDIR
	case !in.isReg():
		return syscall.EINVAL
	case size > maxSize:
		return syscall.EFBIG
	}
	if err := r.fs.extentsLoaded(r.ctx, in); err != nil {
		return err
	}
	for {
		change := r.shrink
		if size > in.size.Load() {
			change = r.grow
		}
		if done, err := change(); done || err != nil {
			return err
		}
	}
}

// grow moves the end of file up. done is false if the end is no longer below the new size.
//
// Persistence order:
//  1. NT-zero from the old end of file to the end of its block, SFENCE
//  2. transaction: core line with the size, times line
func (r *resize) grow() (done bool, err error) {
	ctx, in, size := r.ctx, r.in, int64(r.s.Size)
	lock, from, err := in.lockWrite(ctx, size, size)
	if err == nil {
		lock, err = in.lockGrow(ctx, lock, from, size, size)
	}
	if err != nil {
		return false, err
	}
	defer in.rl.Unlock(lock)
	defer in.io.Unlock()
	old := int64(in.size.Load())
	if old >= size {
		return false, nil
	}
	if err := r.fs.zeroFencedLocked(ctx, in, span{old, min(size, blockEnd(old))}); err != nil {
		return false, err
	}
	return true, r.commitLocked(r.fs.newRemapLocked(in, 0), false)
}

// shrink moves the end of file down, or leaves it there and updates the times. done is false if the
// new size is above the end. shrink takes no range lock and waits for no reader: the last reference
// to a block, such as a pinned read's, frees it.
func (r *resize) shrink() (done bool, err error) {
	fs, ctx, in := r.fs, r.ctx, r.in
	if err := in.lockIO(ctx); err != nil {
		return false, err
	}
	defer in.io.Unlock()
	switch size := in.size.Load(); {
	case r.s.Size > size:
		return false, nil
	case ctx.NoWait && in.cutsMuchLocked() && blocksOf(int64(r.s.Size)) < blocksOf(int64(size)):
		return false, syscall.EAGAIN
	}
	m, more := fs.planCut(ctx, in, r.s.Size)
	if err := r.commitLocked(m, more); err != nil {
		return false, err
	}
	if more {
		if err = fs.finishTruncateLocked(ctx, in); err != nil {
			fs.damage.unfinished.Store(true)
		}
	}
	fs.dropChain(ctx, in)
	return true, err
}

// commitLocked commits the new size and m, the remap that cuts blocks beyond it. If blocks remain
// there (more), the inode is marked Truncating, and the caller (or recovery) calls
// finishTruncateLocked. Called with io held, and not mu.
//
// Persistence order:
//  1. transaction: core line with size and mark, times line, slots cut
//  2. only then are the cut blocks disowned, and freed by their last holders
func (r *resize) commitLocked(m *remap, more bool) error {
	s := r.s
	return m.commitWith(r.ctx, func(c layout.Core) (layout.Core, uint32) {
		if s.Size <= c.Size {
			c.Format &^= layout.FormatTruncating // set if an earlier truncation failed half-way
		}
		c.Size = s.Size
		if s.Valid&SetKillPriv != 0 {
			c.Mode = s.killed(c.Mode)
		}
		if more {
			c.Format |= layout.FormatTruncating
		}
		return c, SetMtime | SetCtime
	})
}

// planCut plans the removal of the blocks beyond size (bytes), which needs no new slot. more is set
// if another remap is needed for the rest.
func (fs *FS) planCut(ctx *Caller, in *inode, size uint64) (m *remap, more bool) {
	m, stop, _ := fs.planLocked(ctx, in, blocksOf(int64(size)), maxBlock+1, dispPunch)
	m.reduce()
	return m, stop <= maxBlock
}

// finishTruncateLocked cuts the blocks that an interrupted or large truncation left, and clears the
// mark. Called with io held, and not mu.
//
// Persistence order: transactions of slots cut; the last one also clears the mark.
func (fs *FS) finishTruncateLocked(ctx *Caller, in *inode) error {
	for {
		m, more := fs.planCut(ctx, in, in.size.Load())
		err := m.commitWith(ctx, func(c layout.Core) (layout.Core, uint32) {
			if !more {
				c.Format &^= layout.FormatTruncating
			}
			return c, 0
		})
		if err != nil || !more {
			return err
		}
	}
}

// blockEnd returns the end, in bytes, of the block in which a file of size bytes ends. The bytes up
// to there may be left from a longer file: they are zeroed before they become visible.
func blockEnd(size int64) int64 { return (size + layout.BlockSize - 1) &^ (layout.BlockSize - 1) }

// span is a range of a file's bytes, [off, end), within one block; empty if off >= end.
type span struct{ off, end int64 }

// zeroBytes zeroes a part of a block, unless the block reads as zeros anyway, and reports whether
// it stored something. It does not fence.
func (fs *FS) zeroBytes(in *inode, s span) (stored bool, err error) {
	if s.off >= s.end {
		return false, nil
	}
	e, ok := in.space.Lookup(uint64(s.off) >> layout.BlockShift)
	if !ok || e.Flags&layout.ExtentUnwritten != 0 {
		return false, nil
	}
	at := regionOff(e, s.off)
	if err := fs.bad.Check(uint64(at)>>layout.BlockShift, 1); err != nil {
		return false, err // the rest of the block cannot be kept
	}
	if err := fs.r.NTZero(at, s.end-s.off); err != nil {
		fs.bad.Faulted(err)
		return false, err
	}
	return true, nil
}

// zeroFencedLocked zeroes parts of blocks. Called with io held, and no remap under way.
//
// Persistence order:
//  1. shared blocks are replaced by the file's own (unshareLocked)
//  2. NT-zero the parts, SFENCE
func (fs *FS) zeroFencedLocked(ctx *Caller, in *inode, spans ...span) error {
	for _, s := range spans {
		if s.off < s.end {
			if err := fs.unshareLocked(ctx, in, s.off); err != nil {
				return err
			}
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fence := false
	for _, s := range spans {
		stored, err := fs.zeroBytes(in, s)
		if err != nil {
			return err
		}
		fence = fence || stored
	}
	if fence {
		fs.r.Fence()
	}
	return nil
}
