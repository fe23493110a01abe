package explore

import (
	"hash/maphash"
	"math/bits"
	"sort"
)

const lineSize = 64

// line is the content of one cache line.
type line [lineSize]byte

// image is what is durable, and beyond it what is stored and may or may not be.
//
// A line's life: durable -> pending (stored to) -> durable (each store by itself: an
// ordinary one when the thread that flushed the line fences, a non-temporal one
// when its own thread fences). While it is pending the media may hold any prefix of
// its ordinary stores, since a cache may write the line back at any time, and any
// subset of the aligned 8-byte words of its non-temporal ones.
type image struct {
	durable []byte
	hash    uint64 // sum over all lines of their content's hash
	rest    uint64 // the same without the journal's lanes
	pend    map[int64]*pending
	ready   map[int]map[int64]bool // by thread: lines that its next fence concerns
	order   int
	changed func(off int64) // told each line whose durable content changed
}

// pending are the stores to one line that are not durable yet, in order.
type pending struct {
	off    int64
	order  int // of its first store
	event  int // its first store's event, to group lines by
	stores []pstore
}

type pstore struct {
	nt      bool
	tid     int
	site    string // who stored
	mask    uint64 // which bytes
	data    line
	flushed []int // threads that flushed the line since
}

// nt reports whether all stores to the line were non-temporal.
func (p *pending) nt() bool {
	for i := range p.stores {
		if !p.stores[i].nt {
			return false
		}
	}
	return true
}

func newImage(b []byte) *image {
	return &image{durable: b, pend: map[int64]*pending{}, ready: map[int]map[int64]bool{}}
}

var hashSeed = maphash.MakeSeed()

func hashLine(off int64, l *line) uint64 {
	if *l == (line{}) {
		return 0
	}
	return maphash.Comparable(hashSeed, struct {
		off int64
		l   line
	}{off, *l})
}

func (m *image) at(off int64) *line { return (*line)(m.durable[off:]) }

// store splits a store into lines.
func (m *image) store(e *event, ev int) {
	for i := int64(0); i < e.n; {
		off := (e.off + i) &^ (lineSize - 1)
		from := e.off + i - off
		n := min(lineSize-from, e.n-i)
		s := pstore{nt: e.kind == evNT, tid: e.tid, site: e.site}
		copy(s.data[from:], e.data[i:i+n])
		s.mask = ^uint64(0) >> (64 - n) << from
		p := m.pend[off]
		if p == nil {
			p = &pending{off: off, order: m.order, event: ev}
			m.order++
			m.pend[off] = p
		}
		p.stores = append(p.stores, s)
		if s.nt {
			m.readyFor(e.tid, off)
		}
		i += n
	}
}

func (m *image) readyFor(tid int, off int64) {
	r := m.ready[tid]
	if r == nil {
		r = map[int64]bool{}
		m.ready[tid] = r
	}
	r[off] = true
}

func (m *image) flush(e *event) {
	for off := e.off &^ (lineSize - 1); off < e.off+e.n; off += lineSize {
		p := m.pend[off]
		if p == nil {
			continue
		}
		for i := range p.stores {
			p.stores[i].flushed = append(p.stores[i].flushed, e.tid)
		}
		m.readyFor(e.tid, off)
	}
}

// fence makes durable what thread tid flushed or stored non-temporally.
func (m *image) fence(tid int) {
	for off := range m.ready[tid] {
		p := m.pend[off]
		if p == nil {
			continue
		}
		var done uint64
		was := *m.at(off)
		for i := range p.stores {
			if s := &p.stores[i]; s.drained(tid) {
				s.apply(m.at(off), s.mask)
				done |= s.mask
				for j := 0; j < i; j++ {
					p.stores[j].mask &^= s.mask // superseded
				}
				s.mask = 0
			}
		}
		if done != 0 {
			d := hashLine(off, m.at(off)) - hashLine(off, &was)
			m.hash += d
			if !lanes().has(off) {
				m.rest += d
			}
			if m.changed != nil {
				m.changed(off)
			}
		}
		kept := p.stores[:0]
		for _, s := range p.stores {
			if s.mask != 0 {
				kept = append(kept, s)
			}
		}
		if p.stores = kept; len(kept) == 0 {
			delete(m.pend, off)
		}
	}
	delete(m.ready, tid)
}

func (s *pstore) drained(tid int) bool {
	if s.nt {
		return s.tid == tid
	}
	for _, t := range s.flushed {
		if t == tid {
			return true
		}
	}
	return false
}

// apply copies the bytes that mask says to l.
func (s *pstore) apply(l *line, mask uint64) {
	for mask &= s.mask; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		l[i] = s.data[i]
	}
}

// newest is the line with all its stores.
func (m *image) newest(p *pending) line {
	l := *m.at(p.off)
	for i := range p.stores {
		p.stores[i].apply(&l, ^uint64(0))
	}
	return l
}

// list is the pending lines whose newest content differs from the durable one, or
// which differed in between, in order of their first store.
func (m *image) list() []*pending {
	var ps []*pending
	for _, p := range m.pend {
		if len(p.stores) > 1 || m.newest(p) != *m.at(p.off) {
			ps = append(ps, p)
		}
	}
	sort.Slice(ps, func(i, j int) bool { return ps[i].order < ps[j].order })
	return ps
}

// word is the mask of aligned 8-byte word w of a line.
func word(w int) uint64 { return 0xff << (8 * w) }

// partial are the contents that a line takes on while it is on its way, but not the newest.
// Ordinary stores are written back in order: after each store, and within a store after each
// 8-byte word. Of a non-temporal one any subset of its words may be there, beside what
// was stored before: each alone, and all but each; with every, all subsets.
func (m *image) partial(p *pending, every bool) []line {
	var out []line
	seen := map[line]bool{*m.at(p.off): true, m.newest(p): true}
	add := func(l line) {
		if !seen[l] {
			seen[l] = true
			out = append(out, l)
		}
	}
	l := *m.at(p.off)
	for i := range p.stores {
		s := &p.stores[i]
		if !s.nt {
			for w := 0; w < 8; w++ {
				s.apply(&l, word(w))
				add(l)
			}
			continue
		}
		for words := 1; words < 255; words++ {
			if n := bits.OnesCount8(uint8(words)); every || n == 1 || n == 7 {
				torn := l
				s.apply(&torn, subset(words))
				add(torn)
			}
		}
		s.apply(&l, ^uint64(0))
		add(l)
	}
	return out
}

// subset is the mask of the words of a line whose bits are set.
func subset(words int) (mask uint64) {
	for w := range 8 {
		if words&(1<<w) != 0 {
			mask |= word(w)
		}
	}
	return mask
}

// torn is a random content of a line: a prefix of its ordinary stores, and any
// subset of the words of its non-temporal ones.
func (m *image) torn(p *pending, r *rnd) line {
	l := *m.at(p.off)
	words := 0
	for i := range p.stores {
		if !p.stores[i].nt {
			words += 8
		}
	}
	k := r.n(words + 1)
	for i := range p.stores {
		s := &p.stores[i]
		if s.nt {
			s.apply(&l, subset(r.n(256)))
			continue
		}
		for w := 0; w < 8 && k > 0; w, k = w+1, k-1 {
			s.apply(&l, word(w))
		}
	}
	return l
}

// rnd is a small seeded generator (splitmix64), so that a state can be made again.
type rnd uint64

func (r *rnd) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rnd) n(n int) int { return int(r.next() % uint64(n)) }
