package refcnt

import (
	"slices"
	"sync"
	"sync/atomic"
)

// leases is the set of blocks that programs outside of the daemon map. A lease is held on blocks
// and not on folios: folios are split and merged while their blocks are leased. Of a large folio
// that has no owner left, only the leased blocks stay.
//
// A leased block that has neither owner nor reference is pinned: it is reported as free only when
// its last lease ends.
type leases struct {
	count  atomic.Int64 // segments; nearly always zero
	pinned atomic.Int64 // blocks pinned by all leases

	mu       sync.Mutex
	segments []segment // protected by mu: in ascending order, disjoint, neighbours differ
	scratch  []segment // protected by mu: empty, kept by changeLocked
}

// segment is a run of blocks with the same leases.
type segment struct {
	block, n uint64
	holders  uint64 // leases of each block; at least 1
	writers  uint64 // how many of these are to write
	pinned   bool   // its blocks would be free without their leases
}

func (s *segment) end() uint64 { return s.block + s.n }

// joins reports whether a and b, the segment after a, can be one segment.
func (a *segment) joins(b *segment) bool {
	return a.end() == b.block && a.holders == b.holders && a.writers == b.writers && a.pinned == b.pinned
}

// Lease adds a lease of n blocks from block on. Until Unlease has ended it, no block of the range
// is reported as free, whatever happens to its owners, references and folio. A block may have any
// number of leases. A writable lease also counts in LeasedToWrite.
//
// Precondition: the caller keeps an owner of the blocks from leaving meanwhile.
func (t *Table) Lease(block, n uint64, writable bool) {
	t.check("lease", block, n)
	l := &t.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changeLocked(block, n, func(part *segment) {
		part.holders++
		if writable {
			part.writers++
		}
	}, true)
}

// LeaseFound is a writable Lease of the blocks of a range that a mount finds leased. It leases
// those that have an owner, and those of the others that take takes from the allocator; these are
// pinned. take is called with n blocks that have no owner, and reports whether it has taken the
// first k, at least 1. leased is called with each run that LeaseFound has leased.
//
// Precondition: no other goroutine uses the table.
func (t *Table) LeaseFound(block, n uint64, take func(block, n uint64) (k uint64, ok bool), leased func(block, n uint64)) {
	add := func(u run, pin bool) {
		if u.n == 0 {
			return
		}
		t.Lease(u.block, u.n, true)
		if pin {
			t.leases.pin(u.block, u.n, func(uint64, uint64, bool) {})
		}
		leased(u.block, u.n)
	}
	flush := func(u run, owned bool) {
		if owned {
			add(u, false)
			return
		}
		for u.n > 0 {
			k, ok := take(u.block, u.n)
			if ok {
				add(run{u.block, k}, true)
			}
			u.block, u.n = u.block+k, u.n-k
		}
	}
	same, owned := run{block: block}, false
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		stop := min(end, f.end())
		if now := f.w.Load()&shareMask != 0; now != owned {
			flush(same, owned)
			same, owned = run{block: at}, now
		}
		same.n += stop - at
		at = stop
	}
	flush(same, owned)
}

// Unlease ends a lease of n blocks from block on. It calls idle, as Put does, for each run of
// blocks that are free now.
//
// Precondition: Lease, or LeaseFound if the lease is writable, added a lease of each of the blocks.
func (t *Table) Unlease(block, n uint64, writable bool, idle func(block, n uint64)) {
	t.check("unlease", block, n)
	var freed []run
	l := &t.leases
	l.mu.Lock()
	l.changeLocked(block, n, func(part *segment) {
		if writable && part.writers == 0 || !writable && part.writers == part.holders {
			misuse("unlease of another kind of lease", part.block, 0)
		}
		if writable {
			part.writers--
		}
		if part.holders--; part.holders == 0 && part.pinned {
			freed = append(freed, run{part.block, part.n})
		}
	}, false)
	l.mu.Unlock()
	r := idleRun{t: t, op: "unlease", idle: idle}
	for _, u := range freed {
		r.leased += u.n
		r.join(u.block, u.n)
	}
	r.finish(true)
}

// LeasedDeferred returns how many blocks are not free only because they are leased.
func (t *Table) LeasedDeferred() uint64 { return uint64(t.leases.pinned.Load()) }

// LeasedBlocks returns how many blocks have a lease.
func (t *Table) LeasedBlocks() (n uint64) {
	l := &t.leases
	if l.count.Load() == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.segments {
		n += l.segments[i].n
	}
	return n
}

// Leased reports whether any of n blocks from block on has a lease.
func (t *Table) Leased(block, n uint64) bool {
	l := &t.leases
	if l.count.Load() == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.atLocked(block)
	return i < len(l.segments) && l.segments[i].block < block+n
}

// LeasedToWrite reports whether a block has a writable lease, and how many of the n blocks from it
// on have the same answer; at least 1. n is not zero.
func (t *Table) LeasedToWrite(block, n uint64) (same uint64, writable bool) {
	l := &t.leases
	if l.count.Load() == 0 {
		return n, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partsLocked(block, n, func(part segment) bool {
		if same == 0 {
			writable = part.writers > 0
		} else if writable != (part.writers > 0) {
			return false
		}
		same += part.n
		return true
	})
	return same, writable
}

// atLocked returns the index of the first segment that ends after a block. Called with mu held.
func (l *leases) atLocked(block uint64) int {
	i, _ := slices.BinarySearchFunc(l.segments, block, func(s segment, block uint64) int {
		if s.end() <= block {
			return -1
		}
		return 1
	})
	return i
}

// changeLocked calls f for each part of n blocks from block on that has the same leases, and keeps
// what f makes of the part. A part without leases is a broken precondition unless add is set. Then
// changeLocked joins neighbours, and drops parts without leases. Called with mu held.
func (l *leases) changeLocked(block, n uint64, f func(part *segment), add bool) {
	if n == 0 {
		return
	}
	end := block + n
	lo := l.atLocked(block)
	hi := lo
	for hi < len(l.segments) && l.segments[hi].block < end {
		hi++
	}
	now := slices.Grow(l.scratch, 2*(hi-lo)+5)
	put := func(part segment) {
		if last := len(now) - 1; last >= 0 && now[last].joins(&part) {
			now[last].n += part.n
		} else if part.holders > 0 {
			now = append(now, part)
		}
	}
	from, to := lo, hi // with the segments on either side of the range, which may join
	if lo > 0 {
		from--
		put(l.segments[from])
	}
	if lo < hi && l.segments[lo].block < block {
		before := l.segments[lo]
		before.n = block - before.block
		put(before)
	}
	l.partsLocked(block, n, func(part segment) bool {
		if part.holders == 0 && !add {
			misuse("unlease of what is not leased", part.block, 0)
		}
		f(&part)
		put(part)
		return true
	})
	if lo < hi && l.segments[hi-1].end() > end {
		after := l.segments[hi-1]
		after.block, after.n = end, after.end()-end
		put(after)
	}
	if hi < len(l.segments) {
		put(l.segments[hi])
		to++
	}
	l.segments = slices.Replace(l.segments, from, to, now...)
	l.scratch = now[:0]
	l.count.Store(int64(len(l.segments)))
}

// partsLocked calls f for each part of n blocks from block on that has the same leases, in
// ascending order and cut to the range, until f returns false. A part without leases has no
// holders. Called with mu held.
func (l *leases) partsLocked(block, n uint64, f func(part segment) bool) {
	at, end := block, block+n
	for i := l.atLocked(block); i < len(l.segments) && l.segments[i].block < end; i++ {
		part := l.segments[i]
		if part.block > at && !f(segment{block: at, n: part.block - at}) {
			return
		}
		from, to := max(part.block, at), min(part.end(), end)
		part.block, part.n = from, to-from
		if at = to; !f(part) {
			return
		}
	}
	if at < end {
		f(segment{block: at, n: end - at})
	}
}

// pin pins the leased blocks of n blocks that would otherwise be free. It calls f for each part of
// the range, and reports whether the part is leased.
func (l *leases) pin(block, n uint64, f func(block, n uint64, leased bool)) {
	var parts []segment
	l.mu.Lock()
	l.partsLocked(block, n, func(part segment) bool {
		parts = append(parts, part)
		return true
	})
	for _, part := range parts {
		if part.holders > 0 && !part.pinned {
			l.changeLocked(part.block, part.n, func(part *segment) { part.pinned = true }, false)
			l.pinned.Add(int64(part.n))
		}
	}
	l.mu.Unlock()
	for _, part := range parts {
		f(part.block, part.n, part.holders > 0)
	}
}
