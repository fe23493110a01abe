package refcnt

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/daxfs/daxfs/internal/invariants"
)

// TryGet takes a reference to each of n blocks, or none: it fails if one of
// them is free, unlinked or frozen. The block number may be stale; after TryGet
// the caller looks its extent up again, and puts and retries if it changed.
// (Analogous to Linux's folio_try_get, but idle is zero here.)
//
// A TryGet that fails midway gives back what it took. If the owner left in
// that short time, the block is idle now and there is nobody to report it to:
// it becomes an orphan, reported by the next Put, Disown or Reap of anyone.
func (t *Table) TryGet(block, n uint64) bool {
	return t.acquire(block, n, refOne) == nil
}

// TryMap is TryGet for a granted mapping, which is a reference that also counts
// in Maps. It fails with ErrUnavailable as TryGet does, or with ErrOverflow.
func (t *Table) TryMap(block, n uint64) error {
	return t.acquire(block, n, refOne+mapOne)
}

// Put drops a reference to each of n blocks. It calls idle for each maximal
// run of them that nobody owns any more and whose last reference this was; the
// caller frees those. See Disown about idle.
func (t *Table) Put(block, n uint64, idle func(block, n uint64)) {
	t.drop(block, n, refOne, "put", idle)
}

// Unmap drops a granted mapping of n blocks, as Put drops a reference.
func (t *Table) Unmap(block, n uint64, idle func(block, n uint64)) {
	t.drop(block, n, refOne+mapOne, "unmap", idle)
}

// Freeze makes TryGet fail on an owned block, provided that it has exactly
// expected references, those of the caller. It returns false otherwise.
// (Analogous to Linux's folio_ref_freeze.)
//
// Precondition: the caller excludes the owners (holds the inode's lock).
func (t *Table) Freeze(block uint64, expected int) bool {
	w := &t.words[block]
	for {
		old := w.Load()
		if old&shareMask == 0 || old&frozen != 0 || refsOf(old) != uint64(expected) {
			return false
		}
		if w.CompareAndSwap(old, old|frozen) {
			return true
		}
	}
}

// Unfreeze undoes Freeze. Precondition: the block is frozen.
func (t *Table) Unfreeze(block uint64) {
	w := &t.words[block]
	for {
		old := w.Load()
		if old&frozen == 0 {
			misuse("unfreeze", block, old)
		}
		if w.CompareAndSwap(old, old&^frozen) {
			return
		}
	}
}

// WaitIdle waits until no block of the range is referenced, or ctx is done,
// whose error it then returns. It looks at one block after the other: the
// caller keeps new users out. I/O in flight takes microseconds; whoever may
// have granted mappings recalls them first (Maps).
func (t *Table) WaitIdle(ctx context.Context, block, n uint64) error {
	const spins = 64
	words := t.words[block : block+n]
	pause := 20 * time.Microsecond
	var timer *time.Timer
	for i := range words {
		for try := 0; words[i].Load()&refMask != 0; try++ {
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

// acquire adds delta to the words of n blocks, all or none.
func (t *Table) acquire(block, n, delta uint64) error {
	words := t.words[block : block+n]
	for i := range words {
		w := &words[i]
		for {
			old := w.Load()
			if old&shareMask == 0 || old&frozen != 0 {
				t.undo(block, uint64(i), delta)
				return ErrUnavailable
			}
			if old&refMask == refMask || delta >= mapOne && old&mapMask == mapMask {
				t.undo(block, uint64(i), delta)
				return ErrOverflow
			}
			if w.CompareAndSwap(old, old+delta) {
				break
			}
		}
	}
	return nil
}

// drop takes delta from the words of n blocks and reports what became idle.
func (t *Table) drop(block, n, delta uint64, op string, idle func(block, n uint64)) {
	words := t.words[block : block+n]
	run := uint64(0) // idle blocks that end at block+i
	for i := range words {
		if sub(&words[i], block+uint64(i), delta, op) {
			run++
			continue
		}
		if run > 0 {
			t.report(block+uint64(i)-run, run, op, idle)
			run = 0
		}
	}
	if run > 0 {
		t.report(block+n-run, run, op, idle)
	}
	if t.orphans.count.Load() != 0 && idle != nil {
		t.Reap(idle)
	}
}

// report tells the caller of a run that became idle. The words no longer count
// before anyone may own the blocks again.
func (t *Table) report(block, n uint64, op string, idle func(block, n uint64)) {
	t.vanishRun(block, n)
	if idle == nil {
		misuse(op+" of the last count, with nobody to free it,", block, 0)
	}
	idle(block, n)
}

// sub takes delta from a word and reports whether that made the block free.
func sub(w *atomic.Uint64, block, delta uint64, op string) bool {
	for {
		old := w.Load()
		if underflows(old, delta) {
			misuse(op, block, old)
		}
		now := old - delta
		if invariants.Enabled && mapsOf(now) > refsOf(now) {
			misuse(op+" of a granted mapping", block, old)
		}
		if now&(refMask|shareMask) == 0 {
			now = 0 // frozen or not
		}
		if w.CompareAndSwap(old, now) {
			return now == 0
		}
	}
}

// underflows reports whether a count of old that delta takes from is zero.
func underflows(old, delta uint64) bool {
	return delta&refOne != 0 && old&refMask == 0 ||
		delta&mapOne != 0 && old&mapMask == 0 ||
		delta&shareOne != 0 && old&shareMask == 0
}
