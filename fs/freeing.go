package fs

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// freeing tracks space that will be free soon: orphans that still have references, large files that
// are being freed, and deferred blocks, which no file has any more but which are still referenced.
// An operation that finds no space waits for them, for a bounded time.
//
// An orphan is freed when its last reference is dropped. The kernel drops it as soon as no program
// has the file open, but asynchronously: a program that deletes a file and writes another would
// find the space still taken.
type freeing struct {
	fs *FS // immutable

	made, freed atomic.Uint64 // orphans ever made, and ever freed
	open        atomic.Uint64 // pending orphans waited for in vain: programs have them open
	last        atomic.Int64  // when an inode last lost its last name, in ns since started
	heldLong    atomic.Uint64 // deferred blocks that were waited for in vain

	large  sync.Mutex   // held while a large orphan is freed in the background
	larges atomic.Int64 // number of large orphans that are being freed or queued

	waiters Waiters // bounds the callers that wait for any of these
}

// init prepares the zero value for use.
func (f *freeing) init(fs *FS) {
	f.fs = fs
	f.waiters.Total, f.waiters.Each = 32, 16
}

// inBackground runs free on a goroutine. Only one runs at a time, since each uses a CPU.
func (f *freeing) inBackground(free func()) {
	f.larges.Add(1)
	f.fs.background.wg.Go(func() {
		defer f.larges.Add(-1)
		f.large.Lock()
		defer f.large.Unlock()
		free()
	})
}

// orphanWait bounds how long after the last deletion its space may still become free: the kernel
// needs a request or two for that, on a busy machine. The wait is in vain only if the file is open,
// and only once for that file.
const orphanWait = 200 * time.Millisecond

// deferWait bounds how long an operation that finds no space waits for deferred blocks. Reads and
// writes drop their references in microseconds, on a busy machine in milliseconds. A granted
// mapping may keep them for hours, and is waited for once.
const deferWait = 200 * time.Millisecond

// started is the origin of freeing.last.
var started = time.Now()

// nameGoneLocked records that an inode lost a name; if that was the last one it is an orphan.
// Called with in.mu held.
func (f *freeing) nameGoneLocked(in *inode) {
	if in.core.Nlink == 0 {
		in.orphaned = true
		f.last.Store(int64(time.Since(started)))
		f.made.Add(1)
	}
}

// deletedNow reports whether an inode lost its last name within orphanWait.
func (f *freeing) deletedNow() bool {
	last := f.last.Load()
	return last != 0 && time.Since(started)-time.Duration(last) <= orphanWait
}

// AwaitDeleted waits, for at most orphanWait, until the space of recently deleted files is free. It
// returns at once if many callers are waiting (see Waiters). Called with no lock held.
func (fs *FS) AwaitDeleted(ctx *Caller) { fs.freeing.awaitDeleted(ctx) }

// awaitDeleted is AwaitDeleted; EINTR if the caller gave up before.
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

// await waits until done returns true; EINTR if the caller gave up before. It returns at once if
// many callers are waiting. The pause between two calls of done grows, since what it waits for
// usually takes less than a millisecond.
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

// pending returns the number of orphans that are not freed yet.
func (f *freeing) pending() uint64 {
	freed := f.freed.Load() // first, so that it never exceeds made
	return f.made.Load() - freed
}

// deferring reports whether there are deferred blocks beyond those that were waited for in vain, or
// some whose lease has ended since.
func (f *freeing) deferring() bool {
	n := f.fs.table.Deferred()
	if n < f.heldLong.Load() {
		f.heldLong.Store(n)
	}
	return n > f.heldLong.Load() || f.fs.direct.ending()
}

// reclaimWait bounds how long an operation that finds no space waits for large files that are being
// freed.
const reclaimWait = 10 * time.Second

// AwaitReclaim waits, for at most 10 s, until the large deleted files without users are free. EINTR
// if the caller gave up before. Called with no lock held.
func (fs *FS) AwaitReclaim(ctx *Caller) syscall.Errno { return fs.freeing.awaitLarge(ctx) }

// awaitLarge is AwaitReclaim.
func (f *freeing) awaitLarge(ctx *Caller) syscall.Errno {
	if f.larges.Load() == 0 {
		return 0
	}
	until := time.Now().Add(reclaimWait)
	return f.await(ctx, func() bool { return f.larges.Load() == 0 || time.Now().After(until) })
}

// awaitDeferred waits, for at most deferWait, until the deferred blocks are free; EINTR if the
// caller gave up before.
func (f *freeing) awaitDeferred(ctx *Caller) syscall.Errno {
	if !f.deferring() {
		return 0
	}
	until := time.Now().Add(deferWait)
	return f.await(ctx, func() bool {
		f.fs.direct.sweep()
		if !f.deferring() {
			return true
		}
		if time.Now().After(until) {
			f.heldLong.Store(f.fs.table.Deferred())
			f.fs.direct.full()
			return true
		}
		return false
	})
}

// spaceComes reports whether an operation that found no space should be tried again: space became
// free since the operation began, or spaceComes has waited for space to become free. released is
// the folio table's count Released from when the operation began. If again is false, e is the
// operation's error: ENOSPC; EAGAIN if the caller may not wait; EINTR if it gave up. Called with no
// lock held.
func (f *freeing) spaceComes(ctx *Caller, released uint64) (again bool, e syscall.Errno) {
	if f.fs.direct.any() {
		if ctx.NoWait {
			return false, syscall.EAGAIN
		}
		f.fs.direct.sweep()
	}
	reclaims := f.larges.Load() > 0
	deferring := f.deferring() // before Released, which counts what is deferred no more
	switch {
	case f.fs.table.Released() != released && !reclaims:
		return true, 0
	case !reclaims && !f.deletedNow() && !deferring:
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

// retryNoSpace calls op, and calls it once more if it returned ENOSPC and space may have become
// free. It returns EAGAIN if the caller may not wait for that. op must allow a second call after
// ENOSPC. Called with no lock held.
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
