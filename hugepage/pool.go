package hugepage

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

// A pool keeps the last few small runs that were freed through it for the next small requests
// through it. Requests through one pool come from one thread, so they share no lock and no cache
// line with other threads. (Like the per-CPU page lists of Linux's page allocator. But a pool takes
// nothing in advance, since the blocks that it holds keep PMD blocks partial.)
//
// Blocks in a pool count as free. They go back to the allocator when a caller looks for them, or
// when space is short (emptyPoolsLocked).
type pool struct {
	mu     sync.Mutex
	n      int           // protected by mu
	runs   [poolRuns]run // protected by mu; the first n, in the order that they were freed
	blocks atomic.Uint64 // blocks in all runs; written under mu
	_      [64]byte      // keeps pools on separate cache lines
}

// run is a range of n blocks from block on.
type run struct{ block, n uint64 }

const (
	poolRuns = 8  // runs in a pool
	poolMax  = 16 // blocks of the longest run that a pool takes
	pools    = 16 // threads share a pool if more than these allocate at a time
)

// AllocFrom is Alloc through pool p modulo the number of pools. Threads that use different pools do
// not wait for each other. Only small requests without a goal are served from the pool.
func (a *Allocator) AllocFrom(p uint32, goal, want uint64) (block, n uint64, ok bool) {
	if goal == 0 && want-1 < poolMax {
		if block, ok := a.pools[p%pools].get(want); ok {
			return block, want, true
		}
	}
	return a.Alloc(goal, want)
}

// FreeTo is Free through pool p modulo the number of pools.
func (a *Allocator) FreeTo(p uint32, block, n uint64) {
	if n-1 >= poolMax || !a.inside(block, n) {
		a.Free(block, n)
		return
	}
	if invariants.Enabled && a.pooled(block, n) {
		panic(fmt.Sprintf("hugepage: double free of blocks %d to %d: a pool has them", block, block+n))
	}
	q := &a.pools[p%pools]
	q.mu.Lock()
	var old run
	if q.n == poolRuns {
		old = q.runs[0]
		q.n = copy(q.runs[:], q.runs[1:])
	}
	q.runs[q.n] = run{block, n}
	q.n++
	q.blocks.Store(q.blocks.Load() + n - old.n)
	q.mu.Unlock()
	if old.n != 0 {
		a.Free(old.block, old.n)
	}
}

// get takes want blocks from the last freed run that has enough.
func (q *pool) get(want uint64) (block uint64, ok bool) {
	if q.blocks.Load() < want {
		return 0, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := q.n - 1; i >= 0; i-- {
		r := &q.runs[i]
		if r.n < want {
			continue
		}
		block = r.block
		r.block, r.n = r.block+want, r.n-want
		if r.n == 0 {
			q.n = i + copy(q.runs[i:], q.runs[i+1:q.n])
		}
		q.blocks.Store(q.blocks.Load() - want)
		return block, true
	}
	return 0, false
}

// inPools returns how many blocks the pools hold.
func (a *Allocator) inPools() (n uint64) {
	for i := range a.pools {
		n += a.pools[i].blocks.Load()
	}
	return n
}

// pooled reports whether a pool holds one of n blocks.
func (a *Allocator) pooled(block, n uint64) bool {
	for i := range a.pools {
		q := &a.pools[i]
		q.mu.Lock()
		for _, r := range q.runs[:q.n] {
			if r.block < block+n && block < r.block+r.n {
				q.mu.Unlock()
				return true
			}
		}
		q.mu.Unlock()
	}
	return false
}

// emptyPoolsLocked gives all blocks in the pools back to the allocator. It returns false if there
// are none. Called with mu held; a pool's mu is taken within mu, never the other way round.
func (a *Allocator) emptyPoolsLocked() (some bool) {
	for i := range a.pools {
		q := &a.pools[i]
		if q.blocks.Load() == 0 {
			continue
		}
		q.mu.Lock()
		for _, r := range q.runs[:q.n] {
			a.giveChecked(r.block, r.n)
			some = true
		}
		q.n = 0
		q.blocks.Store(0)
		q.mu.Unlock()
	}
	return some
}
