// Package refcnt is the folio table: it counts the owners and the current users of each folio of
// the region.
//
// It owns two counts for each folio, and the leases of blocks, and nothing else: no file, no
// extent, no free space. It never calls the allocator: a put, a disown or an unlease reports what
// it made free, and its caller frees the blocks.
//
//	shares  how many extents of files own the folio (reflink makes it > 1)
//	refs    users in flight: I/O being copied
//
// An idle folio has zero refs. Being owned is not being referenced: TryGet succeeds on an idle
// folio that has an owner. A folio returns to the allocator when refs and shares are both zero,
// which is reported to the caller that dropped the last of either. Exactly one caller gets that
// report per life of a folio: the one whose compare-and-swap took the word to zero.
//
// # Orders
//
// A folio is 4 KiB, a PMD block (2 MiB) or a PUD block (1 GiB). All of them go through the same
// functions. Own makes the largest folios that are aligned. A reference is to the whole folio,
// whatever part the caller uses. An owner may give up a part of a folio, or become the owner of a
// part (reflink, and copy-on-write after it). The folio stays whole as long as each of its blocks
// has an owner, and the table keeps per-block owner counts. When a block has no owner left, the
// folio is split at once. Split and Merge are for callers that move or collapse blocks.
//
// A folio that is split while it is referenced leaves its references to a drain (drain.go). Until
// these references are gone, the drain keeps the folio's blocks that have no owner from becoming
// free. New references are to the smaller folios, and do not prolong the drain: what was cut from a
// folio becomes free as soon as the references from before the cut are gone, however many come
// later. A Ref keeps the order of its folios, so that Put finds the count.
//
// A lease (lease.go) keeps blocks from becoming free for as long as programs map them. It is held
// on blocks and not on folios: it neither prevents a split or a merge nor keeps more than its
// blocks.
//
// # Types
//
// Table holds all counts, outside Go's heap, where the garbage collector never sees them. It has a
// pair of 64-bit words for each 2 MiB of the region, and one 64-bit word for each 4 KiB of those
// pieces that are in use as 4 KiB folios. The first word of a pair is the word of a large folio
// that starts there. Blocks are 4 KiB, numbered from the start of the region.
//
// # Why a stale block number is harmless
//
// Readers look extents up without a lock, and may call TryGet on a block that was freed meanwhile.
// The word of a block keeps its address for the life of the table: the address range is reserved
// once and never unmapped. Only the memory behind the words of a 2 MiB piece comes and goes, and it
// is given back only when all of them are zero. Memory that is not there reads as zero, zero means
// free, and TryGet writes nothing to a free word. So TryGet fails before, during and after the
// recycling, without a lock, a generation number or an epoch. The one write that could be lost with
// the memory is Own's. Own counts itself into the pair first, and a recycler gives memory back only
// if that count is zero (see pair.go).
//
// The same holds for a change of order. It begins with a mark in the old folio's words, which must
// be idle, and ends with the word that tells where to look. A caller that found the old folio finds
// the mark, zero, or another kind in its word, and TryGet fails or looks again. After TryGet the
// caller looks the extent up again: the block may belong to another file by now.
//
// # Lock order
//
// Hot paths take no lock. The mutexes are partlyOwned.mu, then drains.mu; leases.mu and
// recycleQueue.mu are leaves. No callback is called while one of them is held.
//
// # Hot path
//
// TryGet and Put: two loads and one compare-and-swap per folio. TestHotPathAllocatesNothing proves
// that they allocate nothing, BenchmarkTryGetPut measures them. TestModel compares a table with a
// plain map of folios. TestStressFolios runs owners against readers.
package refcnt
