// Package pagecache is one file's address space: which block of the region
// holds each block of the file. There are no copies in it and no data: its
// entries point into the region.
//
// It owns the extents of a file in memory and nothing else. It never reads or
// writes the region, never takes references, never allocates blocks and never
// merges extents: an extent has a slot on media, so its caller decides. Blocks
// are 4 KiB, of the file (logical) and of the region.
//
// # Types
//
//	Extent  a run of file blocks and the run of region blocks that holds it
//	Space   the extents of one file; the zero value is an empty file
//	Layout  who relies on where they are (granted mappings), and how that is broken
//
// A Space is 64 bytes and keeps up to two extents in itself; from three on
// they are in a B+tree.
//
// # Concurrency
//
// Changes are serialised by the caller, with the inode's lock. Readers hold
// nothing: Lookup may run at any time and returns an extent as it was at
// some moment of the call. A reader that acts on what it found does
//
//	seq := s.Seq()
//	e, ok := s.Lookup(logical)
//	... table.TryGet(e.Block+..., n) ...
//	if !s.Valid(seq) { put; start again }
//
// and after a few vain rounds takes the inode's lock instead, under which
// Lookup alone is enough.
//
// The tree is guarded by a sequence lock. Its nodes are made of atomic words
// and pointers, so that a reader that races with a change reads old or new
// words but never outside a node; it learns from the sequence that they did
// not belong together, and reads again. That also makes it harmless when a
// node is recycled for another file under a reader's eyes: leaving its first
// tree was a change there.
//
// # Lock order
//
// A Space has no locks. A change waits for nobody; Lookup waits for a change of one extent
// to end, which is a few stores. Layout.mu is a leaf.
//
// # Hot path
//
// Translate, Lookup, Seq, Valid and Update. TestHotPathAllocatesNothing proves that they
// allocate nothing, BenchmarkLookup and BenchmarkAppend what they cost.
package pagecache
