package explore

import "fmt"

// patch is one line of a crash state that differs from the durable image; off is its byte offset.
type patch struct {
	off int64
	l   line
}

// Limits bounds the number of states of one crash point. If more than Lines lines are pending,
// about that many of them, chosen by seed, are tried one by one.
type Limits struct {
	Lines  int // lines that are tried alone, left out, and as ends of prefixes
	Torn   int // partial contents tried of each such line with an ordinary store
	TornNT int // partial contents tried of each such line with only non-temporal stores
	Pairs  int // pairs of lines
	Random int // random subsets of torn lines

	// EverySubset makes all subsets of the words of each non-temporal store partial contents.
	EverySubset bool
}

// DefaultLimits is what a run of a few minutes can afford.
var DefaultLimits = Limits{Lines: 36, Torn: 4, TornNT: 1, Pairs: 90, Random: 14}

// The limits of a full run, for single operations and for workloads composed of them. A record torn
// in a pair is the same as that record torn alone, so pairs explore whole lines.
var (
	FullLimits         = Limits{Lines: 96, Torn: 16, TornNT: 24, Pairs: 400, Random: 64, EverySubset: true}
	FullComposedLimits = Limits{Lines: 64, Torn: 4, TornNT: 1, Pairs: 150, Random: 24}
)

// emitter passes states to f until f returns false.
type emitter struct {
	f    func(kind string, ps []patch) bool
	stop bool
	buf  []patch
}

func (e *emitter) emit(ps []patch, format string, a ...any) {
	if !e.stop {
		e.stop = !e.f(fmt.Sprintf(format, a...), ps)
	}
}

// but returns ps with more in place of [from, to). The result is valid until the next call.
func (e *emitter) but(ps []patch, from, to int, more ...patch) []patch {
	e.buf = append(append(append(e.buf[:0], ps[:from]...), ps[to:]...), more...)
	return e.buf
}

// states calls f for each crash state of the current moment, until f returns false. The patches are
// valid during the call. The same moment, seed and limits give the same states in the same order.
func (m *image) states(seed uint64, lim Limits, visit func(kind string, patches []patch) bool) {
	list := m.list()
	n := len(list)
	full := make([]patch, n)
	for i, pend := range list {
		full[i] = patch{pend.off, m.newest(pend)}
	}
	out := &emitter{f: visit}
	out.emit(nil, "none")
	if n == 0 {
		return
	}
	out.emit(full, "all")
	rng := rnd(seed)
	pick := chosen(n, lim.Lines, &rng)
	if n > 1 {
		for _, i := range pick {
			out.emit(full[i:i+1], "line %#x alone", list[i].off)
		}
		for _, i := range pick {
			out.emit(full[:i], "the first %d of %d lines", i, n)
		}
		for _, i := range pick {
			out.emit(out.but(full, i, i+1), "all but line %#x", list[i].off)
		}
		m.eventStates(list, full, out)
	}
	for _, i := range pick {
		torn := lim.Torn
		if list[i].nt() {
			torn = lim.TornNT
		}
		for nth, content := range sample(m.partial(list[i], lim.EverySubset), torn, &rng) {
			out.emit([]patch{{list[i].off, content}}, "line %#x torn (%d) alone", list[i].off, nth)
			out.emit(out.but(full, i, i+1, patch{list[i].off, content}), "line %#x torn (%d), all others", list[i].off, nth)
		}
	}
	pair := func(i, other int) {
		out.emit([]patch{full[i], full[other]}, "lines %#x and %#x", list[i].off, list[other].off)
	}
	if n*(n-1)/2 <= lim.Pairs {
		for i := range full {
			for other := i + 1; other < n; other++ {
				pair(i, other)
			}
		}
	} else {
		for range lim.Pairs {
			if i, other := rng.n(n), rng.n(n); i != other {
				pair(i, other)
			}
		}
	}
	for nth := 0; nth < lim.Random && !out.stop; nth++ {
		patches := []patch{}
		some := 1 + rng.n(4) // of 6: the share of lines that are whole; others are torn or missing
		for i, pend := range list {
			switch die := rng.n(6); {
			case die < some:
				patches = append(patches, full[i])
			case die == 5:
				patches = append(patches, patch{pend.off, m.torn(pend, &rng)})
			}
		}
		out.emit(patches, "random subset %d", nth)
	}
}

// eventStates emits states that take the lines of one store together: each store alone, all stores
// but that one, all before it, and all from it on. One of these states holds everything except what
// the fence was to order; no choice of single lines reaches that state.
func (m *image) eventStates(list []*pending, full []patch, e *emitter) {
	var ends []int
	for i := range list {
		if i+1 == len(list) || list[i+1].event != list[i].event {
			ends = append(ends, i+1)
		}
	}
	if len(ends) < 2 || len(ends) > 64 {
		return
	}
	from := 0
	for k, to := range ends {
		e.emit(full[from:to], "store %d of %d alone", k, len(ends))
		e.emit(e.but(full, from, to), "all but store %d of %d", k, len(ends))
		e.emit(full[:from], "the first %d of %d stores", k, len(ends))
		e.emit(full[from:], "the last %d of %d stores", len(ends)-k, len(ends))
		from = to
	}
}

// chosen returns numbers below n in ascending order: all of them if n <= k, else the first four,
// the last four and a seeded choice of about k.
func chosen(n, k int, r *rnd) []int {
	out := []int{}
	for i := 0; i < n; i++ {
		if n <= k || i < 4 || i >= n-4 || r.n(n) < k {
			out = append(out, i)
		}
	}
	return out
}

// sample returns up to k random elements of ls. It changes ls.
func sample(ls []line, k int, r *rnd) []line {
	for len(ls) > k {
		i := r.n(len(ls))
		ls = append(ls[:i], ls[i+1:]...)
	}
	return ls
}
