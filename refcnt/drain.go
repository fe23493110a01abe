package refcnt

import (
	"sync"
	"sync/atomic"
)

// drain is a large folio that was split while it was referenced. Which part of the folio its
// references use is not known, so none of its blocks may become free before they are gone. New
// references are taken to the smaller folios in its place, and do not count here: only the
// references from before the split drain.
//
// Life: the thread that splits the folio makes the drain. It takes the references out of the
// folio's word, and holds one more itself until the smaller folios are in place. The last Put
// of these references removes the drain, and reports what it pinned.
//
// A drain pins a block if the block has no owner, and its smaller folio is not referenced. A drain
// always pins at least one block, or there would have been no need to split. So no folio of the
// drain's order can be made there, and there is at most one drain for an aligned piece and order. A
// PMD folio in a PUD drain may get a drain of its own: what that drain releases, the other one
// pins.
type drain struct {
	block, n uint64 // as in the folio
	refs     uint64 // protected by drains.mu
	pinned   []run  // protected by drains.mu
}

// drains is the set of drains of a table.
type drains struct {
	count  atomic.Int64 // drains; nearly always zero
	pinned atomic.Int64 // blocks pinned by all of them

	mu sync.Mutex
	of map[drainKey]*drain // protected by mu
}

type drainKey struct{ block, kind uint64 }

// begin changes a folio's word from old to now, which says splitting, and moves the folio's
// references from the word to a new drain. It makes no drain if there are no references. It returns
// false if the word is not old.
func (d *drains) begin(f *folio, old, now uint64) (x *drain, ok bool) {
	if old&refMask == 0 {
		return nil, f.w.CompareAndSwap(old, now)
	}
	d.mu.Lock() // a Put that misses its reference in the word waits for mu, and then finds the drain
	defer d.mu.Unlock()
	d.count.Add(1)
	if !f.w.CompareAndSwap(old, now) {
		d.count.Add(-1)
		return nil, false
	}
	if d.of == nil {
		d.of = map[drainKey]*drain{}
	}
	x = &drain{block: f.block, n: f.n, refs: refsOf(old) + 1}
	d.of[drainKey{f.block, f.kind}] = x
	return x, true
}

// put drops a reference to a folio that was f when the reference was taken.
func (d *drains) put(f *folio, op string, r *idleRun) {
	d.mu.Lock()
	x := d.of[drainKey{f.block, f.kind}]
	if x == nil {
		d.mu.Unlock()
		misuse(op, f.block, f.w.Load())
	}
	x.refs--
	if x.refs > 0 {
		d.mu.Unlock()
		return
	}
	delete(d.of, drainKey{f.block, f.kind})
	d.mu.Unlock()
	d.count.Add(-1)
	for _, u := range x.pinned {
		r.add(u.block, u.n) // a larger drain may pin the run
		r.drained += u.n
	}
}

// pin gives the first k of n free blocks to the smallest drain that covers them, if there is one.
// These k blocks are the ones in the first piece.
func (d *drains) pin(t *Table, block, n uint64) (k uint64, pinned bool) {
	k = min(n, (block>>t.pmd+1)<<t.pmd-block)
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.atLocked(t, block)
	if x == nil {
		return k, false
	}
	if i := len(x.pinned) - 1; i >= 0 && x.pinned[i].block+x.pinned[i].n == block {
		x.pinned[i].n += k
	} else {
		x.pinned = append(x.pinned, run{block, k})
	}
	d.pinned.Add(int64(k))
	return k, true
}

// atLocked returns the smallest drain that covers a block, or nil. Called with mu held.
func (d *drains) atLocked(t *Table, block uint64) *drain {
	if x := d.of[drainKey{block >> t.pmd << t.pmd, kindPMD}]; x != nil {
		return x
	}
	return d.of[drainKey{block >> t.pud << t.pud, kindPUD}]
}

// drainRefs returns how many references the drains that cover a block have left.
func (t *Table) drainRefs(block uint64) (refs uint64) {
	d := &t.drains
	if d.count.Load() == 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range [2]drainKey{{block >> t.pmd << t.pmd, kindPMD}, {block >> t.pud << t.pud, kindPUD}} {
		if x := d.of[k]; x != nil {
			refs += x.refs
		}
	}
	return refs
}

// draining reports whether a drain covers any of n blocks.
func (t *Table) draining(block, n uint64) bool {
	d := &t.drains
	if d.count.Load() == 0 || n == 0 {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if first, last := block>>t.pmd, (block+n-1)>>t.pmd; last-first < uint64(len(d.of)) {
		for p := first; p <= last; p++ {
			if d.atLocked(t, p<<t.pmd) != nil {
				return true
			}
		}
		return false
	}
	for _, x := range d.of {
		if x.block < block+n && block < x.block+x.n {
			return true
		}
	}
	return false
}
