package refcnt

import (
	"slices"
	"sync"
	"sync/atomic"
)

// leases are the blocks that programs outside of the daemon map. A lease is held on blocks and not
// on folios: folios are split and merged under it, and of a large folio that nobody owns any more
// only the blocks that are leased stay.
//
// A leased block that has neither owner nor reference is pinned: it is not reported as free before
// its last lease ends.
type leases struct {
	count  atomic.Int64 // of segments; zero nearly always
	pinned atomic.Int64 // blocks

	mu       sync.Mutex
	segments []segment // protected by mu: in ascending order, disjoint, neighbours differ
}

// segment is a run of blocks with the same leases.
type segment struct {
	block, n uint64
	holders  uint64 // leases of each block; at least 1
	pinned   bool   // each block is free but for its leases
}

func (s *segment) end() uint64 { return s.block + s.n }

// joins reports whether b, which follows a, can be one segment with it.
func (a *segment) joins(b *segment) bool {
	return a.end() == b.block && a.holders == b.holders && a.pinned == b.pinned
}

// Lease adds a lease of n blocks from block on. Until Unlease has ended it, no block of the range
// is reported as free, whatever becomes of its owners, references and folio. A block may have any
// number of leases.
//
// Precondition: the caller keeps an owner of the blocks from leaving meanwhile.
func (t *Table) Lease(block, n uint64) {
	t.check("lease", block, n)
	l := &t.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change(block, n, func(s *segment) { s.holders++ }, true)
}

// LeaseFound is Lease for blocks that a mount finds leased, and that have an owner or not. It calls
// free for each run of blocks that have none, which the caller keeps from being allocated: they are
// pinned.
//
// Precondition: no other goroutine uses the table.
func (t *Table) LeaseFound(block, n uint64, free func(block, n uint64)) {
	t.Lease(block, n)
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		stop := min(end, f.end())
		if f.w.Load()&shareMask == 0 {
			t.leases.pin(at, stop-at, func(b, k uint64, leased, news bool) {
				if news {
					free(b, k)
				}
			})
		}
		at = stop
	}
}

// Unlease ends a lease of n blocks from block on. It calls idle, as Put does, for each run of
// blocks that are free now.
//
// Precondition: Lease or LeaseFound added a lease of each of the blocks.
func (t *Table) Unlease(block, n uint64, idle func(block, n uint64)) {
	t.check("unlease", block, n)
	var freed []run
	l := &t.leases
	l.mu.Lock()
	l.change(block, n, func(s *segment) {
		if s.holders--; s.holders == 0 && s.pinned {
			freed = append(freed, run{s.block, s.n})
			l.pinned.Add(-int64(s.n))
		}
	}, false)
	l.mu.Unlock()
	r := idleRun{t: t, op: "unlease", idle: idle}
	for _, u := range freed {
		r.late += u.n
		r.join(u.block, u.n)
	}
	r.report()
	if r.late > 0 {
		t.released.Add(r.late)
	}
}

// Leased reports whether any of n blocks from block on has a lease.
func (t *Table) Leased(block, n uint64) bool {
	l := &t.leases
	if l.count.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.at(block)
	return i < len(l.segments) && l.segments[i].block < block+n
}

// at returns the index of the first segment that ends behind a block. Called with mu held.
func (l *leases) at(block uint64) int {
	i, _ := slices.BinarySearchFunc(l.segments, block, func(s segment, block uint64) int {
		if s.end() <= block {
			return -1
		}
		return 1
	})
	return i
}

// change calls f for each segment of a range of blocks, cut to it. With add, blocks in no segment
// are made one without holders before; else there must be none. Called with mu held.
func (l *leases) change(block, n uint64, f func(s *segment), add bool) {
	if n == 0 {
		return
	}
	lo, at, end := l.at(block), block, block+n
	hi := lo
	var now []segment
	put := func(s segment) {
		if k := len(now) - 1; k >= 0 && now[k].joins(&s) {
			now[k].n += s.n
		} else if s.n > 0 && s.holders > 0 {
			now = append(now, s)
		}
	}
	if lo > 0 { // it may join
		lo--
		put(l.segments[lo])
	}
	hole := func(to uint64) {
		if at == to {
			return
		}
		if !add {
			misuse("unlease of what is not leased", at, 0)
		}
		s := segment{block: at, n: to - at}
		f(&s)
		put(s)
	}
	for ; hi < len(l.segments) && l.segments[hi].block < end; hi++ {
		s := l.segments[hi]
		if s.block < at { // begins before the range
			before := s
			before.n = at - s.block
			put(before)
			s.n -= before.n
			s.block = at
		}
		hole(s.block)
		after := s
		if s.end() > end {
			s.n = end - s.block
		}
		after.block, after.n = s.end(), after.n-s.n
		at = s.end()
		f(&s)
		put(s)
		put(after)
	}
	hole(end)
	if hi < len(l.segments) { // it may join
		put(l.segments[hi])
		hi++
	}
	l.segments = slices.Replace(l.segments, lo, hi, now...)
	l.count.Store(int64(len(l.segments)))
}

// pin pins what is leased of n blocks that are otherwise free, and calls f for each part of them:
// whether it is leased, and whether it was not pinned before.
func (l *leases) pin(block, n uint64, f func(block, n uint64, leased, news bool)) {
	var parts []segment // of the range, with holes
	l.mu.Lock()
	at, end := block, block+n
	for i := l.at(block); i < len(l.segments) && l.segments[i].block < end; i++ {
		s := l.segments[i]
		if s.block > at {
			parts = append(parts, segment{block: at, n: s.block - at})
		}
		from, to := max(s.block, at), min(s.end(), end)
		parts = append(parts, segment{block: from, n: to - from, holders: s.holders, pinned: s.pinned})
		at = to
	}
	if at < end {
		parts = append(parts, segment{block: at, n: end - at})
	}
	for _, s := range parts {
		if s.holders > 0 && !s.pinned {
			l.change(s.block, s.n, func(s *segment) { s.pinned = true }, false)
			l.pinned.Add(int64(s.n))
		}
	}
	l.mu.Unlock()
	for _, s := range parts {
		f(s.block, s.n, s.holders > 0, !s.pinned)
	}
}
