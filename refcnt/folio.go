package refcnt

import (
	"runtime"
	"sync/atomic"
)

// folio is the location of a folio's counts, and the blocks that it covers. It is as of the moment
// of find. It stays true while the caller has a reference to the folio, or owns it and keeps others
// from splitting it. Otherwise the word's kind shows that the folio has changed.
type folio struct {
	w        *atomic.Uint64
	kind     uint64 // 0: a folio of 4 KiB
	block, n uint64
}

func (f *folio) end() uint64 { return f.block + f.n }

// find returns the folio that covers a block. (Analogous to Linux's page_folio.)
func (t *Table) find(block uint64) folio {
	for p := block >> t.pmd; ; runtime.Gosched() {
		h := &t.pairs[p].head
		switch h.Load() & kindMask {
		case 0:
			return folio{&t.words[block], 0, block, 1}
		case kindPMD:
			return folio{h, kindPMD, p << t.pmd, 1 << t.pmd}
		}
		p &^= t.span - 1
		if h = &t.pairs[p].head; h.Load()&kindMask == kindPUD {
			return folio{h, kindPUD, p << t.pmd, 1 << t.pud}
		}
		// The PUD folio is being made, split or freed: a few stores.
		p = block >> t.pmd
	}
}

// check panics if a range does not lie in the region.
func (t *Table) check(op string, block, n uint64) {
	if block > t.blocks || n > t.blocks-block {
		misuse(op+" outside the region", block, 0)
	}
}

// addRef adds a reference to a folio.
func addRef(f *folio) error {
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind:
			return errChanged
		case old&shareMask == 0 || old&(frozen|splitting) != 0:
			return ErrUnavailable
		case old&refMask == refMask:
			return ErrOverflow
		}
		if f.w.CompareAndSwap(old, old+refOne) {
			return nil
		}
	}
}

// run is a range of n blocks from block on.
type run struct{ block, n uint64 }

// idleRun collects adjacent blocks that became free, and reports them as one run. Their words no
// longer count them, and no caller may own them before the report. A block that a drain or a
// lease covers is pinned instead.
type idleRun struct {
	t        *Table
	block, n uint64
	op       string
	idle     func(block, n uint64)
	freed    uint64 // blocks that are or will be reported

	// Blocks that are no longer deferred, by what deferred them. They count as such until they are
	// reported, so that there is no moment at which a caller sees them neither as deferred nor
	// free.
	unlinked, drained, leased uint64
}

// finish ends the run. released says that what it reported was Deferred until now.
func (r *idleRun) finish(released bool) {
	r.report()
	t := r.t
	if released && r.freed > 0 {
		t.released.Add(r.freed)
	}
	if r.unlinked > 0 {
		t.unlinked.Add(-int64(r.unlinked))
	}
	if r.drained > 0 {
		t.drains.pinned.Add(-int64(r.drained))
	}
	if r.leased > 0 {
		t.leases.pinned.Add(-int64(r.leased))
	}
}

func (r *idleRun) add(block, n uint64) {
	for d := &r.t.drains; n > 0 && d.count.Load() != 0; {
		k, pinned := d.pin(r.t, block, n)
		if !pinned {
			r.addDrained(block, k)
		}
		block, n = block+k, n-k
	}
	if n > 0 {
		r.addDrained(block, n)
	}
}

// addDrained is add for blocks that no drain covers.
func (r *idleRun) addDrained(block, n uint64) {
	l := &r.t.leases
	if l.count.Load() == 0 {
		r.join(block, n)
		return
	}
	l.pin(block, n, func(block, n uint64, leased bool) {
		if !leased {
			r.join(block, n)
		}
	})
}

func (r *idleRun) join(block, n uint64) {
	r.freed += n
	if r.n > 0 && r.block+r.n == block {
		r.n += n
		return
	}
	r.report()
	r.block, r.n = block, n
}

func (r *idleRun) report() {
	if r.n == 0 {
		return
	}
	if r.idle == nil {
		r.t.noOwner(r.op+" of the last count, without an idle function,", r.block, 0)
		return
	}
	block, n := r.block, r.n
	r.n = 0
	r.idle(block, n)
}

// disown takes an owner from the folios of n blocks, and reports what became free. If the range
// covers a part of a large folio, it takes an owner of that part only.
func (t *Table) disown(block, n uint64, op string, idle func(block, n uint64)) {
	t.check(op, block, n)
	r := idleRun{t: t, op: op, idle: idle}
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		switch {
		case f.kind == 0:
			stop := min(end, (at>>t.pmd+1)<<t.pmd)
			t.dropWords(at, stop-at, shareOne, op, &r)
			at = stop
		case at > f.block || end < f.end():
			stop := min(end, f.end())
			if t.cut(&f, at, stop-at, op, &r) {
				at = stop
			}
		default:
			t.disownLarge(&f, op, &r)
			at = f.end()
		}
	}
	r.finish(false)
}

// dropWords subtracts delta from the counts of n folios of 4 KiB within one piece.
func (t *Table) dropWords(block, n, delta uint64, op string, r *idleRun) {
	words := t.words[block : block+n]
	run := uint64(0) // blocks just before block+i that became free
	for i := range words {
		if t.sub(&words[i], block+uint64(i), delta, op) {
			if delta == refOne {
				r.unlinked++
			}
			run++
			continue
		}
		if run > 0 {
			t.vanish(block>>t.pmd, run)
			r.add(block+uint64(i)-run, run)
			run = 0
		}
	}
	if run > 0 {
		t.vanish(block>>t.pmd, run)
		r.add(block+n-run, run)
	}
}

// disownLarge takes an owner of the whole folio from a large folio.
func (t *Table) disownLarge(f *folio, op string, r *idleRun) {
	for {
		old := f.w.Load()
		if old&kindMask != f.kind || old&shareMask == 0 {
			t.noOwner(op, f.block, old)
			return
		}
		now := old - shareOne
		switch {
		case now&(refMask|shareMask) == 0:
			if f.w.CompareAndSwap(old, f.kind|splitting) {
				t.vacate(f)
				r.add(f.block, f.n)
				return
			}
		case now&shareMask == 0:
			t.unlinked.Add(int64(f.n)) // before the swap: the last Put subtracts it
			if f.w.CompareAndSwap(old, now) {
				return
			}
			t.unlinked.Add(-int64(f.n))
		case now&partial != 0:
			if t.disownWhole(f, old, now, r) {
				return
			}
		case f.w.CompareAndSwap(old, now):
			return
		}
	}
}

// vacate makes the pieces of a folio free. The folio's word says splitting.
func (t *Table) vacate(f *folio) {
	p := f.block >> t.pmd
	if f.kind == kindPUD {
		for i := uint64(1); i < t.span; i++ {
			t.pairs[p+i].head.Store(0)
		}
		t.puds.Add(-1)
	} else {
		t.pmds.Add(-1)
	}
	f.w.Store(0)
}

// sub subtracts delta from a word of 4 KiB, and reports whether that made the block free.
func (t *Table) sub(w *atomic.Uint64, block, delta uint64, op string) bool {
	for {
		old := w.Load()
		if underflows(old, delta) {
			if delta != shareOne {
				misuse(op, block, old)
			}
			t.noOwner(op, block, old)
			return false
		}
		now := old - delta
		unlinks := false
		switch {
		case now&(refMask|shareMask) == 0:
			now = 0 // frozen or not
		case now&shareMask == 0 && old&shareMask != 0:
			unlinks = true
			t.unlinked.Add(1) // before the swap: the last Put subtracts it
		}
		if w.CompareAndSwap(old, now) {
			return now == 0
		}
		if unlinks {
			t.unlinked.Add(-1)
		}
	}
}

// underflows reports whether delta takes from a count that is zero in old.
func underflows(old, delta uint64) bool {
	return delta&refOne != 0 && old&refMask == 0 ||
		delta&shareOne != 0 && old&shareMask == 0
}
