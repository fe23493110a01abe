package refcnt

import "sync/atomic"

// Ref is a reference to each folio that covers the N blocks from Block on. The folios are of one
// order. The Ref keeps that order, since a folio may be split while it is referenced (see drain):
// with it Put finds the count.
type Ref struct {
	Block, N uint64 // blocks; N = 0: no reference
	kind     uint64 // kind of the folios when the reference was taken
}

// word returns the word of the folio that r referenced when it was taken. It returns nil if r is to
// more than one folio.
func (t *Table) word(r *Ref) *atomic.Uint64 {
	last := r.Block + r.N - 1
	switch {
	case r.kind == kindPMD && r.Block>>t.pmd == last>>t.pmd:
		return &t.pairs[r.Block>>t.pmd].head
	case r.kind == kindPUD && r.Block>>t.pud == last>>t.pud:
		return &t.pairs[r.Block>>t.pud<<(t.pud-t.pmd)].head
	case r.kind == 0 && r.N == 1:
		return &t.words[r.Block]
	}
	return nil
}

// acquire adds a reference to each of the folios that cover the first blocks of n: those up to the
// first folio that is of another order or not available. It fails if that is the first folio of the
// range.
func (t *Table) acquire(block, n uint64) (Ref, error) {
	t.check("get", block, n)
	if n == 0 {
		return Ref{}, nil
	}
	f := t.find(block)
	err := addRef(&f)
	for err == errChanged {
		f = t.find(block)
		err = addRef(&f)
	}
	if err != nil {
		return Ref{}, err
	}
	r := Ref{Block: block, kind: f.kind}
	at, end := f.end(), block+n
	for ; at < end; at = f.end() {
		if f.kind == 0 && at&(1<<t.pmd-1) != 0 {
			// The rest of the piece is in folios of 4 KiB, too: a large folio would take the whole
			// piece.
			f.block, f.w = at, &t.words[at]
		} else if f = t.find(at); f.kind != r.kind {
			break
		}
		if addRef(&f) != nil {
			break
		}
	}
	r.N = min(at, end) - block
	return r, nil
}

// release drops a reference to each folio of f.
func (t *Table) release(f Ref, op string, idle func(block, n uint64)) {
	t.check(op, f.Block, f.N)
	r := idleRun{t: t, op: op, idle: idle}
	order := t.pmd
	if f.kind == kindPUD {
		order = t.pud
	}
	for at, end := f.Block, f.Block+f.N; at < end; {
		next := (at>>order + 1) << order
		if f.kind == 0 {
			stop := min(end, next)
			t.dropWords(at, stop-at, refOne, op, &r)
		} else {
			t.putLarge(folio{&t.pairs[at>>order<<(order-t.pmd)].head, f.kind, at >> order << order, 1 << order}, op, &r)
		}
		at = next
	}
	r.finish(true)
}

// putLarge drops a reference to f, which is a large folio or was one when the reference was taken.
func (t *Table) putLarge(f folio, op string, r *idleRun) {
	for {
		old := f.w.Load()
		if old&kindMask != f.kind || old&refMask == 0 {
			t.drains.put(&f, op, r)
			return
		}
		if underflows(old, refOne) {
			misuse(op, f.block, old)
		}
		now := old - refOne
		if now&(refMask|shareMask) != 0 {
			if f.w.CompareAndSwap(old, now) {
				return
			}
			continue
		}
		if f.w.CompareAndSwap(old, f.kind|splitting) {
			t.vacate(&f)
			r.add(f.block, f.n)
			r.unlinked += f.n
			return
		}
	}
}
