// Package refcnt is the folio table: who owns each folio of the region and who
// is using it at this moment.
//
// It owns three counts per folio and never anything else: no file, no extent,
// no free space. It does not call the allocator: a put or a disown reports that
// it was the last, and its caller frees.
//
//	shares  how many extents of files own the folio (reflink makes it > 1)
//	refs    users in flight: I/O being copied, leases, granted mappings
//	maps    how many of the refs are granted mappings
//
// Idle is zero. Being owned is not being referenced: TryGet succeeds on an
// idle folio that someone owns, and a folio returns to the allocator when refs
// and shares are both zero, reported to whoever took the last of either.
// Exactly one caller gets that report per life of a folio, since it is the one
// whose compare-and-swap took the word to zero.
//
// # Orders
//
// A folio is 4 KiB, a PMD block (2 MiB) or a PUD block (1 GiB), and all of them go through
// the same functions. Own makes the largest that are aligned. A reference is to the whole
// folio, whatever part of it the caller uses. An owner may leave a part, or become one of a
// part (reflink, and copy-on-write after it): the folio stays whole as long as each block of
// it has an owner, and the table keeps how many each has (owner counts). When one has
// none the folio is split at once. Split and Merge are for whoever moves or promotes.
//
// A folio that is split while it is referenced leaves its references to a drain (drain.go),
// which keeps from the allocator what nobody owns of it, until they are gone. New
// references are to the smaller folios, and do not prolong that: so what is cut from a folio
// becomes free as soon as those who came before the cut are done, however many come
// after it. A Ref knows the order of the folios that it was taken to, so that Put
// finds the count.
//
// # Types
//
// Table holds it all, outside Go's heap (the garbage collector never sees it):
// one pair of 64-bit words per 2 MiB of region, of which one is the word of a large folio
// that starts there, and one 64-bit word per 4 KiB of what is in use in 4 KiB folios.
// Blocks are numbered from the start of the region, 4 KiB each.
//
// # Why a stale block number is harmless
//
// Readers look extents up without a lock and may call TryGet on a block that
// was freed meanwhile. The word of a block has one place for the life of the
// table, in an address range that is reserved once and never unmapped; only
// the memory behind a 2 MiB's words comes and goes, and it goes when all of
// them are zero. Memory that is not there reads as zero, zero means free, and
// TryGet writes nothing to a free word: so it fails, before, during and after
// the recycling, without a lock, a generation number or an epoch. The one
// write that could be lost with the memory is Own's, and Own counts itself
// into the pair first, which a recycler has to find at zero (see pair.go).
//
// The same goes for a change of order. It begins with a mark in the old folio's words,
// which must be idle, and ends with the word that tells where to look: whoever looked
// before finds the mark, zero, or another kind, and TryGet fails or looks again.
// After TryGet the caller looks the extent up again: the block may be someone
// else's by now.
//
// # Lock order
//
// Hot paths take no lock. The mutexes are Table.cuts, then drains, and retired, a leaf:
// no callback is called while one of them is held.
//
// # Hot path
//
// TryGet and Put: two loads and one compare-and-swap per folio.
// TestHotPathAllocatesNothing proves that they allocate nothing,
// BenchmarkTryGetPut what they cost. TestModel compares a table with a plain map of
// folios, TestStressFolios runs owners against readers.
package refcnt
