// Package pagecache is one file's address space: it maps each block of the file to the block of the
// region that holds it. It has no data and no copies: its entries point into the region.
//
// It owns the extents of a file in memory and nothing else. It never reads or writes the region,
// never takes references and never allocates blocks. It never merges extents either: an extent has
// a slot on media, so the caller decides. Blocks are 4 KiB, of the file (logical) and of the
// region.
//
// # Types
//
//	Extent  a run of file blocks and the run of region blocks that holds it
//	Space   the extents of one file; the zero value is an empty file
//
// A Space is 64 bytes and has room for two extents. Three or more are in a B+tree.
//
// # Concurrency
//
// The caller serialises changes, with the inode's lock. Readers hold nothing: Lookup may run at any
// time, and returns an extent as it was at some moment of the call. A reader that acts on the
// result does
//
//	seq := s.Seq()
//	e, ok := s.Lookup(logical)
//	... table.TryGet(e.Block+..., n) ...
//	if !s.Valid(seq) { put; start again }
//
// After a few failed rounds it takes the inode's lock instead; with that held, Lookup alone is
// enough.
//
// A sequence lock guards the tree. Its nodes consist of atomic words and pointers, so a reader that
// races with a change reads old or new words, but never outside a node. The sequence then tells the
// reader that the words did not belong together, and it reads again. For the same reason a node may
// be recycled for another file while a reader is in it: its removal from the first tree was a
// change there.
//
// # Lock order
//
// A Space has no locks. A change waits for no reader. Lookup waits for the end of a change of one
// extent, which is a few stores.
//
// # Hot path
//
// Translate, Lookup, Seq, Valid and Update. TestHotPathAllocatesNothing proves that they allocate
// nothing, BenchmarkLookup and BenchmarkAppend measure them.
package pagecache
