package refcnt

// ownerCounts records how the owners of a large folio are spread over its blocks, if some own a
// part only. It has a value for each block. A new owner of a part raises the values of the blocks
// of that part, and an owner that leaves lowers them. A block with the top value has all the owners
// that the folio's word counts; a block whose value is lower by d has d owners fewer (see owners).
// So the word does not change when an owner comes to blocks that had fewer than all owners, or when
// the only owner of some blocks leaves them.
//
// An owner of the whole folio comes and goes through the word alone.
type ownerCounts struct {
	shift       uint8 // log2 of a piece's blocks
	pieces      []countsPiece
	count       map[int64]uint64 // number of blocks by value
	top, bottom int64            // the largest and the smallest value
}

// countsPiece holds the values of the blocks of a PMD block.
type countsPiece struct {
	all  int64   // the value of all blocks, if each is nil
	each []int64 // the values by block; made when a part of the piece changes
}

func newOwnerCounts(f *folio, shift uint8) *ownerCounts {
	return &ownerCounts{
		shift:  shift,
		pieces: make([]countsPiece, f.n>>shift),
		count:  map[int64]uint64{0: uint64(f.n)},
	}
}

// add adds d to the values of n blocks, from block at of the folio on, and returns how far the top
// rises. If d is neither 1 nor -1, the top must stay. It takes a step for each block of pieces that
// are not changed as a whole.
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
	// If all blocks with the top or the bottom value were moved, they have the next value now.
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

// move counts n blocks as having value v+d instead of v.
func (y *ownerCounts) move(v int64, n uint64, d int64) {
	if y.count[v] -= n; y.count[v] == 0 {
		delete(y.count, v)
	}
	y.count[v+d] += n
	y.top, y.bottom = max(y.top, v+d), min(y.bottom, v+d)
}

// even reports whether all blocks have the same number of owners.
func (y *ownerCounts) even() bool { return y.top == y.bottom }

// owners returns how many owners a block with value v has, if the folio's word counts shares.
func (y *ownerCounts) owners(v int64, shares uint64) int64 { return int64(shares) - (y.top - v) }

// least returns how many owners the block with the fewest owners has.
func (y *ownerCounts) least(shares uint64) int64 { return y.owners(y.bottom, shares) }

// runs calls f for each run of blocks of one value within n blocks, from block at of the folio on,
// until f returns false. A run lies in one piece.
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

// max returns the largest value of n blocks, from block at of the folio on.
func (y *ownerCounts) max(at, n uint64) int64 {
	m := y.bottom
	y.runs(at, n, func(_, _ uint64, v int64) bool { m = max(m, v); return true })
	return m
}

// blocks returns for how many blocks ok is true of the number of their owners.
func (y *ownerCounts) blocks(shares uint64, ok func(owners int64) bool) (n uint64) {
	for v, k := range y.count {
		if ok(y.owners(v, shares)) {
			n += uint64(k)
		}
	}
	return n
}

// piece returns how many owners each block of piece i has. If all have the same number, each is nil
// and all is that number. A nil y is that of a folio whose owners all own the whole.
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
