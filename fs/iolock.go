package fs

import (
	"sync"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/rangelock"
)

// An inode has two locks, as an xfs inode has. io (IOLOCK) is held for a whole operation that
// changes a file's extents or size, or that brings an inode's content to DRAM, however long that
// takes. mu (ILOCK) is held for one transaction on the inode's lines, from reading them until the
// inode in DRAM says the same: microseconds. A holder of a directory waits for a child's mu only.
// So a truncation of a million extents delays neither stat(2) of that file nor other names of its
// directory.
//
// The thread of a queue has other callers' requests behind the one that it serves. With
// Caller.NoWait a lock that may be held long is tried for a moment only, and work that may take
// long is not begun: both fail with EAGAIN, before anything has changed.

// lockTries bounds how often a lock is tried with NoWait: about 5 µs, as long as a transaction
// takes.
const lockTries = 400

// lock takes a lock that may be held long. EAGAIN if ctx may not wait and another caller keeps it.
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

// lockIO takes io. EAGAIN as Caller.lock.
func (in *inode) lockIO(ctx *Caller) error { return ctx.lock(&in.io) }

// lockRange takes the file's bytes [start, end) of rl and returns the token for rl.Unlock. EAGAIN
// if ctx may not wait and another caller keeps some of them.
func (in *inode) lockRange(ctx *Caller, start, end int64, excl bool) (rangelock.Token, error) {
	for range lockTries / 10 {
		if lock, ok := in.rl.TryLock(start, end, excl); ok {
			return lock, nil
		}
	}
	if ctx.NoWait {
		return 0, syscall.EAGAIN
	}
	var token rangelock.Token // not a result: that would be on the heap
	ctx.Wait(func() { token = in.rl.Lock(start, end, excl) })
	return token, nil
}

// What a request with NoWait reads of an inode's content at most, in blocks: about 100 µs.
const (
	quickExtentBlocks = 8
	quickDirBlocks    = 32
)

// largeLocked reports whether an inode has so many extents on media, or with names a directory so
// many blocks, that reading them takes long. Called with io held, before the content is loaded.
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

// extentsLoaded brings an inode's extents, and a directory's names, to DRAM the first time they are
// needed. Called with no lock held. EAGAIN if ctx may not wait and that would take long.
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

// blocksKnown makes sure that inode.blocks is right, which takes a walk over the extents the first
// time. Called with no lock held. EAGAIN if ctx may not wait and that would take long.
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

// What a request with NoWait cuts off a file at most.
const (
	quickCutExtents = 256
	quickCutBlocks  = 1 << 16
)

// cutsMuchLocked reports whether giving back a file's blocks takes long. Called with io held.
func (in *inode) cutsMuchLocked() bool {
	return in.space.Len() > quickCutExtents || in.blocks.Load() > quickCutBlocks
}
