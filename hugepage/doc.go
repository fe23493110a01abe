// Package hugepage allocates blocks of the region. It knows the folio orders, alignment, and which
// blocks are free.
//
// It owns the map of free blocks, in memory only: mount rebuilds it from the extents with Reserve.
// It never touches the region or the folio table, and never decides by itself to move anything. A
// block is 4 KiB, numbered from the start of the region.
//
// Its aim is to keep aligned blocks free as a whole. Large requests get free PMD blocks (2 MiB) and
// PUD blocks (1 GiB). Small requests are packed into partial PMD blocks. A PMD block whose last
// used block is freed is a free PMD block again at once.
//
// # Types
//
//	Orders     log2 of the PMD and PUD sizes in blocks; tests make them small
//	Allocator  the free space of one region
//	Stats      free blocks by order
//	Sparse     a partial PMD block with few used blocks
//
// # Where a request goes
//
//	Reservation, Extend  space for a growing file, see reservations: free PMD blocks of the
//	                     fullest PUD block that has room; for a PUD reservation the emptiest one
//	Alloc, AllocFrom     small runs: partial PMD blocks, best fit
//	AllocChunk           a PMD block for metadata
//	Reserve, Keep, Pack  for mount and compaction
//
// # Structure
//
// There are two levels of groups. A group of level one is a PMD block, and its bits are blocks. A
// group of level two is a PUD block, and its bits are its free PMD blocks. A partial PMD block has
// a class: the floor of log2 of its longest free run in blocks. There is a set of PMD blocks for
// each class, and a set of PUD blocks for each number of free PMD blocks in them. All sets have
// summaries above them (bitset). So "the lowest partial PMD block that surely has 5 free blocks in
// a row", or "the fullest PUD block with 3 free PMD blocks", is the first member of the first
// non-empty set from there on. It is found in a few steps in a region of any size. Bits of level
// one exist only for partial PMD blocks. A block that a reservation keeps is in no set, so no other
// request finds it until the reservation is dropped. Memory: under 8 MiB per TiB, and 64 bytes per
// partial PMD block.
//
// The same sequence of calls always gives the same answers: nothing depends on randomness, or on
// any time but the number of allocations.
//
// # Lock order
//
// Allocator.mu protects everything but the pools. A pool's mu may be taken while Allocator.mu is
// held (see emptyPoolsLocked). Both are leaves otherwise: nothing is called with them held.
// Operations under them take a few hundred nanoseconds, and touch one group of each level.
//
// # Hot path
//
// AllocFrom and FreeTo of small runs. TestSteadyStateAllocatesNothing proves that they allocate
// nothing. BenchmarkAllocFree and bench.BenchmarkAlloc measure them, alone and on several threads.
package hugepage
