package fusefs

import (
	"encoding/binary"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// An INTERRUPT may overtake the request that it interrupts: the two come by different queues, and a
// slow request starts on a goroutine of its own. For an unknown request, go-fuse answers EAGAIN,
// after which the kernel should send the INTERRUPT again. But the kernel looks for the request only
// among those of the file descriptor that the answer comes from. So the adapter remembers early
// INTERRUPTs.

const (
	opInterrupt   = 36
	interruptSize = 48 // bytes: a header and a request's number
	earlyMax      = 64
)

// earlyInterrupts are the request numbers of the last INTERRUPTs whose request was unknown: it had
// not begun yet, or had ended. A number is never reused, so stale ones do no harm. Safe for
// concurrent use.
type earlyInterrupts struct {
	n      atomic.Uint32
	unique [earlyMax]atomic.Uint64 // the i-th number is at i mod earlyMax
}

func (e *earlyInterrupts) add(unique uint64) {
	e.unique[(e.n.Add(1)-1)%earlyMax].Store(unique)
}

func (e *earlyInterrupts) has(unique uint64) bool {
	for i := range min(e.n.Load(), earlyMax) {
		if e.unique[i].Load() == unique {
			return true
		}
	}
	return false
}

// gone is the Cancel channel of a caller that left before its request began.
var gone = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// interrupt passes an INTERRUPT on to go-fuse, which closes the request's cancel channel. An
// INTERRUPT has no answer.
//
// go-fuse registers a request before get checks whether it was interrupted, and interrupt remembers
// the INTERRUPT before it asks go-fuse a second time. So one of the two sees the other.
func (a *Adapter) interrupt(in []byte) {
	for try := range 2 {
		var answer [interruptSize]byte
		n, _ := a.protocol.HandleRequest([][]byte{in}, [][]byte{answer[:]})
		if n < 8 || syscall.Errno(-int32(binary.NativeEndian.Uint32(answer[4:]))) != syscall.EAGAIN {
			return
		}
		if try == 0 {
			a.early.add(binary.NativeEndian.Uint64(in[interruptSize-8:]))
		}
	}
}

// Ended interrupts all requests that go-fuse serves, when the connection has ended and their
// callers no longer wait.
//
// A request that go-fuse has not registered by then checks ended later.
func (a *Adapter) Ended() {
	a.ended.Store(true)
	a.slots.Range(func(unique, _ any) bool {
		var in [interruptSize]byte
		binary.NativeEndian.PutUint32(in[:], interruptSize)
		binary.NativeEndian.PutUint32(in[4:], opInterrupt)
		binary.NativeEndian.PutUint64(in[interruptSize-8:], unique.(uint64))
		a.interrupt(in[:])
		return true
	})
}

// cancelOf returns the channel that is closed when the caller of h no longer waits: go-fuse's
// channel, or gone.
func (a *Adapter) cancelOf(h *fuse.InHeader, cancel <-chan struct{}) <-chan struct{} {
	if a.ended.Load() || a.early.has(h.Unique) {
		return gone
	}
	return cancel
}
