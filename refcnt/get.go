package refcnt

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"
)

// busy reports whether the folio is still there and referenced.
func (f *folio) busy() bool {
	w := f.w.Load()
	return w&kindMask == f.kind && w&refMask != 0
}

// one returns the word and the kind of the folio that covers n blocks, if they lie in one PMD block
// and one folio, which is the usual case. Otherwise w is nil.
func (t *Table) one(block, n uint64) (w *atomic.Uint64, kind uint64) {
	p := block >> t.pmd
	if p >= uint64(len(t.pairs)) || n-1 >= 1<<t.pmd-block&(1<<t.pmd-1) {
		return nil, 0
	}
	w = &t.pairs[p].head
	switch kind = w.Load() & kindMask; kind {
	case 0:
		if n != 1 || block >= uint64(len(t.words)) {
			return nil, 0
		}
		w = &t.words[block]
	case kindTail:
		w, kind = &t.pairs[p&^(t.span-1)].head, kindPUD
	}
	return w, kind
}

// TryGet takes a reference to the folios that cover the first N of n blocks, whatever part of a
// folio these are. It stops at the first folio that is of another order or not available. It fails
// if the first folio is not available: free, unlinked, frozen, or being split or merged. The block
// number may be stale: after TryGet the caller looks its extent up again, and puts and retries if
// it changed. (Analogous to Linux's folio_try_get, but idle is zero here.)
func (t *Table) TryGet(block, n uint64) (Ref, bool) {
	if w, kind := t.one(block, n); w != nil { // acquire without its loops
		old := w.Load()
		if old&(kindMask|frozen|splitting) == kind && old&shareMask != 0 && old&refMask != refMask && w.CompareAndSwap(old, old+refOne) {
			return Ref{block, n, kind}, true
		}
	}
	r, err := t.acquire(block, n)
	return r, err == nil
}

// Put drops a reference. It calls idle for each maximal run of blocks that have no owner and whose
// last reference this was; the caller frees them. See Disown about idle.
func (t *Table) Put(r Ref, idle func(block, n uint64)) {
	if w := t.word(&r); w != nil { // release without its loops
		old := w.Load()
		if old&kindMask == r.kind && old&shareMask != 0 && refsOf(old) > 0 && w.CompareAndSwap(old, old-refOne) {
			return
		}
	}
	t.release(r, "put", idle)
}

// Freeze makes TryGet fail on the owned folio that covers a block, provided that the folio has
// exactly expected references, all of them the caller's. It returns false otherwise. References
// that drain count as well. (Analogous to Linux's folio_ref_freeze.)
//
// Precondition: the caller excludes the owners, by holding the inode's lock.
func (t *Table) Freeze(block uint64, expected int) bool {
	for {
		f := t.find(block)
		old := f.w.Load()
		if old&kindMask != f.kind {
			continue
		}
		former := t.drainRefs(block)
		if old&shareMask == 0 || old&(frozen|splitting) != 0 || refsOf(old)+former != uint64(expected) {
			return false
		}
		if f.w.CompareAndSwap(old, old|frozen) {
			return true
		}
	}
}

// Unfreeze undoes Freeze. Precondition: the folio is frozen.
func (t *Table) Unfreeze(block uint64) {
	f := t.find(block)
	for {
		old := f.w.Load()
		if old&kindMask != f.kind || old&frozen == 0 {
			misuse("unfreeze", block, old)
		}
		if f.w.CompareAndSwap(old, old&^frozen) {
			return
		}
	}
}

// WaitIdle waits until no block of the range is referenced, or until ctx is done, whose error it
// then returns. It looks at one folio after the other: the caller keeps new users out. I/O in
// flight takes microseconds. It does not wait for leases.
func (t *Table) WaitIdle(ctx context.Context, block, n uint64) error {
	const spins = 64
	pause := 20 * time.Microsecond
	var timer *time.Timer
	for at, end := block, block+n; at < end; {
		f := t.find(at)
		at = f.end()
		for try := 0; f.busy() || t.draining(f.block, f.n); try++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if try < spins {
				runtime.Gosched()
				continue
			}
			if timer == nil {
				timer = time.NewTimer(pause)
				defer timer.Stop()
			} else {
				timer.Reset(pause)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
			pause = min(2*pause, time.Millisecond)
		}
	}
	return nil
}
