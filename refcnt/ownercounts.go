package refcnt

// owner counts says how the owners of a large folio are spread over its blocks, where some own a
// part only. It has a value for each block, which an owner that comes or goes raises or
// lowers in the blocks that are its own. A block of the top value has all the owners that
// the folio's word counts, one of a lower value as many fewer: owners. So one that comes
// to what others lack, or leaves the blocks that only it had, changes no word.
//
// Whoever owns all of the folio comes and goes through the word alone.
type ownerCounts struct {
	shift       uint8 // log2 of a piece's blocks
	pieces      []countsPiece
	count       map[int64]uint64 // blocks of each value
	top, bottom int64            // the largest and the smallest value
}

// countsPiece is the values of a PMD block.
type countsPiece struct {
	all  int64   // if each is nil
	each []int64 // made when not all are changed alike
}

func newOwnerCounts(f *folio, shift uint8) *ownerCounts {
	return &ownerCounts{
		shift:  shift,
		pieces: make([]countsPiece, f.n>>shift),
		count:  map[int64]uint64{0: uint64(f.n)},
	}
}

// add adds d to the values of n blocks, the first of them block at of the folio, and returns
// how far the top moves. If d is neither 1 nor -1 the top must stay. It takes as many steps
// as there are blocks in pieces that are not whole.
func (y *ownerCounts) add(at, n uint64, d int64) (rise int64) {
	was, size := y.top, uint64(1)<<y.shift
	for n > 0 {
		p, i := &y.pieces[at>>y.shift], at&(size-1)
		k := min(n, size-i)
		at, n = at+k, n-k
		if k == size && p.each == nil {
			y.move(p.all, uint64(k), d)
			p.all += d
			continue
		}
		for run := p.values(size)[i : i+k]; len(run) > 0; {
			v, same := run[0], 0
			for same < len(run) && run[same] == v {
				run[same] = v + d
				same++
			}
			y.move(v, uint64(same), d)
			run = run[same:]
		}
	}
	// All of an extreme that is left has gone to the value next to it.
	if y.count[y.top] == 0 {
		y.top--
	}
	if y.count[y.bottom] == 0 {
		y.bottom++
	}
	return y.top - was
}

func (p *countsPiece) values(size uint64) []int64 {
	if p.each == nil {
		p.each = make([]int64, size)
		for i := range p.each {
			p.each[i] = p.all
		}
	}
	return p.each
}

// move counts n blocks from value v to v+d.
func (y *ownerCounts) move(v int64, n uint64, d int64) {
	if y.count[v] -= n; y.count[v] == 0 {
		delete(y.count, v)
	}
	y.count[v+d] += n
	y.top, y.bottom = max(y.top, v+d), min(y.bottom, v+d)
}

// even reports whether all blocks have the same owners.
func (y *ownerCounts) even() bool { return y.top == y.bottom }

// owners returns how many owners a block of value v has, if the word counts shares.
func (y *ownerCounts) owners(v int64, shares uint64) int64 { return int64(shares) - (y.top - v) }

// least returns how many owners the block has that has the fewest.
func (y *ownerCounts) least(shares uint64) int64 { return y.owners(y.bottom, shares) }

// runs calls f for runs of one value within n blocks, the first of them block at of the
// folio, until f returns false.
func (y *ownerCounts) runs(at, n uint64, f func(at, n uint64, v int64) bool) {
	size := uint64(1) << y.shift
	for n > 0 {
		p, i := &y.pieces[at>>y.shift], at&(size-1)
		k := min(n, size-i)
		if p.each != nil {
			for j := i + 1; j < i+k; j++ {
				if p.each[j] != p.each[i] {
					k = j - i
				}
			}
		}
		if !f(at, k, p.value(i)) {
			return
		}
		at, n = at+k, n-k
	}
}

func (p *countsPiece) value(i uint64) int64 {
	if p.each == nil {
		return p.all
	}
	return p.each[i]
}

// max returns the largest value of n blocks, the first of them block at of the folio.
func (y *ownerCounts) max(at, n uint64) int64 {
	m := y.bottom
	y.runs(at, n, func(_, _ uint64, v int64) bool { m = max(m, v); return true })
	return m
}

// blocks returns how many blocks ok is true for, given their owners.
func (y *ownerCounts) blocks(shares uint64, ok func(owners int64) bool) (n uint64) {
	for v, k := range y.count {
		if ok(y.owners(v, shares)) {
			n += uint64(k)
		}
	}
	return n
}

// piece returns how many owners each block of piece i has: each is nil if all have the
// same. A nil owner counts is one where everybody owns all.
func (y *ownerCounts) piece(i uint64, shares uint64) (all uint64, each []uint64) {
	if y == nil {
		return shares, nil
	}
	p := &y.pieces[i]
	if p.each == nil {
		return uint64(y.owners(p.all, shares)), nil
	}
	same := true
	each = make([]uint64, len(p.each))
	for k, v := range p.each {
		each[k] = uint64(y.owners(v, shares))
		same = same && v == p.each[0]
	}
	if same {
		return each[0], nil
	}
	return 0, each
}
