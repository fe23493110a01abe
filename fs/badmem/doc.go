// Package badmem keeps track of the memory of a region that cannot be read.
//
// # What it owns
//
// The package owns the bad-range list on media (layout.BadRange), which survives unmounts, and the
// list in DRAM. The latter also contains the ranges that the kernel listed at the mount and those
// that faulted since. The package also probes blocks after a fault. It never allocates or frees a
// block, and never decides what happens to a file.
//
// # Types
//
//   - List: the bad ranges of a mounted filesystem.
//   - Range: a run of blocks.
//
// # States of a bad block
//
//	owned    it belongs to a file: reads fail with EIO and do not touch it; a write that covers it
//	         goes to a new block
//	offline  its last owner freed it, or it was free when it was found: never allocated
//
// The user of the package makes the transition from owned to offline, and counts offline blocks
// here (Offline).
//
// # Lock order
//
// List.mu is a leaf. Queries take no lock. The queries of the hot path, Has and SameState, read one
// pointer and allocate nothing (TestQueryAllocs).
package badmem
