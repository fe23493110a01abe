package explore

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// The kinds of event.
const (
	evStore = iota // ordinary stores
	evNT           // non-temporal stores
	evFlush
	evFence
	evBegin // a step begins; step is its number
	evEnd   // it has returned
	evDone  // one of the operations of the step has returned; n is its number
)

// event is one entry of the record.
type event struct {
	kind int
	tid  int
	off  int64
	n    int64
	data []byte // stores
	site string // stores, flush and fence: who asked for it
	step int
}

// recorder logs what the primitives of pmem do. It implements pmem.Recorder.
type recorder struct {
	sites  bool // ask who calls
	inStep atomic.Bool
	turns  *turns // of operations that run at once; nil: none do

	mu    sync.Mutex
	log   []event
	on    bool
	steps int // begun and ended
}

// add logs an event. Each step counts as being on threads of its own, since a server's
// requests come on any: no later one's fence drains what it left.
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

// Begin lets operations that run at once take turns.
func (r *recorder) Begin(tid int) {
	if r.turns != nil {
		r.turns.wait(tid)
	}
}

// Store is called for ordinary stores.
func (r *recorder) Store(tid int, off int64, b []byte) {
	r.add(event{kind: evStore, tid: tid, off: off, n: int64(len(b)), data: append([]byte(nil), b...), site: r.site()})
}

// NTStore is called for non-temporal stores.
func (r *recorder) NTStore(tid int, off int64, b []byte) {
	r.add(event{kind: evNT, tid: tid, off: off, n: int64(len(b)), data: append([]byte(nil), b...), site: r.site()})
}

// Flush is called for write-backs of whole lines.
func (r *recorder) Flush(tid int, off, n int64) {
	r.add(event{kind: evFlush, tid: tid, off: off, n: n, site: r.site()})
}

// Fence is called for fences.
func (r *recorder) Fence(tid int) {
	r.add(event{kind: evFence, tid: tid, site: r.site()})
}

func (r *recorder) mark(kind, step int) { r.add(event{kind: kind, step: step}) }

// site names the line outside pmem that asked for the primitive, within a step.
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

// dirt is the recorder of a scratch region: it notes which lines were stored to, so
// that they can be put back, and logs into rec while that is on.
type dirt struct {
	rec *recorder

	mu    sync.Mutex
	mark  []uint64
	lines []int64
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
