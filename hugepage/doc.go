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
//
// # Structure
//
// Two levels of the same shape. A group of level one is a PMD block and its
// bits are blocks; a group of level two is a PUD block and its bits are the
// PMD blocks wholly free. Each group has a class, the floor of log2 of its
// longest free run, and each level has one bitmap of groups per class, with
// summaries above it (bitset). So "the lowest broken PMD block that surely has
// 5 free blocks in a row" is the first bit of the lowest non-empty class from 3
// up, found in a few steps in a region of any size. Bits of level one exist
// only for broken PMD blocks. Memory: under 5 MiB per TiB, and 64 bytes
// per broken 2 MiB.
//
// The same sequence of calls gives the same answers, always: there is no
// randomness, no clock and no per-thread state in it.
//
// # Lock order
//
// Allocator.mu protects all of it and is a leaf. Operations under it take
// a few hundred nanoseconds and touch one group of each level, so pools per
// thread can be put in front of it that take and return whole PMD blocks.
//
// # Hot path
//
// Alloc and Free of small runs. TestSteadyStateAllocatesNothing proves that
// they allocate nothing, BenchmarkAllocFree what they cost.
package hugepage
