package refcnt

import "fmt"

// Own makes n free blocks owned: shares 0 -> 1.
// Precondition: they are free, that is they came from the allocator.
func (t *Table) Own(block, n uint64) {
	words := t.words[block : block+n]
	t.appearRun(block, n)
	for i := range words {
		if !words[i].CompareAndSwap(0, shareOne) {
			misuse("own", block+uint64(i), words[i].Load())
		}
	}
}

// Share adds an owner to each of n blocks (reflink), or to none of them:
// ErrOverflow says that one has as many as can be counted.
// Precondition: the blocks are owned, and an owner of theirs that the caller
// has locked stays for the length of the call.
func (t *Table) Share(block, n uint64) error {
	words := t.words[block : block+n]
	for i := range words {
		for {
			old := words[i].Load()
			if old&shareMask == 0 {
				misuse("share", block+uint64(i), old)
			}
			if old&shareMask == shareMask {
				t.unshare(block, uint64(i))
				return fmt.Errorf("%w: block %d has %d owners", ErrOverflow, block+uint64(i), maxShares)
			}
			if words[i].CompareAndSwap(old, old+shareOne) {
				break
			}
		}
	}
	return nil
}

// unshare takes back what an overflowing Share added.
func (t *Table) unshare(block, n uint64) {
	words := t.words[block : block+n]
	for i := range words {
		if sub(&words[i], block+uint64(i), shareOne, "unshare") {
			misuse("unshare (the locked owner left)", block+uint64(i), 0)
		}
	}
}

// Disown takes one owner from each of n blocks. It calls idle for each maximal
// run of them that nobody references either; the caller frees those. Blocks
// still referenced are reported by the last Put.
//
// idle runs on this goroutine with no lock held; a func value made once and
// kept costs no allocation. It may get blocks outside the range, too: orphans,
// see TryGet. It may be nil where another owner is known to remain.
func (t *Table) Disown(block, n uint64, idle func(block, n uint64)) {
	t.drop(block, n, shareOne, "disown", idle)
}
