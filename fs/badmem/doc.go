// Package badmem knows the memory of a region that cannot be read.
//
// # What it owns
//
// The bad-range list on media (layout.BadRange), which outlasts a mount, the list in DRAM, which
// also has what the kernel knew at the mount and what faulted since, and the probing of blocks
// after a fault. It never allocates or frees a block, and never decides what happens to a file.
//
// # Types
//
//   - List: the bad ranges of a mounted filesystem.
//   - Range: a run of blocks.
//
// # States of a bad block
//
//	owned    a file has it: reading it is EIO and touches nothing; a write that covers it goes to
//	         a new block
//	offline  its last owner gave it back, or it was free when it was found: it is never allocated
//
// The user of the package makes that transition, and counts it here (Offline).
//
// # Lock order
//
// List.mu is a leaf. Queries take no lock: the hot path's Has and SameState read one pointer, and
// allocate nothing (TestQueryAllocs).
package badmem
