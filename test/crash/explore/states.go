package explore

import "fmt"

// patch is one line of a crash state that differs from what is durable.
type patch struct {
	off int64
	l   line
}

// Limits bound the states of one crash point. A point with more pending lines than
// Lines has that many of them, chosen by seed, tried one by one.
type Limits struct {
	Lines  int // lines tried alone, left out, and as ends of prefixes
	Torn   int // partial contents of each of these lines
	Pairs  int // pairs of lines
	Random int // random subsets of torn lines
}

// DefaultLimits are what a run of a few minutes can afford.
var DefaultLimits = Limits{Lines: 48, Torn: 6, Pairs: 150, Random: 24}

// states calls f for each crash state of the present moment, until it says false.
// patches is valid during the call.
func (m *image) states(seed uint64, lim Limits, f func(kind string, ps []patch) bool) {
	list := m.list()
	n := len(list)
	full := make([]patch, n)
	for i, p := range list {
		full[i] = patch{p.off, m.newest(p)}
	}
	buf := make([]patch, 0, n+1)
	ok := f("none", nil)
	if n == 0 || !ok {
		return
	}
	ok = ok && f("all", full)
	r := rnd(seed)
	pick := chosen(n, lim.Lines, &r)
	for _, i := range pick {
		ok = ok && n > 1 && f(fmt.Sprintf("line %#x alone", list[i].off), full[i:i+1])
	}
	for _, i := range pick {
		ok = ok && i > 0 && f(fmt.Sprintf("the first %d of %d lines", i, n), full[:i]) || ok && i == 0
	}
	for _, i := range pick {
		if ok = ok && n > 1; ok {
			buf = append(append(buf[:0], full[:i]...), full[i+1:]...)
			ok = f(fmt.Sprintf("all but line %#x", list[i].off), buf)
		}
	}
	ok = ok && m.eventStates(list, full, f)
	for _, i := range pick {
		for k, l := range sample(m.prefixes(list[i]), lim.Torn, &r) {
			if !ok {
				return
			}
			buf = append(buf[:0], patch{list[i].off, l})
			if ok = f(fmt.Sprintf("line %#x torn (%d) alone", list[i].off, k), buf); ok && n > 1 {
				buf = append(append(append(buf[:0], full[:i]...), full[i+1:]...), patch{list[i].off, l})
				ok = f(fmt.Sprintf("line %#x torn (%d), all others", list[i].off, k), buf)
			}
		}
	}
	pairs := n * (n - 1) / 2
	for i := 0; i < n && ok; i++ {
		for j := i + 1; j < n && ok; j++ {
			if pairs <= lim.Pairs || r.n(pairs) < lim.Pairs {
				buf = append(buf[:0], full[i], full[j])
				ok = f(fmt.Sprintf("lines %#x and %#x", list[i].off, list[j].off), buf)
			}
		}
	}
	for k := 0; k < lim.Random && ok; k++ {
		buf = buf[:0]
		some := 1 + r.n(4) // of a line: whole, torn or not at all, in changing shares
		for i, p := range list {
			switch v := r.n(6); {
			case v < some:
				buf = append(buf, full[i])
			case v == 5:
				buf = append(buf, patch{p.off, m.torn(p, &r)})
			}
		}
		ok = f(fmt.Sprintf("random subset %d", k), buf)
	}
}

// eventStates takes the lines of one store together: each store alone, all but it,
// and all stores before it. "Everything but what this fence was to order" is one of
// these, which no choice of single lines reaches.
func (m *image) eventStates(list []*pending, full []patch, f func(string, []patch) bool) bool {
	ends := []int{}
	for i := range list {
		if i+1 == len(list) || list[i+1].event != list[i].event {
			ends = append(ends, i+1)
		}
	}
	if len(ends) < 2 || len(ends) > 64 {
		return true
	}
	buf := make([]patch, 0, len(full))
	for k, e := range ends {
		from := 0
		if k > 0 {
			from = ends[k-1]
		}
		buf = append(append(buf[:0], full[:from]...), full[e:]...)
		if !f(fmt.Sprintf("store %d of %d alone", k, len(ends)), full[from:e]) ||
			!f(fmt.Sprintf("all but store %d of %d", k, len(ends)), buf) ||
			!f(fmt.Sprintf("the first %d of %d stores", k, len(ends)), full[:from]) ||
			!f(fmt.Sprintf("the last %d of %d stores", len(ends)-k, len(ends)), full[from:]) {
			return false
		}
	}
	return true
}

// chosen is up to k numbers below n in order: all of them if n allows, else the
// first, the last and a seeded choice.
func chosen(n, k int, r *rnd) []int {
	out := []int{}
	for i := 0; i < n; i++ {
		if n <= k || i < 4 || i >= n-4 || r.n(n) < k {
			out = append(out, i)
		}
	}
	return out
}

// sample is up to k of ls.
func sample(ls []line, k int, r *rnd) []line {
	for len(ls) > k {
		i := r.n(len(ls))
		ls = append(ls[:i], ls[i+1:]...)
	}
	return ls
}
