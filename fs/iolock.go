package fs

import (
	"sync"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
)

// An inode has two locks, as an xfs inode has. io (IOLOCK) is held for a whole operation that
// changes a file's extents or size, or that reads an inode's content into DRAM, however long that
// takes. mu (ILOCK) is held for one transaction on the inode's lines, from reading them until the
// inode in DRAM agrees with them: microseconds. A thread that holds a directory's mu waits only for
// a child's mu. So a truncation of a million extents delays neither stat(2) of that file nor
// operations on other names of its directory.
//
// The thread of a queue has requests of other callers behind the one that it serves. With
// Caller.NoWait, a lock that may be held long is tried for a moment only, and work that may take
// long is not begun. Both fail with EAGAIN, before anything has changed.

// lockTries bounds how often a lock is tried with NoWait: about 5 µs, the length of a transaction.
const lockTries = 400

// lock locks a mutex that may be held long. EAGAIN if ctx may not wait and another caller keeps it.
func (ctx *Caller) lock(mu *sync.Mutex) error {
	for range lockTries {
		if mu.TryLock() {
			return nil
		}
	}
	if ctx.NoWait {
		return syscall.EAGAIN
	}
	ctx.Wait(mu.Lock)
	return nil
}

// lockIO locks io. EAGAIN as from Caller.lock.
func (in *inode) lockIO(ctx *Caller) error { return ctx.lock(&in.io) }

// lockRange locks the file's bytes [start, end) in rl, for writing if excl is set, and returns the
// token for rl.Unlock. EAGAIN if ctx may not wait and another caller keeps a part of the range.
func (in *inode) lockRange(ctx *Caller, start, end int64, excl bool) (rangelock.Token, error) {
	for range lockTries / 10 {
		if lock, ok := in.rl.TryLock(start, end, excl); ok {
			return lock, nil
		}
	}
	if ctx.NoWait {
		return 0, syscall.EAGAIN
	}
	var token rangelock.Token // a named result would escape to the heap
	ctx.Wait(func() { token = in.rl.Lock(start, end, excl) })
	return token, nil
}

// Limits for the content that a request with NoWait reads, in blocks: about 100 µs.
const (
	quickExtentBlocks = 8
	quickDirBlocks    = 32
)

// largeLocked reports whether reading an inode's content takes long, because it has many extent
// blocks. With names, many blocks of a directory count too. Called with io held, before the content
// is in DRAM.
func (fs *FS) largeLocked(in *inode, names bool) bool {
	c, root := in.lines()
	if names && in.isDir() && c.Size > quickDirBlocks<<layout.BlockShift {
		return true
	}
	if root == 0 || root >= fs.sb.Blocks() {
		return false
	}
	var l layout.Line
	var h layout.ExtentBlock // the chain begins with the block of the highest index
	return fs.journal.ReadLine(int64(root)<<layout.BlockShift, &l) == nil && h.Get(&l) && h.Index >= quickExtentBlocks
}

// extentsLoaded makes sure that an inode's extents, and a directory's names, are in DRAM. EAGAIN if
// ctx may not wait and reading them takes long. Called with no lock held.
func (fs *FS) extentsLoaded(ctx *Caller, in *inode) error {
	if in.loaded.Load() {
		return nil
	}
	if err := in.lockIO(ctx); err != nil {
		return err
	}
	defer in.io.Unlock()
	if ctx.NoWait && !in.loaded.Load() && fs.largeLocked(in, true) {
		return syscall.EAGAIN
	}
	return fs.loadExtentsLocked(in)
}

// blocksKnown makes sure that inode.blocks is valid; the first time that takes a walk over the
// extents. EAGAIN if ctx may not wait and the walk takes long. Called with no lock held.
func (fs *FS) blocksKnown(ctx *Caller, in *inode) error {
	if in.counted.Load() || in.loaded.Load() {
		return nil
	}
	if err := in.lockIO(ctx); err != nil {
		return err
	}
	defer in.io.Unlock()
	if in.counted.Load() || in.loaded.Load() {
		return nil
	}
	if ctx.NoWait && fs.largeLocked(in, false) {
		return syscall.EAGAIN
	}
	return fs.countBlocksLocked(in)
}

// Limits for a truncation by a request with NoWait: the extents and the blocks that it may cut.
const (
	quickCutExtents = 256
	quickCutBlocks  = 1 << 16
)

// cutsMuchLocked reports whether freeing a file's blocks takes long. Called with io held.
func (in *inode) cutsMuchLocked() bool {
	return in.space.Len() > quickCutExtents || in.blocks.Load() > quickCutBlocks
}
