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

// Failure describes a crash state after whose recovery the filesystem is wrong.
type Failure struct {
	Workload string `json:"workload"`
	Step     string `json:"step"`
	Fence    int    `json:"fence"` // crash point: number of fences since the step began; -1: it had returned
	State    int    `json:"state"` // number of the state within the workload
	Kind     string `json:"kind"`
	Seed     uint64 `json:"seed"`
	// Flags are the command's options that the numbering of states depends on.
	Flags string `json:"flags,omitempty"`
	What  string `json:"what"`
	// Lost lists the call sites whose stores the state lacks, for all or part of a line.
	Lost   []string `json:"lost,omitempty"`
	Nested string   `json:"nested,omitempty"` // the state at which recovery was crashed; "": it was not
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

// Config selects what to explore and how thoroughly.
type Config struct {
	Seed        uint64
	Limits      Limits // for single operations
	Composed    Limits // for workloads composed of several operations
	Flags       string // the command's options that give this configuration
	State       int    // number of the only state to judge; -1: all
	MaxFailures int    // stop a workload after this many
	// The recovery of one state in Nested is crashed too. In one state in DeleteAll everything is
	// deleted afterwards. 0: never.
	Nested, DeleteAll int
}

// DefaultConfig returns the configuration of the default run.
func DefaultConfig() Config {
	return Config{Seed: 1, Limits: DefaultLimits, Composed: DefaultLimits, State: -1, MaxFailures: 3, Nested: 400, DeleteAll: 16}
}

// Result is the result of exploring one workload.
type Result struct {
	Workload string
	States   int // distinct states judged
	Made     int // states made, including equal ones
	Nested   int // states made within crashed recoveries
	Points   int // crash points
	Failures []Failure
	Costs    []Cost
}

// Cost counts the primitives of one operation. Flushes, NTLines and Stores count lines of 64 bytes.
type Cost struct {
	Workload string `json:"workload"`
	Step     string `json:"step"`
	Fences   int    `json:"fences"`
	Flushes  int    `json:"flushed_lines"`      // CLWB
	NTLines  int    `json:"non_temporal_lines"` // non-temporal stores
	Stores   int    `json:"stored_lines"`       // ordinary stores; flushed here, or by the next transaction
}

// costs returns the costs of the recording's steps.
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

// explorer walks a recording and judges its crash states. It is used for many recordings in turn;
// its regions are restored in between.
type explorer struct {
	cfg     Config
	scratch *pmem.Region
	dirt    *dirt
	// durable holds the durable bytes of the image under exploration. The scratch region equals it
	// between states.
	durable []byte
	touched map[int64]bool
	inner   *explorer // explores crashed recoveries; created when needed
	doing   atomic.Pointer[string]
	made    atomic.Int64 // number of states made
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

// put stores a line to the scratch region at byte off and does not mark it dirty.
func (x *explorer) put(off int64, l *line) { x.quietly(func() { x.store(off, l) }) }

// quietly calls f with no recorder attached to the scratch region.
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

// patch turns the scratch region from the durable image into a crash state.
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

// clear zeroes the durable image and the scratch region wherever the last recording changed them.
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

// recovered identifies the image that a recovery made from a crash state of a step. The hash leaves
// out the journal's lanes, in which no record is valid after recovery.
type recovered struct {
	step    int
	hash    uint64
	unclean bool
}

// recovered returns the identity of the scratch region's present content, which differs from image
// m in the dirty lines.
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
	same    bool                  // the mutation has not applied yet: the unmutated recording has the same states
	seen    map[uint64]verdict    // crash states, by hash
	good    map[recovered]outcome // recovered images that were judged right
	step    int                   // -1: outside any step
	fence   int
	limits  Limits
	done    uint8 // for operations that run at once: bits of those that have returned
	state   int
	stop    bool
}

// explore judges all crash states of a recording. For a mutant, it stops at the first failure.
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
		k.point() // lines that the set-up left pending may be lost now, too
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

// point judges the crash states of the current moment.
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

// lost returns the call sites whose stores a state lacks.
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

// close releases the regions.
func (x *explorer) close() {
	if x.inner != nil {
		x.inner.close()
	}
	x.scratch.SetRecorder(nil)
	x.scratch.Close()
	runtime.GC()
}
