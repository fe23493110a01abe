package explore

import (
	"hash/maphash"
	"math/bits"
	"sort"
)

const lineSize = 64

// line is the content of one cache line.
type line [lineSize]byte

// image holds the durable bytes of the region and the pending stores, which a crash may or may not
// lose.
//
// The life of a line: durable -> pending (stored to) -> durable. Each store becomes durable by
// itself: an ordinary store when a thread that flushed the line after the store fences, a
// non-temporal store when the storing thread fences. While a line is pending, the media may hold
// any prefix of its ordinary stores, since a cache may write the line back at any time, and any
// subset of the aligned 8-byte words of its non-temporal stores.
type image struct {
	durable []byte
	hash    uint64 // sum of the hashes of all lines' contents
	rest    uint64 // the same sum without the journal's lanes
	pend    map[int64]*pending
	ready   map[int]map[int64]bool // by thread: lines that its next fence may make durable
	order   int
	changed func(off int64) // called with the byte offset of each line whose durable content changed
}

// pending holds the stores to one line that are not durable yet, in order.
type pending struct {
	off    int64 // byte offset of the line
	order  int   // rank of its first store among all lines
	event  int   // index of its first store's event; lines of one event are grouped
	stores []pstore
}

type pstore struct {
	nt      bool
	tid     int    // id of the storing thread
	site    string // code line that stored
	mask    uint64 // bytes of the line that the store wrote, one bit each
	data    line
	flushed []int // threads that flushed the line after this store
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

// store splits the store event e, which has index ev in the log, into pending stores of single
// lines.
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

// fence makes durable all stores that thread tid flushed or stored non-temporally.
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
					p.stores[j].mask &^= s.mask // overwritten by the later store
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

// apply copies the store's bytes that are in mask to l.
func (s *pstore) apply(l *line, mask uint64) {
	for mask &= s.mask; mask != 0; mask &= mask - 1 {
		i := bits.TrailingZeros64(mask)
		l[i] = s.data[i]
	}
}

// newest returns the line's content with all its pending stores.
func (m *image) newest(p *pending) line {
	l := *m.at(p.off)
	for i := range p.stores {
		p.stores[i].apply(&l, ^uint64(0))
	}
	return l
}

// list returns the pending lines whose newest content differs from the durable content, or that
// have several stores, in order of their first store.
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

// word returns the mask of the aligned 8-byte word w (0 to 7) of a line.
func word(w int) uint64 { return 0xff << (8 * w) }

// partial returns the contents that a line can have on the media before all its stores are there,
// except the durable and the newest content. Ordinary stores are written back in order, so there is
// one content after each store, and within a store one after each 8-byte word. Any subset of the
// words of a non-temporal store may be there, in addition to the earlier stores. With every set,
// all subsets are returned; else each word alone, and all words but one.
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

// subset returns the byte mask of those 8-byte words of a line whose bits are set in words.
func subset(words int) (mask uint64) {
	for w := range 8 {
		if words&(1<<w) != 0 {
			mask |= word(w)
		}
	}
	return mask
}

// torn returns a random content of a line: a prefix of its ordinary stores, and any subset of the
// words of its non-temporal stores.
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

// rnd is a small seeded generator (splitmix64), so that a state can be reproduced.
type rnd uint64

func (r *rnd) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (r *rnd) n(n int) int { return int(r.next() % uint64(n)) }
