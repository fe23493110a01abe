package refcnt

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

// pair describes a piece of the region: a PMD block, 2 MiB.
//
// The table word, low bits first:
//
//	bits 0-31  live       folios of this piece that are not free, or are
//	                      just becoming owned
//	bit  32    resident   the words of this piece may be in memory
//	bit  33    queued     the piece is in Table.recycleQueue
//	bit  34    recycling  its words are being given back
//
// States of a piece's words and the calls that move it between them:
//
//	absent     0                        Own -> live
//	live       resident, live > 0       last Disown or Put -> empty
//	empty      resident, queued         Own -> live; oldest of many -> recycling
//	recycling  recycling                recycler only -> absent; Own waits
//
// A word is non-zero only while live counts it: Own counts before it writes the word, and a thread
// that frees counts down after it has cleared the word. So live = 0 means that all words of the
// piece are zero, and that no thread is about to write one.
type pair struct {
	head  atomic.Uint64 // the word of a large folio, see kindMask; 0: no large folio
	table atomic.Uint64
}

const (
	liveMask  = uint64(1)<<32 - 1
	resident  = uint64(1) << 32
	queued    = uint64(1) << 33
	recycling = uint64(1) << 34
)

// keepEmpty is how many empty pieces keep their words (1 MiB in all), so that creating and deleting
// a file again and again costs no system call.
const keepEmpty = 256

// recycleQueue is a ring of pieces that were empty when they entered it, oldest first.
type recycleQueue struct {
	mu    sync.Mutex
	first int               // protected by mu: index in ring of the oldest
	n     int               // protected by mu: pieces queued
	ring  [keepEmpty]uint64 // protected by mu
}

// appear counts n folios of pair p as live before their words are written.
func (t *Table) appear(p, n uint64) {
	w := &t.pairs[p].table
	for {
		old := w.Load()
		if old&recycling != 0 {
			runtime.Gosched() // for one system call
			continue
		}
		if w.CompareAndSwap(old, (old|resident)+n) {
			if old&resident == 0 {
				t.tables.Add(1)
			}
			return
		}
	}
}

// vanish counts down n folios of pair p whose words have become zero.
func (t *Table) vanish(p, n uint64) {
	if t.pairs[p].table.Add(-n)&liveMask == 0 {
		t.queueRecycle(p)
	}
}

// queueRecycle queues an empty piece, and recycles the oldest one if there are many.
func (t *Table) queueRecycle(p uint64) {
	w := &t.pairs[p].table
	for {
		old := w.Load()
		if old&liveMask != 0 || old&(queued|recycling) != 0 || old&resident == 0 {
			return // in use again, or queued or recycled by another thread
		}
		if w.CompareAndSwap(old, old|queued) {
			break
		}
	}
	r := &t.recycleQueue
	r.mu.Lock()
	full := r.n == keepEmpty
	oldest := r.ring[r.first]
	r.ring[(r.first+r.n)%keepEmpty] = p
	if full {
		r.first = (r.first + 1) % keepEmpty
	} else {
		r.n++
	}
	r.mu.Unlock()
	if full {
		t.recycle(oldest)
	}
}

// recycle gives back the words of a piece that left the queue, unless the piece is in use again.
// Only the caller that took p off the queue may call it.
func (t *Table) recycle(p uint64) {
	w := &t.pairs[p].table
	for {
		old := w.Load()
		if old&liveMask != 0 {
			if w.CompareAndSwap(old, old&^queued) {
				return
			}
			continue
		}
		if w.CompareAndSwap(old, recycling) {
			break
		}
	}
	if invariants.Enabled {
		t.checkZero(p)
	}
	t.discard(p)
	t.tables.Add(-1)
	t.recycled.Add(1)
	w.Store(0)
}

// checkZero panics if a word of an empty piece is not zero.
func (t *Table) checkZero(p uint64) {
	for b := p << t.pmd; b < min((p+1)<<t.pmd, t.blocks); b++ {
		if w := t.words[b].Load(); w != 0 {
			misuse("recycle", b, w)
		}
	}
}
