package hugepage

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// none is the class of a group without a free child.
const none = int8(-1)

// The states of a PMD block and the calls that move it between them:
//
//	free     used = 0          Alloc, AllocChunk, Reserve -> partial or full
//	partial  0 < used < size   has bits and a class; Alloc, Reserve -> full;
//	                           Free -> free
//	full     used = size       Free -> partial or free
//
// A PMD block that the end of the region cuts off counts the missing blocks as used: it is never
// free. A PUD block is free when all its PMD blocks are.
//
// A reservation may keep a partial PMD block, see reservations: then the block is in no set of
// Allocator.partial.
type pmd struct {
	bits  uint32 // 1 + number of its bits in the store; 0: free or full, no bits
	stamp uint32 // reservations.clock when its reservation last grew
	used  uint16 // blocks
	class int8   // of its free blocks; valid while partial
	kept  bool   // by a reservation
}

// pud is a PUD block. While a reservation keeps it, it is in no set of Allocator.clumps.
type pud struct {
	free     uint32 // free blocks
	stamp    uint32 // reservations.clock when its reservation last grew
	freePMDs uint16 // free PMD blocks
	kept     bool   // by a reservation
}

// Allocator keeps the free space of a region. Its methods may be called concurrently.
type Allocator struct {
	// immutable
	orders Orders
	blocks uint64 // blocks of the region
	span   uint64 // PMD blocks per PUD block

	free  atomic.Uint64 // free blocks outside the pools; written under mu
	pools [pools]pool

	mu sync.Mutex
	// protected by mu
	pmds     []pmd
	partial  []bitset // sets of partial PMD blocks, by class 0 to PMD-1
	store    bitStore // the bits of partial PMD blocks
	partialN uint64   // partial PMD blocks, kept ones included

	freePMDBits []uint64 // bits of level two: a group for each PUD block
	puds        []pud
	clumps      []bitset // sets of PUD blocks, by their number of free PMD blocks
	counts      bitset   // numbers of free PMD blocks whose set in clumps is not empty
	freePMDN    uint64   // free PMD blocks
	giants      uint64   // free PUD blocks
	reserve     uint64   // free PMD blocks that Alloc leaves to AllocChunk

	reservations reservations // blocks kept for growing files

	scratch []uint64 // for one computation at a time
}

// Stats is where the free blocks are. All figures are in blocks, but for the last two.
type Stats struct {
	Blocks  uint64 // size of the region
	Free    uint64 // all free blocks
	Free4K  uint64 // free blocks in partial PMD blocks
	Free2M  uint64 // free blocks in free PMD blocks of partial PUD blocks
	Free1G  uint64 // free blocks in free PUD blocks
	Partial uint64 // partial PMD blocks
	Reserve uint64 // free PMD blocks that Alloc leaves to AllocChunk
}

// NewAllocator makes the allocator of a region of blocks blocks of 4 KiB, all of them free.
func NewAllocator(blocks uint64, o Orders) (*Allocator, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	const maxBlocks = 1 << 40
	if blocks == 0 || blocks > maxBlocks || blocks>>o.PMD > 1<<31 {
		return nil, fmt.Errorf("%w: %d", ErrSize, blocks)
	}
	a := &Allocator{orders: o, blocks: blocks, span: 1 << (o.PUD - o.PMD)}
	pmds := AlignUp(blocks, o.PMD) >> o.PMD
	puds := AlignUp(blocks, o.PUD) >> o.PUD
	a.pmds = make([]pmd, pmds)
	for range o.PMD {
		a.partial = append(a.partial, newBitset(pmds))
	}
	a.store.words = wordsOf(o.PMDBlocks())
	a.puds = make([]pud, puds)
	for u := range a.puds {
		a.puds[u].free = uint32(min(o.PUDBlocks(), blocks-uint64(u)<<o.PUD))
	}
	for range a.span + 1 {
		a.clumps = append(a.clumps, newBitset(puds))
	}
	a.counts = newBitset(a.span + 1)
	a.freePMDBits = make([]uint64, puds*wordsOf(a.span))
	a.scratch = make([]uint64, max(wordsOf(a.span), a.store.words))

	a.free.Store(blocks)
	freePMDs := blocks >> o.PMD
	for p := uint64(0); p < freePMDs; p += a.span {
		a.setFree(p, min(a.span, freePMDs-p))
	}
	if cut := blocks & (o.PMDBlocks() - 1); cut != 0 {
		a.pmds[freePMDs].used = uint16(o.PMDBlocks())
		a.freePiece(freePMDs, 0, cut)
	}
	return a, nil
}

func wordsOf(bits uint64) uint64 { return (bits + 63) / 64 }

// Orders returns the orders that the allocator was made with.
func (a *Allocator) Orders() Orders { return a.orders }

// Blocks returns the size of the region in blocks.
func (a *Allocator) Blocks() uint64 { return a.blocks }

// FreeBlocks returns the number of free blocks. It takes no lock.
func (a *Allocator) FreeBlocks() uint64 { return a.free.Load() + a.inPools() }

// FreePMDs returns the number of free PMD blocks.
func (a *Allocator) FreePMDs() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
	return a.freePMDN
}

// FreePUDs returns the number of free PUD blocks.
func (a *Allocator) FreePUDs() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
	return a.giants
}

// SetReserve sets how many free PMD blocks Alloc leaves to AllocChunk.
func (a *Allocator) SetReserve(chunks uint64) {
	a.mu.Lock()
	a.reserve = chunks
	a.mu.Unlock()
}

// Stats returns the allocator's figures.
func (a *Allocator) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.emptyPoolsLocked()
	s := Stats{
		Blocks:  a.blocks,
		Free:    a.free.Load(),
		Free1G:  a.giants << a.orders.PUD,
		Partial: a.partialN,
		Reserve: a.reserve,
	}
	s.Free2M = a.freePMDN<<a.orders.PMD - s.Free1G
	s.Free4K = s.Free - s.Free2M - s.Free1G
	return s
}
