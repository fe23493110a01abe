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

// undo takes delta back from the folios of the blocks up to end, where acquire failed.
func (t *Table) undo(block, end, delta uint64) {
	if block < end {
		r := idleRun{op: "undo", idle: t.orphanIdle}
		for at := block; at < end; {
			f := t.find(at)
			if f.kind == 0 {
				t.dropWords(at, 1, delta, r.op, &r)
			} else {
				t.dropLarge(&f, delta, r.op, &r)
			}
			at = f.end()
		}
		r.report()
	}
}

func (t *Table) orphan(block, n uint64) {
	o := &t.orphans
	o.mu.Lock()
	if k := len(o.runs); k > 0 && o.runs[k-1].block+o.runs[k-1].n == block {
		o.runs[k-1].n += n
	} else {
		o.runs = append(o.runs, run{block, n})
	}
	o.count.Add(int64(n))
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
