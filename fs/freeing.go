package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// freeing knows what is on its way to be free: inodes that lost their last name and have
// references, large files that are being freed, and blocks that are no longer a file's and still
// referenced. An operation that finds no space waits for it, but not long.
//
// An orphan is free when its last reference is dropped. A kernel does that as soon as nobody has
// the file open, but without waiting for it: a program that deletes a file and writes another would
// find the space still taken.
type freeing struct {
	fs *FS // immutable

	made, freed atomic.Uint64 // orphans
	open        atomic.Uint64 // of made and not freed, how many were waited for in vain: somebody has them open
	last        atomic.Int64  // when a name was taken from one, ns since started
	heldLong    atomic.Uint64 // deferred blocks that were waited for in vain

	large  sync.Mutex   // held while a large orphan is freed in the background
	larges atomic.Int64 // such orphans

	waiters Waiters // for any of these
}

// init makes the zero value usable.
func (f *freeing) init(fs *FS) {
	f.fs = fs
	f.waiters.Total, f.waiters.Each = 32, 16
}

// inBackground has free free a large orphan soon: one at a time, since each uses a CPU.
func (f *freeing) inBackground(free func()) {
	f.larges.Add(1)
	f.fs.background.wg.Go(func() {
		defer f.larges.Add(-1)
		f.large.Lock()
		defer f.large.Unlock()
		free()
	})
}

// orphanWait is how long after the last deletion space may still be on its way: a request or
// two of the kernel's, on a machine that is busy. It is waited for in vain only if the file is
// open, and for that file once.
const orphanWait = 200 * time.Millisecond

// deferWait is how long an operation that finds no space waits for blocks that are no longer a
// file's and still referenced. What reads or writes them is done in microseconds, on a machine that
// is busy in milliseconds; a granted mapping may hold them for hours, and is waited for once.
const deferWait = 200 * time.Millisecond

var started = time.Now()

// nameGoneLocked notes that the inode may have lost its last name. Called with in.mu held.
func (f *freeing) nameGoneLocked(in *inode) {
	if in.core.Nlink == 0 {
		in.orphaned = true
		f.last.Store(int64(time.Since(started)))
		f.made.Add(1)
	}
}

// deletedNow reports whether anything was deleted just now.
func (f *freeing) deletedNow() bool {
	last := f.last.Load()
	return last != 0 && time.Since(started)-time.Duration(last) <= orphanWait
}

// AwaitDeleted waits until what was deleted just now is free, but not long; if many callers do so
// already (Waiters), it does not. Called with no lock held.
func (fs *FS) AwaitDeleted(ctx *Caller) { fs.freeing.awaitDeleted(ctx) }

// awaitDeleted is Settle for a caller that may give up (EINTR).
func (f *freeing) awaitDeleted(ctx *Caller) syscall.Errno {
	if !f.deletedNow() || f.pending() == f.open.Load() {
		return 0
	}
	open, until := f.open.Load(), started.Add(time.Duration(f.last.Load())+orphanWait)
	return f.await(ctx, func() bool {
		n := f.pending()
		if open = min(open, n); n == open || time.Now().After(until) {
			f.open.Store(n)
			return true
		}
		return false
	})
}

// await waits until done says so; EINTR if the caller gave up before. If many callers wait, it does
// not. What is waited for usually comes in less than a millisecond: it looks less often the longer
// it takes.
func (f *freeing) await(ctx *Caller, done func() bool) (e syscall.Errno) {
	w := &f.waiters
	if !w.Enter(ctx.UID) {
		return 0
	}
	defer w.Leave(ctx.UID)
	ctx.Wait(func() {
		for pause := 100 * time.Microsecond; !done(); pause = min(pause*3/2, 5*time.Millisecond) {
			if ctx.cancelled() {
				e = syscall.EINTR
				return
			}
			time.Sleep(pause)
		}
	})
	return e
}

// pending returns how many orphans are not free.
func (f *freeing) pending() uint64 {
	freed := f.freed.Load() // first: it follows made
	return f.made.Load() - freed
}

// deferring reports whether blocks are no longer a file's and not free yet, beyond those that were
// waited for in vain.
func (f *freeing) deferring() bool {
	n := f.fs.table.Deferred()
	if n < f.heldLong.Load() {
		f.heldLong.Store(n)
	}
	return n > f.heldLong.Load()
}

// reclaimWait bounds how long an operation that finds no space waits for large files that are being
// freed.
const reclaimWait = 10 * time.Second

// AwaitReclaim waits until the large files that were deleted and have no user any more are free,
// but not for longer than 10 s. EINTR if the caller gave up before. Called with no lock held.
func (fs *FS) AwaitReclaim(ctx *Caller) syscall.Errno { return fs.freeing.awaitLarge(ctx) }

// awaitLarge is AwaitReclaim.
func (f *freeing) awaitLarge(ctx *Caller) syscall.Errno {
	if f.larges.Load() == 0 {
		return 0
	}
	until := time.Now().Add(reclaimWait)
	return f.await(ctx, func() bool { return f.larges.Load() == 0 || time.Now().After(until) })
}

// awaitDeferred waits until what deferring speaks of is free, but not long.
func (f *freeing) awaitDeferred(ctx *Caller) syscall.Errno {
	if !f.deferring() {
		return 0
	}
	until := time.Now().Add(deferWait)
	return f.await(ctx, func() bool {
		if !f.deferring() {
			return true
		}
		if time.Now().After(until) {
			f.heldLong.Store(f.fs.table.Deferred())
			return true
		}
		return false
	})
}

// spaceComes is asked by an operation that found no space whether it should be tried again: space
// became free since released was what the folio table said, or was on its way and was waited for.
// Else e is the operation's answer: ENOSPC; EAGAIN if the caller may not wait; EINTR if it gave up.
// Called with no lock held.
func (f *freeing) spaceComes(ctx *Caller, released uint64) (again bool, e syscall.Errno) {
	reclaims := f.larges.Load() > 0
	switch {
	case f.fs.table.Released() != released && !reclaims:
		return true, 0
	case !reclaims && !f.deletedNow() && !f.deferring():
		return false, syscall.ENOSPC
	case ctx.NoWait:
		return false, syscall.EAGAIN
	}
	if e = f.awaitDeleted(ctx); e == 0 {
		e = f.awaitLarge(ctx)
	}
	if e == 0 {
		e = f.awaitDeferred(ctx)
	}
	return e == 0, e
}

// retryNoSpace calls op, and once more if it found no space and some may have become free; or, if
// the caller may not wait for that, says EAGAIN. op that found no space may be called again.
func (fs *FS) retryNoSpace(ctx *Caller, op func() syscall.Errno) syscall.Errno {
	released := fs.table.Released()
	e := op()
	if e == syscall.ENOSPC {
		var again bool
		if again, e = fs.freeing.spaceComes(ctx, released); again {
			e = op()
		}
	}
	return e
}
