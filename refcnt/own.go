package refcnt

import (
	"fmt"
	"runtime"
)

// Own makes n free blocks owned, in the largest folios that are aligned in the region:
// shares 0 -> 1.
// Precondition: they are free, that is they came from the allocator.
func (t *Table) Own(block, n uint64) {
	t.check("own", block, n)
	for n > 0 {
		k := uint64(1) << t.pud
		switch {
		case block&(k-1) == 0 && n >= k:
			t.ownPUD(block)
		default:
			k = 1 << t.pmd
			if block&(k-1) == 0 && n >= k {
				t.ownHead(block>>t.pmd, kindPMD|shareOne)
				t.pmds.Add(1)
				break
			}
			k = min(n, k-block&(k-1))
			t.ownWords(block, k)
		}
		block, n = block+k, n-k
	}
}

func (t *Table) ownWords(block, n uint64) {
	p := block >> t.pmd
	if h := t.pairs[p].head.Load(); h != 0 {
		misuse("own", block, h)
	}
	t.appear(p, n)
	words := t.words[block : block+n]
	for i := range words {
		if !words[i].CompareAndSwap(0, shareOne) {
			misuse("own", block+uint64(i), words[i].Load())
		}
	}
}

// ownHead makes a free piece, or the first of a PUD folio, one with the word w.
func (t *Table) ownHead(p, w uint64) {
	if live := t.pairs[p].table.Load() & liveMask; live != 0 {
		misuse("own of a piece in use", p<<t.pmd, live)
	}
	if !t.pairs[p].head.CompareAndSwap(0, w) {
		misuse("own", p<<t.pmd, t.pairs[p].head.Load())
	}
}

func (t *Table) ownPUD(block uint64) {
	p := block >> t.pmd
	for i := t.span - 1; i > 0; i-- {
		t.ownHead(p+i, kindTail)
	}
	t.ownHead(p, kindPUD|shareOne)
	t.puds.Add(1)
}

// Share adds an owner to n blocks (reflink), or to none of them: to the folios that the
// range covers, and to a part of those that it does not cover wholly. ErrOverflow: one has
// as many owners as can be counted. ErrUnowned: one has none, see Doubt.
// Precondition: the blocks are owned, and an owner of theirs that the caller
// has locked stays for the length of the call.
func (t *Table) Share(block, n uint64) error {
	t.check("share", block, n)
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		stop := min(end, f.end())
		var err error
		if f.kind != 0 && (at > f.block || stop < f.end()) {
			err = t.sharePart(&f, at, stop-at)
		} else {
			err = f.share(t.doubt != nil)
		}
		switch err {
		case nil:
			at = stop
		case errChanged:
			runtime.Gosched()
		default:
			t.unshare(block, at)
			return err
		}
	}
	return nil
}

// share adds an owner of all of a folio. doubt: that it has none is an error.
func (f *folio) share(doubt bool) error {
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind || old&splitting != 0:
			return errChanged
		case old&shareMask == 0 && doubt:
			return ErrNoOwner
		case old&shareMask == 0:
			misuse("share", f.block, old)
		case old&shareMask == shareMask:
			return fmt.Errorf("%w: block %d has %d owners", ErrOverflow, f.block, maxShares)
		}
		if f.w.CompareAndSwap(old, old+shareOne) {
			return nil
		}
	}
}

// unshare takes back what a failing Share added, up to end.
func (t *Table) unshare(block, end uint64) {
	if block < end {
		t.disown(block, end-block, "unshare (the locked owner left)", nil)
	}
}

// Disown takes one owner from each of n blocks. It calls idle for each maximal
// run of them that nobody references either; the caller frees those. Blocks
// still referenced are reported by the last Put.
//
// Of a large folio of which the range is a part only that part is disowned. As long as
// every block of it has another owner it stays whole, for them; when one has not it is
// split at once. References to it go on as those of a drain, which keeps what has no owner
// from being free: new references do not prolong that.
//
// idle runs on this goroutine with no lock held; a func value made once and
// kept costs no allocation. It may be nil where another owner is known to remain.
func (t *Table) Disown(block, n uint64, idle func(block, n uint64)) {
	t.disown(block, n, "disown", idle)
}
