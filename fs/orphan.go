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
	waiters     Waiters
}

// orphanWait is how long after the last deletion space may still be on its way: a request or
// two of the kernel's, on a machine that is busy. It is waited for in vain only if the file is open,
// and for that file once.
const orphanWait = 200 * time.Millisecond

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
// (Waiters), it does not. It reports whether anything was deleted just now. Called with no lock held.
func (fs *FS) Settle(ctx *Context) bool {
	if !fs.settling() {
		return false
	}
	o := &fs.orphan
	if o.pending() == o.open.Load() || !o.waiters.Enter(ctx.UID) {
		return true
	}
	defer o.waiters.Leave(ctx.UID)
	ctx.Wait(o.settle)
	return true
}

// settle is the waiting of Settle. What it waits for usually comes in less than a millisecond, so it
// looks less often the longer it takes.
func (o *orphans) settle() {
	open, until := o.open.Load(), time.Duration(o.last.Load())+orphanWait
	for pause := 100 * time.Microsecond; ; pause = min(pause*3/2, orphanWait/40) {
		n := o.pending()
		if open = min(open, n); n == open || time.Since(started) >= until {
			o.open.Store(n)
			return
		}
		time.Sleep(pause)
	}
}

// pending is how many orphans are not free.
func (o *orphans) pending() uint64 {
	freed := o.freed.Load() // first: it follows made
	return o.made.Load() - freed
}

// patiently calls op, and once more if it found no space and some may have become free; or, if
// the caller may not wait for that, says EAGAIN. op that found no space may be called again.
func (fs *FS) patiently(ctx *Context, op func() syscall.Errno) syscall.Errno {
	e := op()
	switch {
	case e != syscall.ENOSPC || !fs.settling():
	case ctx.NoWait:
		e = syscall.EAGAIN
	case fs.Settle(ctx):
		e = op()
	}
	return e
}
