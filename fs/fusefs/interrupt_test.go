package fusefs

import (
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// protocolOf makes go-fuse parse slow requests for a, without a kernel.
func (m *mounted) protocolOf(a fuse.RawFileSystem) {
	m.v.Helper()
	m.protocol = fuse.NewProtocolServer(a, &fuse.MountOptions{})
	in := fuse.InitIn{Major: 7, Minor: 40, MaxReadAhead: 1 << 17}
	in.Opcode, in.Unique, in.Length = 26, 2, uint32(len(bytesOf(&in)))
	if n := m.SlowPath(bytesOf(&in), make([]byte, 256), nil); n == 0 {
		m.v.Fatal("no answer to INIT")
	}
}

// copyFile asks for a copy of n bytes, and returns how many were copied and the answer's error.
func (m *mounted) copyFile(unique, from, to uint64, n uint64) (uint32, syscall.Errno) {
	in := fuse.CopyFileRangeIn{InHeader: header(from), NodeIdOut: to, OffIn: 1, Len: n}
	in.Opcode, in.Unique, in.Length = 47, unique, uint32(len(bytesOf(&in)))
	var out struct {
		fuse.OutHeader
		fuse.WriteOut
	}
	m.SlowPath(bytesOf(&in), bytesOf(&out), nil)
	return out.Size, syscall.Errno(-out.Status)
}

func (m *mounted) interruptOf(unique uint64) int {
	in := fuse.InterruptIn{Unique: unique}
	in.Opcode, in.InHeader.Unique, in.Length = opInterrupt, unique|1, interruptSize
	return m.SlowPath(bytesOf(&in), make([]byte, 64), nil)
}

// TestInterruptComesFirst checks that an INTERRUPT before its request takes effect.
func TestInterruptComesFirst(t *testing.T) {
	m := newMounted(t, DAXAlways)
	m.protocolOf(m.Adapter)
	const size = 2 << 20
	from, to := m.create("from", 0o644), m.create("to", 0o644)
	m.write(from, 0, make([]byte, size))

	if n, e := m.copyFile(100, from, to, size-1); n != size-1 || e != 0 {
		t.Fatalf("without an interrupt: %d bytes, %v", n, e)
	}
	if n := m.interruptOf(102); n != 0 {
		t.Errorf("an INTERRUPT has an answer of %d bytes", n)
	}
	if n, e := m.copyFile(102, from, to, size-1); n != 0 || e != syscall.EINTR {
		t.Errorf("interrupted before it began: %d bytes, %v", n, e)
	}
	if n, e := m.copyFile(104, from, to, size-1); n != size-1 || e != 0 {
		t.Errorf("another one: %d bytes, %v", n, e)
	}
}

// waiting is an adapter whose copies end only when they are interrupted.
type waiting struct{ *Adapter }

func (w waiting) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	c := w.get(cancel, &in.InHeader)
	defer w.put(c)
	select {
	case <-c.ctx.Cancel:
		return 0, fuse.EINTR
	case <-time.After(20 * time.Second):
		return 0, fuse.OK
	}
}

// TestInterruptRace checks that an INTERRUPT that races with the start of its request takes effect.
func TestInterruptRace(t *testing.T) {
	m := newMounted(t, DAXAlways)
	m.protocolOf(waiting{m.Adapter})
	for i := range uint64(2000) {
		unique := 1000 + 2*i
		var wg sync.WaitGroup
		start := make(chan struct{})
		wg.Go(func() {
			<-start
			m.interruptOf(unique)
		})
		wg.Go(func() {
			<-start
			if _, e := m.copyFile(unique, 1, 1, 1); e != syscall.EINTR {
				t.Errorf("round %d: %v", i, e)
			}
		})
		close(start)
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}

// TestEndInterrupts checks that the end of the connection interrupts running and later requests.
func TestEndInterrupts(t *testing.T) {
	m := newMounted(t, DAXAlways)
	m.protocolOf(waiting{m.Adapter})
	var wg sync.WaitGroup
	for i := range uint64(200) { // more than earlyInterrupts remembers
		wg.Go(func() {
			if _, e := m.copyFile(1000+2*i, 1, 1, 1); e != syscall.EINTR {
				t.Errorf("request %d: %v", i, e)
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	m.Ended()
	wg.Wait()
	if _, e := m.copyFile(2000, 1, 1, 1); e != syscall.EINTR {
		t.Errorf("begun later: %v", e)
	}
}
