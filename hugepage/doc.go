// Package hugepage knows the folio orders, alignment, and where free space is.
//
// It owns the map of free blocks, in memory only: mount rebuilds it from the
// extents with Reserve. It never touches the region or the folio table, and
// never decides to move anything by itself. A block is 4 KiB and is numbered
// from the start of the region.
//
// Its aim is that aligned space stays whole. Large requests get whole aligned
// PMD blocks (2 MiB) and PUD blocks (1 GiB); small ones are packed into PMD
// blocks that are broken already, and a freed neighbourhood that becomes whole
// is whole again at once.
//
// # Types
//
//	Orders     log2 of the PMD and PUD sizes; tests make them small
//	Allocator  the free space of one region
//	Stats      free blocks by order
//	Sparse     a PMD block of which little is used
//
// # Where a request goes
//
//	Reservation, Extend  what a growing file fills, see reservations: free PMD blocks of the
//	                     fullest PUD block that has room; for a PUD reservation the emptiest one
//	Alloc, AllocFrom     small runs: partial PMD blocks, best fit
//	AllocChunk           a PMD block for metadata
//	Reserve, Keep, Pack  for mount and compaction
//
// # Structure
//
// Two levels. A group of level one is a PMD block and its bits are blocks; a group of level
// two is a PUD block and its bits are the PMD blocks wholly free. A partial PMD block has a
// class, the floor of log2 of its longest free run, and there is one bitmap of PMD blocks
// per class; there is one of PUD blocks for each number of free PMD blocks in them. All
// have summaries above them (bitset). So "the lowest partial PMD block that surely has 5
// free blocks in a row", or "the fullest PUD block with 3 free PMD blocks", is the first
// bit of the first non-empty set from there on, found in a few steps in a region of any
// size. Bits of level one exist only for partial PMD blocks. What a reservation keeps is in no set,
// so nobody finds it until it is let go. Memory: under 8 MiB per TiB, and 64 bytes per
// broken 2 MiB.
//
// The same sequence of calls gives the same answers, always: there is no randomness and no
// time in it but the number of allocations.
//
// # Lock order
//
// Allocator.mu protects all of it but the pools, then the mu of a pool (drain). Both are
// leaves: nothing is called with them held. Operations under them take a few hundred
// nanoseconds and touch one group of each level.
//
// # Hot path
//
// AllocFrom and FreeTo of small runs. TestSteadyStateAllocatesNothing proves that
// they allocate nothing, BenchmarkAllocFree and bench.BenchmarkAlloc what they cost, alone
// and on several threads.
package hugepage
