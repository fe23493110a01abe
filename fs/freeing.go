package fs

import (
	"sync/atomic"
	"syscall"
	"time"
)

// orphans counts inodes that lost their last name. What such a one has is free when its last
// reference is dropped, which a kernel does as soon as nobody has it open, but without waiting
// for it: whoever deletes a file and writes another would find the space still taken.
type orphans struct {
	made, freed atomic.Uint64
	open        atomic.Uint64 // of made and not freed, how many were waited for in vain: somebody has them open
	last        atomic.Int64  // when a name was taken from one, ns since started
	waiters     Waiters       // for orphans, and for deferred blocks
}

// orphanWait is how long after the last deletion space may still be on its way: a request or
// two of the kernel's, on a machine that is busy. It is waited for in vain only if the file is open,
// and for that file once.
const orphanWait = 200 * time.Millisecond

// deferWait is how long an operation that finds no space waits for blocks that are no longer a file's and
// still referenced. What reads or writes them is done in microseconds, on a machine that is busy in
// milliseconds; a granted mapping may hold them for hours, and is waited for once.
const deferWait = 200 * time.Millisecond

var started = time.Now()

// nameGone notes that the inode may have lost its last name. Called with in.mu held.
func (fs *FS) nameGone(in *inode) {
	if in.core.Nlink == 0 {
		in.orphaned = true
		fs.orphan.last.Store(int64(time.Since(started)))
		fs.orphan.made.Add(1)
	}
}

// settling reports whether anything was deleted just now.
func (fs *FS) settling() bool {
	last := fs.orphan.last.Load()
	return last != 0 && time.Since(started)-time.Duration(last) <= orphanWait
}

// Settle waits until what was deleted just now is free, but not long; if many callers do so already
// (Waiters), it does not. Called with no lock held.
func (fs *FS) Settle(ctx *Context) { fs.settleOrphans(ctx) }

// settleOrphans is Settle for a caller that may give up (EINTR).
func (fs *FS) settleOrphans(ctx *Context) syscall.Errno {
	o := &fs.orphan
	if !fs.settling() || o.pending() == o.open.Load() {
		return 0
	}
	open, until := o.open.Load(), started.Add(time.Duration(o.last.Load())+orphanWait)
	return fs.await(ctx, func() bool {
		n := o.pending()
		if open = min(open, n); n == open || time.Now().After(until) {
			o.open.Store(n)
			return true
		}
		return false
	})
}

// await waits until done says so; EINTR if the caller gave up before. If many callers wait, it does not.
// What is waited for usually comes in less than a millisecond: it looks less often the longer it takes.
func (fs *FS) await(ctx *Context, done func() bool) (e syscall.Errno) {
	w := &fs.orphan.waiters
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

// pending is how many orphans are not free.
func (o *orphans) pending() uint64 {
	freed := o.freed.Load() // first: it follows made
	return o.made.Load() - freed
}

// deferring reports whether blocks are no longer a file's and not free yet, beyond those that were waited
// for in vain.
func (fs *FS) deferring() bool {
	n := fs.table.Deferred()
	if n < fs.heldLong.Load() {
		fs.heldLong.Store(n)
	}
	return n > fs.heldLong.Load()
}

// reclaimWait bounds how long an operation that finds no space waits for large files that are being freed.
const reclaimWait = 10 * time.Second

// AwaitReclaim waits until the large files that were deleted and have no user any more are free, but not for
// longer than 10 s. EINTR if the caller gave up before. Called with no lock held.
func (fs *FS) AwaitReclaim(ctx *Context) syscall.Errno {
	if fs.reclaims.Load() == 0 {
		return 0
	}
	until := time.Now().Add(reclaimWait)
	return fs.await(ctx, func() bool { return fs.reclaims.Load() == 0 || time.Now().After(until) })
}

// awaitDeferred waits until what deferring speaks of is free, but not long.
func (fs *FS) awaitDeferred(ctx *Context) syscall.Errno {
	if !fs.deferring() {
		return 0
	}
	until := time.Now().Add(deferWait)
	return fs.await(ctx, func() bool {
		if !fs.deferring() {
			return true
		}
		if time.Now().After(until) {
			fs.heldLong.Store(fs.table.Deferred())
			return true
		}
		return false
	})
}

// spaceComes is asked by an operation that found no space whether it should be tried again: space became
// free since released was what the folio table said, or was on its way and was waited for. Else e is
// the operation's answer: ENOSPC; EAGAIN if the caller may not wait; EINTR if it gave up.
// Called with no lock held.
func (fs *FS) spaceComes(ctx *Context, released uint64) (again bool, e syscall.Errno) {
	reclaims := fs.reclaims.Load() > 0
	switch {
	case fs.table.Released() != released && !reclaims:
		return true, 0
	case !reclaims && !fs.settling() && !fs.deferring():
		return false, syscall.ENOSPC
	case ctx.NoWait:
		return false, syscall.EAGAIN
	}
	if e = fs.settleOrphans(ctx); e == 0 {
		e = fs.AwaitReclaim(ctx)
	}
	if e == 0 {
		e = fs.awaitDeferred(ctx)
	}
	return e == 0, e
}

// patiently calls op, and once more if it found no space and some may have become free; or, if
// the caller may not wait for that, says EAGAIN. op that found no space may be called again.
func (fs *FS) patiently(ctx *Context, op func() syscall.Errno) syscall.Errno {
	released := fs.table.Released()
	e := op()
	if e == syscall.ENOSPC {
		var again bool
		if again, e = fs.spaceComes(ctx, released); again {
			e = op()
		}
	}
	return e
}
