package pmem

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Recorder is called after every primitive that was executed, with the id of the OS thread that
// executed it. Offsets and lengths are bytes in the region.
//
// The order of the calls is the order of execution: a region executes and reports one primitive at
// a time. A recorder may read the region but must not call its primitives. A primitive that failed
// is not reported. A recorder that wants the caller's source position skips the frames of this
// package, whose number varies.
//
// A Fence drains only the stores of its own thread. Callers that record keep the flushes and the
// fence of one step on one thread with runtime.LockOSThread, or use FlushFence.
type Recorder interface {
	// Begin is called before a primitive of thread tid, with no lock held. It may wait, to let
	// another thread go first.
	Begin(tid int)
	// Store reports an ordinary store of data at byte offset off, in aligned words of 8 bytes, in
	// ascending order. data is valid only during the call.
	Store(tid int, off int64, data []byte)
	// NTStore reports a non-temporal store of whole lines, zeros included. Its words may become
	// durable in any order. data is valid only during the call.
	NTStore(tid int, off int64, data []byte)
	// Flush reports a write-back of whole lines.
	Flush(tid int, off, n int64)
	// Fence reports a fence, which drains the flushes and non-temporal stores of the thread.
	Fence(tid int)
}

// SetRecorder installs a recorder, or removes it with nil. No other goroutine may use the region
// meanwhile.
func (r *Region) SetRecorder(rec Recorder) { r.rec = rec }

// recordBegin keeps the goroutine on its thread, and all other primitives out, until recordEnd.
func (r *Region) recordBegin() (tid int) {
	runtime.LockOSThread()
	tid = unix.Gettid()
	r.rec.Begin(tid)
	r.recMu.Lock()
	return tid
}

func (r *Region) recordEnd() {
	r.recMu.Unlock()
	runtime.UnlockOSThread()
}

func (r *Region) recordStore8(off int64, v uint64) error {
	tid := r.recordBegin()
	defer r.recordEnd()
	if err := r.store8(off, v); err != nil {
		return err
	}
	r.rec.Store(tid, off, r.ro[off:off+8])
	return nil
}

func (r *Region) recordStore(off int64, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	tid := r.recordBegin()
	defer r.recordEnd()
	if err := r.store(off, src); err != nil {
		return err
	}
	r.rec.Store(tid, off, src)
	return nil
}

// recordEdge stores and flushes the part of a line at an end of NTStore or NTZero.
func (r *Region) recordEdge(tid int, off int64, src []byte) error {
	if len(src) == 0 {
		return nil
	}
	if err := r.store(off, src); err != nil {
		return err
	}
	r.rec.Store(tid, off, src)
	return r.flushAndTell(tid, off, int64(len(src)))
}

func (r *Region) recordNTStore(off int64, src []byte) error {
	tid := r.recordBegin()
	defer r.recordEnd()
	head, lines, _ := split(off, int64(len(src)))
	if err := r.recordEdge(tid, off, src[:head]); err != nil {
		return err
	}
	off, src = off+head, src[head:]
	if lines > 0 {
		if err := r.ntStore(off, src[:lines]); err != nil {
			return err
		}
		r.rec.NTStore(tid, off, src[:lines])
	}
	return r.recordEdge(tid, off+lines, src[lines:])
}

func (r *Region) recordNTZero(off, n int64) error {
	tid := r.recordBegin()
	defer r.recordEnd()
	head, lines, tail := split(off, n)
	if err := r.recordEdge(tid, off, zeroLine[:head]); err != nil {
		return err
	}
	off += head
	if lines > 0 {
		if err := r.ntZero(off, lines); err != nil {
			return err
		}
		r.rec.NTStore(tid, off, r.ro[off:off+lines])
	}
	return r.recordEdge(tid, off+lines, zeroLine[:tail])
}

func (r *Region) flushAndTell(tid int, off, n int64) error {
	if err := r.flush(off, n); err != nil {
		return err
	}
	lo, hi := lineSpan(off, n)
	r.rec.Flush(tid, lo, hi-lo)
	return nil
}

func (r *Region) recordFlush(off, n int64, andFence bool) error {
	tid := r.recordBegin()
	defer r.recordEnd()
	if n > 0 {
		if err := r.flushAndTell(tid, off, n); err != nil {
			return err
		}
	}
	if andFence {
		fence()
		r.rec.Fence(tid)
	}
	return nil
}

func (r *Region) recordFence() {
	tid := r.recordBegin()
	defer r.recordEnd()
	fence()
	r.rec.Fence(tid)
}
