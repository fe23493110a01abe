package refcnt

import "slices"

// layers says how many of a large folio's owners own other parts of it only, block by
// block: a step function, as runs in order, of counts above zero. What is in no run is
// owned by all of them. It is never changed, but replaced.
type layers []layer

type layer struct{ block, n, count uint64 }

func (a layer) end() uint64 { return a.block + a.n }

// add returns the layers with one more owner gone from a range.
func (l layers) add(block, n uint64) (sum layers) {
	at, end := block, block+n // [at, end) is what is left to add
	for _, a := range l {
		if at < end && at < a.block { // what no run covers
			k := min(end, a.block) - at
			sum = sum.append(layer{at, k, 1})
			at += k
		}
		lo, hi := max(a.block, at), min(a.end(), end)
		if lo >= hi {
			sum = sum.append(a)
			continue
		}
		sum = sum.append(layer{a.block, lo - a.block, a.count})
		sum = sum.append(layer{lo, hi - lo, a.count + 1})
		sum = sum.append(layer{hi, a.end() - hi, a.count})
		at = hi
	}
	return sum.append(layer{at, max(at, end) - at, 1})
}

// append appends a run, to the last one if that is all the same.
func (l layers) append(a layer) layers {
	if a.n == 0 || a.count == 0 {
		return l
	}
	if k := len(l); k > 0 && l[k-1].end() == a.block && l[k-1].count == a.count {
		l[k-1].n += a.n
		return l
	}
	return append(l, a)
}

// at returns the count of a block.
func (l layers) at(block uint64) uint64 {
	for _, a := range l {
		if a.block <= block && block < a.end() {
			return a.count
		}
	}
	return 0
}

// max returns the largest count.
func (l layers) max() (m uint64) {
	for _, a := range l {
		m = max(m, a.count)
	}
	return m
}

// peel returns the layers without one that covers all of f: an owner that owns no part
// of it any more. ok is false if there is none.
func (l layers) peel(f *folio) (rest layers, ok bool) {
	at := f.block
	for _, a := range l {
		if a.block != at {
			return l, false
		}
		at = a.end()
	}
	if at != f.end() {
		return l, false
	}
	for _, a := range l {
		a.count--
		rest = rest.append(a)
	}
	return rest, true
}

// touches reports whether a run reaches into a range.
func (l layers) touches(block, n uint64) bool {
	return slices.ContainsFunc(l, func(a layer) bool { return a.block < block+n && block < a.end() })
}
