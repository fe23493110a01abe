package explore

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Kinds of events.
const (
	evStore = iota // ordinary stores
	evNT           // non-temporal stores
	evFlush
	evFence
	evBegin // a step begins; event.step is its number
	evEnd   // the step has returned
	evDone  // one of the operations that the step runs at once has returned; event.n is its number
)

// event is one entry of the log.
type event struct {
	kind int
	tid  int    // thread id
	off  int64  // byte offset in the region
	n    int64  // bytes
	data []byte // bytes of a store
	site string // stores, flushes and fences: the code line that called pmem
	step int    // index in recording.steps
}

// recorder logs the primitives of pmem. It implements pmem.Recorder.
type recorder struct {
	sites  bool // find out the calling code line of each primitive
	inStep atomic.Bool
	turns  *turns // scheduler of operations that run at once; nil: none do

	mu    sync.Mutex
	log   []event
	on    bool
	steps int // number of step begins and ends
}

// add logs an event. Each step counts as running on threads of its own, since a server's requests
// may come on any thread: no fence of a later step drains the lines that this step left.
func (r *recorder) add(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.on {
		if e.kind == evBegin || e.kind == evEnd {
			r.steps++
			r.inStep.Store(e.kind == evBegin)
		}
		e.tid += r.steps << 32
		r.log = append(r.log, e)
	}
}

// Begin waits for the turn of thread tid, if operations run at once.
func (r *recorder) Begin(tid int) {
	if r.turns != nil {
		r.turns.wait(tid)
	}
}

// Store logs an ordinary store of b at byte off.
func (r *recorder) Store(tid int, off int64, b []byte) {
	r.add(event{kind: evStore, tid: tid, off: off, n: int64(len(b)), data: append([]byte(nil), b...), site: r.site()})
}

// NTStore logs a non-temporal store of b at byte off.
func (r *recorder) NTStore(tid int, off int64, b []byte) {
	r.add(event{kind: evNT, tid: tid, off: off, n: int64(len(b)), data: append([]byte(nil), b...), site: r.site()})
}

// Flush logs a write-back of the lines that hold bytes [off, off+n).
func (r *recorder) Flush(tid int, off, n int64) {
	r.add(event{kind: evFlush, tid: tid, off: off, n: n, site: r.site()})
}

// Fence logs a fence.
func (r *recorder) Fence(tid int) {
	r.add(event{kind: evFence, tid: tid, site: r.site()})
}

func (r *recorder) mark(kind, step int) { r.add(event{kind: kind, step: step}) }

// site returns the function and line outside pmem that called the primitive. It returns "" outside
// a step.
func (r *recorder) site() string {
	if !r.sites || !r.inStep.Load() {
		return ""
	}
	var pcs [12]uintptr
	n := runtime.Callers(3, pcs[:])
	frames := runtime.CallersFrames(pcs[:n])
	for {
		f, more := frames.Next()
		if !strings.Contains(f.Function, "/pmem.") {
			return fmt.Sprintf("%s:%d", f.Function[strings.LastIndexByte(f.Function, '/')+1:], f.Line)
		}
		if !more {
			return "?"
		}
	}
}

// dirt is the recorder of a scratch region. It collects the lines that were stored to, so that they
// can be restored, and logs into rec while that is on.
type dirt struct {
	rec *recorder

	mu    sync.Mutex
	mark  []uint64 // bitmap of dirty lines; protected by mu
	lines []int64  // byte offsets of dirty lines; protected by mu
}

func newDirt(size int64) *dirt {
	return &dirt{rec: &recorder{}, mark: make([]uint64, size/lineSize/64)}
}

func (d *dirt) note(off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := off / lineSize; l <= (off+n-1)/lineSize; l++ {
		if d.mark[l/64]&(1<<(l%64)) == 0 {
			d.mark[l/64] |= 1 << (l % 64)
			d.lines = append(d.lines, l*lineSize)
		}
	}
}

func (d *dirt) reset() {
	for _, o := range d.lines {
		l := o / lineSize
		d.mark[l/64] = 0
	}
	d.lines = d.lines[:0]
}

func (d *dirt) Begin(int) {}

func (d *dirt) Store(tid int, off int64, b []byte) {
	d.note(off, int64(len(b)))
	if d.rec.on {
		d.rec.Store(tid, off, b)
	}
}

func (d *dirt) NTStore(tid int, off int64, b []byte) {
	d.note(off, int64(len(b)))
	if d.rec.on {
		d.rec.NTStore(tid, off, b)
	}
}

func (d *dirt) Flush(tid int, off, n int64) {
	if d.rec.on {
		d.rec.Flush(tid, off, n)
	}
}

func (d *dirt) Fence(tid int) {
	if d.rec.on {
		d.rec.Fence(tid)
	}
}
