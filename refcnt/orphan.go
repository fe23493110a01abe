package refcnt

import (
	"sync"
	"sync/atomic"
)

// orphans are blocks that became idle through a failing TryGet, see there. They
// are free in the table but not yet in the allocator.
type orphans struct {
	count atomic.Int64 // blocks in runs
	mu    sync.Mutex
	runs  []run // protected by mu
}

type run struct{ block, n uint64 }

// undo takes delta back from the n blocks before the one acquire failed on.
func (t *Table) undo(block, n, delta uint64) {
	words := t.words[block : block+n]
	for i := range words {
		if sub(&words[i], block+uint64(i), delta, "undo") {
			t.vanishRun(block+uint64(i), 1)
			t.orphan(block + uint64(i))
		}
	}
}

func (t *Table) orphan(block uint64) {
	o := &t.orphans
	o.mu.Lock()
	if k := len(o.runs); k > 0 && o.runs[k-1].block+o.runs[k-1].n == block {
		o.runs[k-1].n++
	} else {
		o.runs = append(o.runs, run{block, 1})
	}
	o.count.Add(1)
	o.mu.Unlock()
}

// Reap reports the orphans (see TryGet) that nobody reported yet. Put and
// Disown do so too; Reap is for a moment after which none of them comes, such
// as unmount before free space is saved.
func (t *Table) Reap(idle func(block, n uint64)) {
	o := &t.orphans
	o.mu.Lock()
	runs := o.runs
	o.runs = nil
	for _, r := range runs {
		o.count.Add(-int64(r.n))
	}
	o.mu.Unlock()
	for _, r := range runs {
		idle(r.block, r.n)
	}
}
