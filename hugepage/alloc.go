package hugepage

import (
	"fmt"
	"math/bits"
)

// stoop is how much shorter than wanted a run in space already broken may be
// before a whole PMD or PUD block is broken instead: as log2, so a quarter.
const stoop = 2

// Alloc allocates one run of 1 to want blocks and returns it; ok is false if
// nothing may be had, or want is 0. In this order it takes
//
//  1. what is free from block goal on, which extends the caller's extent in
//     place (goal 0: no wish);
//  2. for a PMD block or more: whole PMD blocks, as many as want covers, and
//     whole PUD blocks where want covers one; in broken PUD blocks if it is
//     less than one;
//  3. a run in a broken PMD block, the shortest class that has want blocks in
//     a row, or up to a quarter of want; then from a whole PMD block, in a
//     broken PUD block first; then the longest class there is.
//
// Among equals the lowest address wins. It leaves the last SetReserve whole
// PMD blocks alone. The caller asks again for the rest, with the end of the
// run as its goal.
func (a *Allocator) Alloc(goal, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	a.mu.Lock()
	if goal != 0 && goal < a.blocks {
		block, n = goal, a.extent(goal, want)
	}
	if n == 0 && want >= a.orders.PMDBlocks() {
		block, n = a.large(want)
	}
	if n == 0 {
		block, n = a.small(want)
	}
	if n != 0 {
		a.take(block, n)
	}
	a.mu.Unlock()
	return block, n, n != 0
}

// AllocChunk allocates one whole PMD block, for metadata. It may use the
// reserve, prefers broken PUD blocks, and takes the lowest address.
func (a *Allocator) AllocChunk() (block uint64, ok bool) {
	a.mu.Lock()
	p, ok := a.lowestWhole()
	if ok {
		block = p << a.orders.PMD
		a.take(block, a.orders.PMDBlocks())
	}
	a.mu.Unlock()
	return block, ok
}

// Reserve allocates exactly these blocks (mount found an extent there). It
// changes nothing and returns false if one of them was allocated already or
// lies outside the region.
func (a *Allocator) Reserve(block, n uint64) bool {
	if !a.inside(block, n) {
		return false
	}
	a.mu.Lock()
	ok := a.allFree(block, n)
	if ok && n != 0 {
		a.take(block, n)
	}
	a.mu.Unlock()
	return ok
}

// Free gives a run of blocks back, of any pieces of one or more allocations.
// It panics if one of them is free already or outside the region.
func (a *Allocator) Free(block, n uint64) {
	if !a.inside(block, n) {
		panic(fmt.Sprintf("hugepage: free of blocks %d to %d of a region of %d", block, block+n, a.blocks))
	}
	a.mu.Lock()
	if !a.allUsed(block, n) {
		for !a.allFree(block, 1) {
			block++
		}
		r, free := a.pmds[block>>a.orders.PMD], a.free.Load()
		a.mu.Unlock()
		panic(fmt.Sprintf("hugepage: double free of block %d (%d of %d blocks used around it, %d free in all)",
			block, r.used, a.orders.PMDBlocks(), free))
	}
	if n != 0 {
		a.give(block, n)
	}
	a.mu.Unlock()
}

// IsFree reports whether every block of a run is free. Blocks outside the
// region are not.
func (a *Allocator) IsFree(block, n uint64) bool {
	if !a.inside(block, n) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.allFree(block, n)
}

// Walk calls f for each maximal run of free blocks, in ascending order, until
// f returns false. The allocator is locked meanwhile: f must not call it.
func (a *Allocator) Walk(f func(block, n uint64) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	size := a.orders.PMDBlocks()
	start, n := uint64(0), uint64(0)
	for at := uint64(0); at < a.blocks; {
		p, from := at/size, at%size
		limit := min(size-from, a.blocks-at)
		k := a.freeFrom(p, from, limit)
		if n == 0 {
			start = at
		}
		n, at = n+k, at+k
		if k == limit {
			continue
		}
		if n != 0 && !f(start, n) {
			return
		}
		n, at = 0, at+1
		if a.pmds[p].bits == 0 {
			at = (p + 1) * size // full
		}
	}
	if n != 0 {
		f(start, n)
	}
}

func (a *Allocator) inside(block, n uint64) bool {
	return block <= a.blocks && n <= a.blocks-block
}

// spare returns how many whole PMD blocks Alloc may break or take.
func (a *Allocator) spare() uint64 {
	if a.wholeN <= a.reserve {
		return 0
	}
	return a.wholeN - a.reserve
}

// freeFrom returns how many blocks of PMD block p are free from from on, at
// most limit.
func (a *Allocator) freeFrom(p, from, limit uint64) uint64 {
	r := &a.pmds[p]
	switch {
	case r.used == 0:
		return limit
	case r.bits == 0:
		return 0
	default:
		return runFrom(a.store.at(r.bits), from, limit)
	}
}

// extent returns how many of want blocks from goal on Alloc may take.
func (a *Allocator) extent(goal, want uint64) uint64 {
	size, spare := a.orders.PMDBlocks(), a.spare()
	want = min(want, a.blocks-goal)
	n := uint64(0)
	for n < want {
		p, from := (goal+n)/size, (goal+n)%size
		if a.pmds[p].used == 0 {
			if spare == 0 {
				break
			}
			spare--
		}
		limit := min(size-from, want-n)
		k := a.freeFrom(p, from, limit)
		n += k
		if k < limit {
			break
		}
	}
	return n
}

// large returns a run of whole PMD blocks, or n = 0.
func (a *Allocator) large(want uint64) (block, n uint64) {
	count := min(want>>a.orders.PMD, a.spare())
	if count == 0 {
		return 0, 0
	}
	top := len(a.clumps) - 1
	if count >= a.span {
		if u, ok := a.clumps[top].next(0); ok {
			k := a.span
			for k+a.span <= count && a.clumps[top].has(u+k/a.span) {
				k += a.span
			}
			return u << a.orders.PUD, k << a.orders.PMD
		}
	}
	parts := a.clumps[:top]
	u, ok := fit(parts, count)
	if !ok {
		u, ok = a.clumps[top].next(0)
	}
	if !ok {
		u, ok = longest(parts)
	}
	if !ok {
		return 0, 0
	}
	at, k := a.runIn(a.clump(u), a.puds[u], count)
	return (u*a.span + at) << a.orders.PMD, k << a.orders.PMD
}

// small returns a run within one PMD block, or n = 0.
func (a *Allocator) small(want uint64) (block, n uint64) {
	want = min(want, a.orders.PMDBlocks())
	p, ok := fit(a.broken, want)
	if !ok && a.spare() > 0 {
		if p, ok = a.lowestWhole(); ok {
			return p << a.orders.PMD, want
		}
	}
	if !ok {
		p, ok = longest(a.broken)
	}
	if !ok {
		return 0, 0
	}
	r := &a.pmds[p]
	at, k := a.runIn(a.store.at(r.bits), r.class, want)
	return p<<a.orders.PMD + at, k
}

// lowestWhole returns the lowest whole PMD block in a broken PUD block, or
// else in a whole one.
func (a *Allocator) lowestWhole() (p uint64, ok bool) {
	top := len(a.clumps) - 1
	best := uint64(0)
	for c := range a.clumps[:top] {
		if u, found := a.clumps[c].next(0); found && (!ok || u < best) {
			best, ok = u, true
		}
	}
	if !ok {
		best, ok = a.clumps[top].next(0)
	}
	if !ok {
		return 0, false
	}
	at, _ := findRun(a.clump(best), a.scratch[:wordsOf(a.span)], 1)
	return best*a.span + at, true
}

// runIn returns the lowest run of want children in a group of that class, or if
// there is none, the lowest run as long as the class promises.
func (a *Allocator) runIn(group []uint64, class int8, want uint64) (at, n uint64) {
	scratch := a.scratch[:len(group)]
	if at, ok := findRun(group, scratch, want); ok {
		return at, want
	}
	at, _ = findRun(group, scratch, 1<<class)
	return at, runFrom(group, at, want)
}

// fit returns a group for a run of want children: the lowest class that surely
// has one, then the classes that have a good part of it.
func fit(sets []bitset, want uint64) (uint64, bool) {
	sure := bits.Len64(want - 1)
	for c := sure; c < len(sets); c++ {
		if g, ok := sets[c].next(0); ok {
			return g, true
		}
	}
	for c := min(sure, len(sets)) - 1; c >= max(sure-stoop, 0); c-- {
		if g, ok := sets[c].next(0); ok {
			return g, true
		}
	}
	return 0, false
}

// longest returns a group of the highest class there is.
func longest(sets []bitset) (uint64, bool) {
	for c := len(sets) - 1; c >= 0; c-- {
		if g, ok := sets[c].next(0); ok {
			return g, true
		}
	}
	return 0, false
}
