package refcnt

import (
	"fmt"
	"runtime"
)

// Own gives n free blocks an owner, in the largest folios that are aligned in the region: shares 0
// -> 1.
//
// Precondition: the blocks are free, that is, they came from the allocator.
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

// ownHead gives piece p, which is free, the word w: that of a PMD folio, or of a piece of a PUD
// folio.
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

// Share adds an owner to n blocks (reflink): to the folios that the range covers, and to a part of
// each folio that it covers in part. On an error it has added none. ErrOverflow: a folio has as
// many owners as can be counted. ErrNoOwner: a folio has no owner, see Doubt.
//
// Precondition: the blocks have an owner that the caller has locked, and which stays their owner
// during the call.
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

// share adds an owner of a whole folio. If doubt is set, a folio without an owner is ErrNoOwner
// instead of a broken precondition.
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

// unshare removes the owners that a failing Share added to blocks [block, end).
func (t *Table) unshare(block, end uint64) {
	if block < end {
		t.disown(block, end-block, "unshare (the locked owner left)", nil)
	}
}

// Disown takes one owner from each of n blocks. It calls idle for each maximal run of blocks that
// then have neither owner nor reference; the caller frees them. The last Put reports blocks that
// are still referenced.
//
// If the range covers a part of a large folio, only that part is disowned. As long as each block of
// the folio has another owner, the folio stays whole. When a block has none, the folio is split at
// once. The folio's references become those of a drain, which keeps blocks without an owner from
// being free. New references do not prolong that.
//
// idle runs on this goroutine with no lock held. A func value that is made once and kept costs no
// allocation. idle may be nil if another owner is known to remain.
func (t *Table) Disown(block, n uint64, idle func(block, n uint64)) {
	t.disown(block, n, "disown", idle)
}
