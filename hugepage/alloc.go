package hugepage

import (
	"fmt"
	"math/bits"
)

// stoop bounds how much shorter than wanted a run in a partial PMD block may be, as log2: down to a
// quarter. If there is no such run, a free PMD block is used instead.
const stoop = 2

// Alloc allocates one run of 1 to want blocks and returns it. ok is false if no block is available,
// or want is 0. In this order it takes
//
//  1. the free blocks from block goal on in a partial PMD block, which extend the caller's extent
//     in place (goal 0: no goal);
//  2. for a request of a PMD block or more: free PMD blocks, as Reservation does;
//  3. a run in a partial PMD block, of the shortest class that surely has want blocks in a row, or
//     else of a class down to a quarter of want; then a run in a free PMD block of the fullest PUD
//     block; then a run of the longest class there is.
//
// Among equals the lowest address wins. It leaves the last SetReserve free PMD blocks to
// AllocChunk. It takes what reservations keep only when there is no other space. The caller asks
// again for the rest, with the end of the run as its goal.
func (a *Allocator) Alloc(goal, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	if goal != 0 && goal < a.blocks {
		block, n = goal, a.inPartial(goal, want)
	}
	for n == 0 {
		if want >= a.orders.PMDBlocks() {
			block, n = a.large(want >> a.orders.PMD)
		}
		if n == 0 {
			block, n = a.small(want)
		}
		if n == 0 && !a.evict() && !a.emptyPoolsLocked() {
			return 0, 0, false
		}
	}
	a.take(block, n)
	return block, n, true
}

// AllocChunk allocates one free PMD block, for metadata: the lowest one of the fullest PUD block.
// It may use the reserve (SetReserve).
func (a *Allocator) AllocChunk() (block uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.takeFreePMD()
	for !ok {
		if !a.evict() && !a.emptyPoolsLocked() {
			return 0, false
		}
		p, ok = a.takeFreePMD()
	}
	block = p << a.orders.PMD
	a.take(block, a.orders.PMDBlocks())
	return block, true
}

// Reserve allocates exactly these n blocks, where mount found an extent. If one of them is
// allocated already or outside the region, it changes nothing and returns false.
func (a *Allocator) Reserve(block, n uint64) bool {
	if !a.inside(block, n) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	ok := a.allFree(block, n) || a.emptyPoolsLocked() && a.allFree(block, n)
	if ok && n != 0 {
		a.take(block, n)
	}
	return ok
}

// ReserveAll is Reserve of all runs that next returns, in ascending order and without overlap. It
// works a PMD block at a time, so it is many times as fast for short runs. If it returns false,
// some of them are reserved and others not. The allocator is locked meanwhile: next must not call
// it.
func (a *Allocator) ReserveAll(next func() (block, n uint64, ok bool)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
	size := a.orders.PMDBlocks()
	at, used := uint64(0), make([]uint64, a.store.words) // bits of the blocks to take in PMD block at
	for block, n, ok := next(); ok; block, n, ok = next() {
		if !a.inside(block, n) {
			return false
		}
		for n > 0 {
			p, from := block/size, block%size
			if p != at {
				if !a.reserveIn(at, used) {
					return false
				}
				clear(used)
				at = p
			}
			k := min(n, size-from)
			if k < size {
				setRun(used, from, k)
			} else {
				k = n &^ (size - 1)
				if !a.allFree(block, k) {
					return false
				}
				a.take(block, k)
			}
			block, n = block+k, n-k
		}
	}
	return a.reserveIn(at, used)
}

// reserveIn allocates the blocks of PMD block p whose bits are set in used. It returns false if one
// of them is not free.
func (a *Allocator) reserveIn(p uint64, used []uint64) bool {
	size := a.orders.PMDBlocks()
	n := uint64(0)
	for _, w := range used {
		n += uint64(bits.OnesCount64(w))
	}
	r := &a.pmds[p]
	if n == 0 || r.used != 0 || n == size {
		for from := uint64(0); from < size; {
			n := runFrom(used, from, size-from)
			if n > 0 && !a.allFree(p*size+from, n) {
				return false
			}
			if n > 0 {
				a.take(p*size+from, n)
			}
			from += n + 1
		}
		return true
	}
	a.clearFree(p, 1)
	a.breakUp(r, size, size)
	group := a.store.at(r.bits)
	for i, w := range used {
		group[i] &^= w
	}
	r.used = uint16(n)
	a.free.Add(-n)
	a.count(p*size, n, ^uint32(0))
	a.file(p, r, classOf(group, a.scratch[:len(group)]))
	return true
}

// Free frees a run of n blocks, which may be pieces of several allocations. It panics if one of
// them is free already or outside the region.
func (a *Allocator) Free(block, n uint64) {
	if !a.inside(block, n) {
		panic(fmt.Sprintf("hugepage: free of blocks %d to %d of a region of %d", block, block+n, a.blocks))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.giveChecked(block, n)
}

// giveChecked is Free with the mutex held. Called with mu held.
func (a *Allocator) giveChecked(block, n uint64) {
	if !a.allUsed(block, n) {
		for !a.allFree(block, 1) {
			block++
		}
		panic(fmt.Sprintf("hugepage: double free of block %d (%d of %d blocks used around it, %d free in all)",
			block, a.pmds[block>>a.orders.PMD].used, a.orders.PMDBlocks(), a.free.Load()))
	}
	if n != 0 {
		a.give(block, n)
	}
}

// IsFree reports whether every block of a run is free. Blocks outside the region are not free.
func (a *Allocator) IsFree(block, n uint64) bool {
	if !a.inside(block, n) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.allFree(block, n) || a.emptyPoolsLocked() && a.allFree(block, n)
}

// Walk calls f for each maximal run of free blocks, in ascending order, until
// f returns false. The allocator is locked meanwhile: f must not call it.
func (a *Allocator) Walk(f func(block, n uint64) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
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

// spare returns how many free PMD blocks Alloc may take, in whole or in part.
func (a *Allocator) spare() uint64 {
	if a.freePMDN <= a.reserve {
		return 0
	}
	return a.freePMDN - a.reserve
}

// freeFrom returns how many blocks of PMD block p are free in a row from its block from on, at most
// limit.
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

// extent returns how many of want blocks from a block on may be allocated in a row.
func (a *Allocator) extent(block, want uint64) uint64 {
	size, spare := a.orders.PMDBlocks(), a.spare()
	want = min(want, a.blocks-block)
	n := uint64(0)
	for n < want {
		p, from := (block+n)/size, (block+n)%size
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

// inPartial returns how many of want blocks from a block on are free in a row in its PMD block. It
// returns 0 if the PMD block is not partial, or a reservation keeps it.
func (a *Allocator) inPartial(block, want uint64) uint64 {
	size := a.orders.PMDBlocks()
	p, from := block/size, block%size
	if r := &a.pmds[p]; r.used == 0 || r.kept {
		return 0
	}
	return a.freeFrom(p, from, min(size-from, want))
}

// large returns a run of up to count free PMD blocks, in blocks; n is 0 if there is none. The run
// lies in one PUD block, or is longer if it begins with free PUD blocks. It takes the fullest PUD
// block that has enough of them, or else the emptiest one. So full PUD blocks get full, and the
// others stay free.
func (a *Allocator) large(count uint64) (block, n uint64) {
	count = min(count, a.spare())
	if count == 0 {
		return 0, 0
	}
	c, ok := a.counts.next(min(count, a.span))
	if !ok {
		c, ok = a.counts.last()
	}
	if !ok {
		return 0, 0
	}
	u, _ := a.clumps[c].next(0)
	if c == a.span {
		k := min(count, a.span)
		for k+a.span <= count && a.clumps[c].has(u+k/a.span) {
			k += a.span
		}
		return u << a.orders.PUD, k << a.orders.PMD
	}
	group := a.clump(u)
	at, k := a.runIn(group, classOf(group, a.scratch[:len(group)]), count)
	return (u*a.span + at) << a.orders.PMD, k << a.orders.PMD
}

// small returns a run of up to want blocks within one PMD block; n is 0 if there is none.
func (a *Allocator) small(want uint64) (block, n uint64) {
	want = min(want, a.orders.PMDBlocks())
	p, ok := fit(a.partial, want)
	if !ok && a.spare() > 0 {
		if p, ok = a.takeFreePMD(); ok {
			return p << a.orders.PMD, want
		}
	}
	if !ok {
		p, ok = longest(a.partial)
	}
	if !ok {
		return 0, 0
	}
	r := &a.pmds[p]
	at, k := a.runIn(a.store.at(r.bits), r.class, want)
	return p<<a.orders.PMD + at, k
}

// takeFreePMD returns the lowest free PMD block of the fullest PUD block that no reservation keeps.
func (a *Allocator) takeFreePMD() (p uint64, ok bool) {
	c, ok := a.counts.next(1)
	if !ok {
		return 0, false
	}
	u, _ := a.clumps[c].next(0)
	at, _ := findRun(a.clump(u), a.scratch[:wordsOf(a.span)], 1)
	return u*a.span + at, true
}

// runIn returns the lowest run of want children in a group of that class. If there is none, it
// returns the lowest run as long as the class promises.
func (a *Allocator) runIn(group []uint64, class int8, want uint64) (at, n uint64) {
	scratch := a.scratch[:len(group)]
	if at, ok := findRun(group, scratch, want); ok {
		return at, want
	}
	at, _ = findRun(group, scratch, 1<<class)
	return at, runFrom(group, at, want)
}

// fit returns a group for a run of want children: of the lowest class that surely has such a run,
// else of the classes down to a quarter of want.
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
