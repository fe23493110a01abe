package hugepage

import "github.com/daxfsd/daxfsd/internal/invariants"

// This file moves PMD and PUD blocks between their states. All functions are called with
// Allocator.mu held. Their callers have checked that the blocks to take are free, and the blocks to
// give are allocated.

// freePiece frees n allocated blocks from block from of PMD block p.
func (a *Allocator) freePiece(p, from, n uint64) {
	size := a.orders.PMDBlocks()
	r := &a.pmds[p]
	r.used -= uint16(n)
	if r.used == 0 {
		if r.bits != 0 {
			a.mend(p, r)
		}
		a.setFree(p, 1)
		return
	}
	if r.bits == 0 {
		a.breakUp(r, size, 0)
	}
	group := a.store.at(r.bits)
	setRun(group, from, n)
	a.file(p, r, grown(group, r.class, from, n))
}

// takePiece allocates n free blocks from block from of PMD block p.
func (a *Allocator) takePiece(p, from, n uint64) {
	size := a.orders.PMDBlocks()
	r := &a.pmds[p]
	if r.used == 0 {
		a.clearFree(p, 1)
		if n == size {
			r.used = uint16(size)
			return
		}
		a.breakUp(r, size, size)
	}
	r.used += uint16(n)
	if uint64(r.used) == size {
		a.mend(p, r)
		return
	}
	group := a.store.at(r.bits)
	clearRun(group, from, n)
	class := r.class
	if class == none { // it was free
		class = log2(max(from, size-from-n))
	} else {
		class = shrunk(group, a.scratch[:len(group)], class, from, n)
	}
	a.file(p, r, class)
}

// breakUp makes a PMD block partial: it gives the block bits, of which the first free are set. size
// is the blocks of a PMD block.
func (a *Allocator) breakUp(r *pmd, size, free uint64) {
	r.bits = a.store.get()
	r.class = none
	a.partialN++
	group := a.store.at(r.bits)
	clear(group)
	setRun(group, 0, free)
}

// mend takes the bits from a PMD block that is free or full now, and ends its reservation.
func (a *Allocator) mend(p uint64, r *pmd) {
	if r.class != none && !r.kept {
		a.partial[r.class].clear(p)
	}
	a.store.put(r.bits)
	r.bits, r.kept = 0, false
	a.partialN--
}

// file puts a partial PMD block into the set of its new class.
func (a *Allocator) file(p uint64, r *pmd, class int8) {
	if class == r.class {
		return
	}
	if !r.kept {
		if r.class != none {
			a.partial[r.class].clear(p)
		}
		a.partial[class].set(p)
	}
	r.class = class
}

// clump returns the group of PUD block u: the bits of its free PMD blocks.
func (a *Allocator) clump(u uint64) []uint64 {
	w := wordsOf(a.span)
	return a.freePMDBits[u*w : (u+1)*w]
}

// setFree records that n PMD blocks from p on, all in one PUD block, have become free.
func (a *Allocator) setFree(p, n uint64) {
	u, from := p/a.span, p%a.span
	setRun(a.clump(u), from, n)
	a.freePMDN += n
	a.fileClump(u, a.puds[u].freePMDs+uint16(n))
}

// clearFree records that n PMD blocks from p on, all in one PUD block, are no longer free.
func (a *Allocator) clearFree(p, n uint64) {
	u, from := p/a.span, p%a.span
	clearRun(a.clump(u), from, n)
	a.freePMDN -= n
	a.fileClump(u, a.puds[u].freePMDs-uint16(n))
}

// fileClump puts a PUD block into the set of its new number of free PMD blocks.
func (a *Allocator) fileClump(u uint64, freePMDs uint16) {
	r := &a.puds[u]
	if !r.kept {
		a.unfile(u)
	}
	if uint64(r.freePMDs) == a.span {
		a.giants--
	}
	r.freePMDs = freePMDs
	if uint64(freePMDs) == a.span {
		a.giants++
	}
	if !r.kept {
		a.refile(u)
	}
}

// unfile takes a PUD block out of its set in clumps.
func (a *Allocator) unfile(u uint64) {
	if n := a.puds[u].freePMDs; n != 0 {
		a.clumps[n].clear(u)
		if a.clumps[n].empty() {
			a.counts.clear(uint64(n))
		}
	}
}

// refile puts a PUD block back into its set in clumps.
func (a *Allocator) refile(u uint64) {
	if n := a.puds[u].freePMDs; n != 0 {
		a.clumps[n].set(u)
		a.counts.set(uint64(n))
	}
}

// take allocates a run of free blocks.
func (a *Allocator) take(block, n uint64) {
	a.free.Add(-n)
	a.count(block, n, ^uint32(0))
	size := a.orders.PMDBlocks()
	for n > 0 {
		p, from := block/size, block%size
		k := min(n, size-from)
		if k < size {
			a.takePiece(p, from, k)
		} else {
			m := min(n/size, a.span-p%a.span)
			for i := range a.pmds[p : p+m] {
				a.pmds[p+uint64(i)].used = uint16(size)
			}
			a.clearFree(p, m)
			k = m * size
		}
		block, n = block+k, n-k
	}
}

// give frees a run of allocated blocks.
func (a *Allocator) give(block, n uint64) {
	a.free.Add(n)
	a.count(block, n, 1)
	size := a.orders.PMDBlocks()
	for n > 0 {
		p, from := block/size, block%size
		k := min(n, size-from)
		if k < size {
			a.freePiece(p, from, k)
		} else {
			m := min(n/size, a.span-p%a.span)
			for i := range a.pmds[p : p+m] {
				a.pmds[p+uint64(i)].used = 0
			}
			a.setFree(p, m)
			k = m * size
		}
		block, n = block+k, n-k
	}
}

// count adds n times sign to the number of free blocks in the PUD blocks of the run.
func (a *Allocator) count(block, n uint64, sign uint32) {
	for n > 0 {
		k := min(n, a.orders.PUDBlocks()-block&(a.orders.PUDBlocks()-1))
		a.puds[block>>a.orders.PUD].free += uint32(k) * sign
		block, n = block+k, n-k
	}
}

// allFree reports whether every block of a run is free.
func (a *Allocator) allFree(block, n uint64) bool {
	size := a.orders.PMDBlocks()
	for n > 0 {
		k := min(n, size-block%size)
		if !a.pieceFree(block/size, block%size, k) {
			return false
		}
		block, n = block+k, n-k
	}
	return true
}

// allUsed reports whether every block of a run is allocated.
func (a *Allocator) allUsed(block, n uint64) bool {
	size := a.orders.PMDBlocks()
	for n > 0 {
		k := min(n, size-block%size)
		if !a.pieceUsed(block/size, block%size, k) {
			return false
		}
		block, n = block+k, n-k
	}
	return true
}

// pieceFree reports whether n blocks of PMD block p, from its block from on, are free.
func (a *Allocator) pieceFree(p, from, n uint64) bool {
	r := &a.pmds[p]
	if r.used == 0 {
		return true
	}
	return r.bits != 0 && allSet(a.store.at(r.bits), from, n)
}

// pieceUsed reports whether n blocks of PMD block p, from its block from on, are allocated.
func (a *Allocator) pieceUsed(p, from, n uint64) bool {
	r := &a.pmds[p]
	if r.used == 0 {
		return false
	}
	return r.bits == 0 || !anySet(a.store.at(r.bits), from, n)
}

// bitStore holds the bits of the partial PMD blocks, in slabs that are never moved or freed.
type bitStore struct {
	words uint64 // words of bits for each PMD block
	slabs [][]uint64
	used  uint32 // handles handed out so far
	spare uint32 // latest handle put back, whose first word of bits is the one before; 0: none
}

const slabOrder = 10 // log2 of PMD blocks in a slab

// at returns the bits with that handle.
func (s *bitStore) at(handle uint32) []uint64 {
	i := uint64(handle - 1)
	at := i & (1<<slabOrder - 1) * s.words
	return s.slabs[i>>slabOrder][at : at+s.words : at+s.words]
}

// get returns a handle to bits of unspecified content.
func (s *bitStore) get() uint32 {
	if h := s.spare; h != 0 {
		s.spare = uint32(s.at(h)[0])
		return h
	}
	if s.used&(1<<slabOrder-1) == 0 {
		s.slabs = append(s.slabs, make([]uint64, s.words<<slabOrder))
	}
	s.used++
	return s.used
}

func (s *bitStore) put(handle uint32) {
	bits := s.at(handle)
	if invariants.Enabled {
		for i := range bits {
			bits[i] = 0xdead
		}
	}
	bits[0] = uint64(s.spare)
	s.spare = handle
}
