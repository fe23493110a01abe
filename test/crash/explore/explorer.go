package explore

import (
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/pmem"
)

// Failure is a crash state that recovery does not make right.
type Failure struct {
	Workload string   `json:"workload"`
	Step     string   `json:"step"`
	Fence    int      `json:"fence"` // crash point: fences since the step began; -1: it had returned
	State    int      `json:"state"` // number of the state within the workload
	Kind     string   `json:"kind"`
	Seed     uint64   `json:"seed"`
	Flags    string   `json:"flags,omitempty"` // of the command, that the number depends on
	What     string   `json:"what"`
	Lost     []string `json:"lost,omitempty"`   // whose stores the state lacks, all or some of a line
	Nested   string   `json:"nested,omitempty"` // crash during recovery: its state
}

func (f *Failure) String() string {
	at := fmt.Sprintf("before fence %d", f.Fence)
	if f.Fence < 0 {
		at = "after it returned"
	}
	n := ""
	if f.Nested != "" {
		n = "; recovery crashed: " + f.Nested
	}
	lost := ""
	if len(f.Lost) > 0 {
		lost = "\n    it lacks stores of " + strings.Join(f.Lost, ", ")
	}
	return fmt.Sprintf("%s, step %q, %s, state %d (%s)%s:\n    %s%s\n    again: go run ./test/crash %s--workload %q --state %d --seed %d",
		f.Workload, f.Step, at, f.State, f.Kind, n, f.What, lost, f.Flags, regexp.QuoteMeta(f.Workload), f.State, f.Seed)
}

// Config is what to explore and how thoroughly.
type Config struct {
	Seed        uint64
	Limits      Limits // of workloads that stand alone
	Composed    Limits // of those composed of their operations
	Flags       string // of the command, that are needed to have this
	State       int    // only this state; -1: all
	MaxFailures int    // of a workload
	// One state in Nested has its recovery crashed too, one in DeleteAll has
	// everything deleted afterwards; 0: none.
	Nested, DeleteAll int
}

// DefaultConfig is the default run.
func DefaultConfig() Config {
	return Config{Seed: 1, Limits: DefaultLimits, Composed: DefaultLimits, State: -1, MaxFailures: 3, Nested: 400, DeleteAll: 16}
}

// Result is what exploring one workload gave.
type Result struct {
	Workload string
	States   int // distinct states judged
	Made     int // states made, equal ones included
	Nested   int // states of crashed recoveries
	Points   int // crash points
	Failures []Failure
	Costs    []Cost
}

// Cost is what an operation asks of the media.
type Cost struct {
	Workload string `json:"workload"`
	Step     string `json:"step"`
	Fences   int    `json:"fences"`
	Flushes  int    `json:"flushed_lines"`      // CLWB
	NTLines  int    `json:"non_temporal_lines"` // stored past the caches
	Stores   int    `json:"stored_lines"`       // left to the next transaction's flush, or flushed
}

// costs counts what the steps of a workload asked for.
func (rec *recording) costs(name string) []Cost {
	var out []Cost
	in := false
	for i := range rec.log {
		e := &rec.log[i]
		if e.kind == evBegin {
			out = append(out, Cost{Workload: name, Step: rec.steps[e.step].name})
			in = true
		}
		if !in {
			continue
		}
		c := &out[len(out)-1]
		lines := int((e.off+e.n-1)/lineSize-e.off/lineSize) + 1
		switch e.kind {
		case evStore:
			c.Stores += lines
		case evNT:
			c.NTLines += lines
		case evFlush:
			c.Flushes += lines
		case evFence:
			c.Fences++
		case evEnd:
			in = false
		}
	}
	return out
}

// explorer walks a recording and judges the crash states. It is used for many
// recordings in turn; its regions are put back each time.
type explorer struct {
	cfg     Config
	scratch *pmem.Region
	dirt    *dirt
	durable []byte // of the image under exploration; the scratch region equals it between states
	touched map[int64]bool
	inner   *explorer // crashes recoveries; made when needed
	doing   atomic.Pointer[string]
	made    atomic.Int64 // states
}

func newExplorer(cfg Config) (*explorer, error) {
	r, err := pmem.NewMemory(regionSize)
	if err != nil {
		return nil, err
	}
	x := &explorer{cfg: cfg, scratch: r, dirt: newDirt(regionSize), durable: make([]byte, regionSize), touched: map[int64]bool{}}
	r.SetRecorder(x.dirt)
	return x, nil
}

// put stores a line to the scratch region without noting it as dirt.
func (x *explorer) put(off int64, l *line) { x.quietly(func() { x.store(off, l) }) }

// quietly calls f while nobody hears what is stored.
func (x *explorer) quietly(f func()) {
	x.scratch.SetRecorder(nil)
	f()
	x.scratch.SetRecorder(x.dirt)
}

func (x *explorer) store(off int64, l *line) {
	if err := x.scratch.Store(off, l[:]); err != nil {
		panic(err)
	}
}

// patch makes a state of the durable image.
func (x *explorer) patch(ps []patch) {
	x.quietly(func() {
		for i := range ps {
			x.store(ps[i].off, &ps[i].l)
			x.dirt.note(ps[i].off, lineSize)
		}
	})
}

// undo makes the scratch region equal the durable image again.
func (x *explorer) undo() {
	x.quietly(func() {
		for _, off := range x.dirt.lines {
			x.store(off, (*line)(x.durable[off:]))
		}
	})
	x.dirt.reset()
}

// clear forgets the last recording.
func (x *explorer) clear() {
	var zero line
	x.quietly(func() {
		for off := range x.touched {
			*(*line)(x.durable[off:]) = zero
			x.store(off, &zero)
		}
	})
	clear(x.touched)
}

// recovered is what a recovery made of a crash state within a step: the image but for the
// journal's lanes, in which nothing is valid any more.
type recovered struct {
	step    int
	hash    uint64
	unclean bool
}

// recovered says what the scratch region has become of an image.
func (x *explorer) recovered(m *image, step int, unclean bool) recovered {
	h := m.rest
	for _, off := range x.dirt.lines {
		if !lanes().has(off) {
			h += hashLine(off, (*line)(x.scratch.Bytes(off, lineSize))) - hashLine(off, m.at(off))
		}
	}
	return recovered{step, h, unclean}
}

// walk is one exploration of one recording.
type walk struct {
	x       *explorer
	rec     *recording
	res     Result
	m       *image
	mutant  mutant
	mutated bool
	same    bool                  // nothing is mutated yet: these states were judged before
	seen    map[uint64]verdict    // crash states, by their hash
	good    map[recovered]outcome // recovered states that were found right
	step    int                   // -1: outside
	fence   int
	limits  Limits
	done    uint8 // of operations at once: which have returned
	state   int
	stop    bool
}

// explore judges all crash states of a recording. Of a mutant, the first failure ends it.
func (x *explorer) explore(name string, rec *recording, mut mutant) Result {
	x.clear()
	log := rec.log
	k := &walk{x: x, rec: rec, res: Result{Workload: name}, mutant: mut, mutated: mut.skip != nil || mut.order != nil, seen: map[uint64]verdict{}, good: map[recovered]outcome{}, step: -1}
	if k.limits = x.cfg.Limits; rec.composed {
		k.limits = x.cfg.Composed
	}
	k.same = k.mutated
	if mut.order != nil {
		log, _ = mut.order(log, rec.in(mut.kind))
	}
	k.m = newImage(x.durable)
	k.m.changed = func(off int64) {
		x.touched[off] = true
		x.put(off, k.m.at(off))
	}
	for i := range log {
		if k.event(i, &log[i]); k.stop {
			break
		}
	}
	if !k.mutated {
		k.res.Costs = rec.costs(name)
	}
	return k.res
}

func (k *walk) event(i int, e *event) {
	in := k.step >= 0
	switch e.kind {
	case evStore, evNT:
		k.m.store(e, i)
	case evFlush:
		if !k.skip(e) {
			k.m.flush(e)
		}
	case evFence:
		if in {
			if k.skip(e) {
				return
			}
			k.point()
			k.fence++
		}
		k.m.fence(e.tid)
	case evBegin:
		k.step, k.fence, k.done = e.step, 0, 0
		if k.mutant.order != nil && k.mutant.kind == k.rec.steps[k.step].kind() {
			k.same = false
		}
		k.point() // what the set-up left pending may be lost now, too
	case evDone:
		k.done |= 1 << e.n
		k.point()
	case evEnd:
		k.fence = -1
		k.point()
		k.step = -1
	}
}

// skip reports whether the mutant leaves out a flush or fence.
func (k *walk) skip(e *event) bool {
	if k.mutant.skip == nil || k.step < 0 || k.mutant.kind != k.rec.steps[k.step].kind() || !k.mutant.skip(e) {
		return false
	}
	k.same = false
	return true
}

// point judges the crash states of the present moment.
func (k *walk) point() {
	if k.same {
		return
	}
	k.res.Points++
	seed := k.x.cfg.Seed ^ uint64(k.res.Points)<<32
	s := &k.rec.steps[k.step]
	allowed := k.allowed(s)
	k.m.states(seed, k.limits, func(kind string, ps []patch) bool {
		n := k.state
		k.state++
		k.x.made.Add(1)
		if k.x.cfg.State >= 0 && n != k.x.cfg.State {
			return n < k.x.cfg.State || k.x.cfg.State < 0
		}
		why, nested := k.try(n, ps, allowed, seed)
		if why != "" {
			k.res.Failures = append(k.res.Failures, Failure{Workload: k.res.Workload, Step: s.called(), Fence: k.fence, State: n, Kind: kind, Seed: k.x.cfg.Seed, Flags: k.x.cfg.Flags, What: why, Nested: nested, Lost: k.m.lost(ps)})
			k.stop = k.mutated || len(k.res.Failures) >= k.x.cfg.MaxFailures
		}
		return !k.stop
	})
}

// lost are those whose stores a state lacks.
func (m *image) lost(ps []patch) (sites []string) {
	has := map[int64]line{}
	for _, p := range ps {
		has[p.off] = p.l
	}
	for _, p := range m.list() {
		if l, ok := has[p.off]; ok && l == m.newest(p) {
			continue
		}
		for _, s := range p.stores {
			if !slices.Contains(sites, s.site) {
				sites = append(sites, s.site)
			}
		}
	}
	return sites
}

// close gives the regions back.
func (x *explorer) close() {
	if x.inner != nil {
		x.inner.close()
	}
	x.scratch.SetRecorder(nil)
	x.scratch.Close()
	runtime.GC()
}
