package fusefs

import (
	"encoding/binary"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// An INTERRUPT may overtake the request that it is for: the two come by different queues, and a
// slow request begins in a goroutine of its own. go-fuse says EAGAIN to one for a request that it
// does not know, on which the kernel ought to send it again; but the kernel looks for the request
// only among those that went through the file descriptor the answer comes by. So we remember it.

const (
	opInterrupt   = 36
	interruptSize = 48 // a whole one: a header and a number
	earlyMax      = 64
)

// earlyInterrupts are those of the last INTERRUPTs whose request had not begun, or had ended: a
// number never comes twice, so those that stay harm nobody. Safe for concurrent use.
type earlyInterrupts struct {
	n      atomic.Uint32
	unique [earlyMax]atomic.Uint64 // the i-th is at i mod earlyMax
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

// gone is the Cancel of a caller that went before its request began.
var gone = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// interrupt passes an INTERRUPT on to go-fuse, which closes the request's cancel channel.
//
// go-fuse knows a request before get looks whether it was interrupted; we remember the INTERRUPT
// before go-fuse is asked a second time. So one of the two sees the other. There is no answer.
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

// Ended is told that the connection has ended: who made the requests that are being served no
// longer waits.
//
// A request that go-fuse does not know yet when it is interrupted here looks at ended later.
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

// cancelOf is what closes when the caller of h no longer waits: what go-fuse gave, or gone.
func (a *Adapter) cancelOf(h *fuse.InHeader, cancel <-chan struct{}) <-chan struct{} {
	if a.ended.Load() || a.early.has(h.Unique) {
		return gone
	}
	return cancel
}
