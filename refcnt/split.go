package refcnt

import (
	"errors"
	"runtime"
	"sync"
)

// errChanged: the folio was split, merged or freed since it was found.
var errChanged = errors.New("refcnt: folio changed")

// cuts are the parts of busy folios that were disowned: they are split off by whoever
// drops the last reference.
type cuts struct {
	mu     sync.Mutex
	of     map[uint64][]run // protected by mu: by the folio's first block
	blocks uint64           // protected by mu: in all of them
}

// cut takes an owner from a part of a large folio: now, splitting it, or if it is busy
// when it no longer is. It returns false if the folio has changed: look again.
func (t *Table) cut(f *folio, block, n uint64, op string, r *idleRun) bool {
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind:
			return false
		case old&splitting != 0: // by somebody else, a few stores
			runtime.Gosched()
		case old&shareMask == 0 || old&frozen != 0:
			misuse(op+" of a part", block, old)
		case old&refMask == 0:
			if f.w.CompareAndSwap(old, old|splitting) {
				t.split(f, old, append(t.takeCuts(f), run{block, n}), r)
				return true
			}
		case t.deferCut(f, block, n):
			return true
		}
	}
}

// deferCut notes a cut of a busy folio; false if it no longer is.
func (t *Table) deferCut(f *folio, block, n uint64) bool {
	c := &t.cuts
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		old := f.w.Load()
		if old&kindMask != f.kind || old&refMask == 0 || old&splitting != 0 {
			return false
		}
		if f.w.CompareAndSwap(old, old|deferred) {
			break
		}
	}
	// Whoever drops the last reference takes the list under the lock, so after this.
	if c.of == nil {
		c.of = map[uint64][]run{}
	}
	c.of[f.block] = append(c.of[f.block], run{block, n})
	c.blocks += n
	return true
}

// takeCuts takes the list of a folio that is splitting or free.
func (t *Table) takeCuts(f *folio) []run {
	c := &t.cuts
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.of[f.block]
	delete(c.of, f.block)
	for _, r := range list {
		c.blocks -= r.n
	}
	return list
}

// forgetCuts drops the list of a folio that goes as a whole; w was its word.
func (t *Table) forgetCuts(f *folio, w uint64) {
	if w&deferred != 0 {
		t.takeCuts(f)
	}
}

// split makes smaller folios of one that is splitting, with the owners that w says, but
// for one less on each block for each of the cuts. A PMD folio becomes folios of 4 KiB; a
// PUD folio PMD folios, and folios of 4 KiB where cuts go through them. What has no owner
// left is free, and added to r.
//
// The word of the folio changes last: until then TryGet fails, and so it does on what is
// free afterwards. Only then are the free blocks reported, since their next owner writes
// words of its own.
func (t *Table) split(f *folio, w uint64, list []run, r *idleRun) {
	shares := w & shareMask
	first := f.block >> t.pmd
	var freed []run
	if f.kind == kindPMD {
		t.pmds.Add(-1)
		freed = t.shatter(first, shares, list, freed)
		f.w.Store(0)
	} else {
		t.puds.Add(-1)
		for i := t.span; i > 0; i-- {
			p, head := first+i-1, kindPMD|shares
			if touches(list, p<<t.pmd, 1<<t.pmd) {
				freed = t.shatter(p, shares, list, freed)
				head = 0
			} else {
				t.pmds.Add(1)
			}
			t.pairs[p].head.Store(head)
		}
	}
	for _, u := range freed {
		r.add(u.block, u.n)
	}
}

func touches(list []run, block, n uint64) bool {
	for _, c := range list {
		if c.block < block+n && block < c.block+c.n {
			return true
		}
	}
	return false
}

// shatter writes the words of a piece, whose head still hides them, and appends what has
// no owner left to freed.
func (t *Table) shatter(p, shares uint64, list, freed []run) []run {
	base := p << t.pmd
	left := make([]uint64, 1<<t.pmd)
	live := uint64(0)
	for i := range left {
		left[i] = shares
		b := base + uint64(i)
		for _, c := range list {
			if c.block <= b && b < c.block+c.n {
				if left[i] == 0 {
					misuse("disown of a part", b, shares)
				}
				left[i] -= shareOne
			}
		}
		switch k := len(freed); {
		case left[i] != 0:
			live++
		case k > 0 && freed[k-1].block+freed[k-1].n == b:
			freed[k-1].n++
		default:
			freed = append(freed, run{b, 1})
		}
	}
	if live > 0 {
		t.appear(p, live)
	}
	for i, w := range left {
		if w != 0 {
			t.words[base+uint64(i)].Store(w)
		}
	}
	return freed
}

// Split makes the large folio that covers a block smaller by one order: PUD to PMD, PMD to
// 4 KiB. False if it is of 4 KiB, free, frozen or referenced.
//
// Precondition: as Freeze.
func (t *Table) Split(block uint64) bool {
	for {
		f := t.find(block)
		old := f.w.Load()
		if old&kindMask != f.kind {
			continue
		}
		if f.kind == 0 || old&shareMask == 0 || old&(refMask|frozen|splitting) != 0 {
			return false
		}
		if f.w.CompareAndSwap(old, old|splitting) {
			t.split(&f, old, nil, nil)
			return true
		}
	}
}

// Merge makes one folio of the aligned blocks of an order, PMD or PUD, that are folios of
// the next smaller one, each idle and with exactly one owner. It returns false, and has
// changed nothing, if they are not.
//
// Precondition: as Freeze, and the owner is the same.
func (t *Table) Merge(block uint64, order uint8) bool {
	switch {
	case order == t.pmd && block&(1<<t.pmd-1) == 0 && block+1<<t.pmd <= t.blocks:
		return t.mergePMD(block >> t.pmd)
	case order == t.pud && block&(1<<t.pud-1) == 0 && block+1<<t.pud <= t.blocks:
		return t.mergePUD(block >> t.pmd)
	}
	return false
}

func (t *Table) mergePMD(p uint64) bool {
	if t.pairs[p].head.Load() != 0 {
		return false
	}
	words := t.words[p<<t.pmd : (p+1)<<t.pmd]
	for i := range words {
		if !words[i].CompareAndSwap(shareOne, shareOne|splitting) {
			for j := range words[:i] {
				words[j].Store(shareOne)
			}
			return false
		}
	}
	t.pairs[p].head.Store(kindPMD | shareOne)
	for i := range words {
		words[i].Store(0)
	}
	t.vanish(p, uint64(len(words)))
	t.pmds.Add(1)
	return true
}

func (t *Table) mergePUD(p uint64) bool {
	pairs := t.pairs[p : p+t.span]
	for i := range pairs {
		if !pairs[i].head.CompareAndSwap(kindPMD|shareOne, kindPMD|shareOne|splitting) {
			for j := range pairs[:i] {
				pairs[j].head.Store(kindPMD | shareOne)
			}
			return false
		}
	}
	for i := 1; i < len(pairs); i++ {
		pairs[i].head.Store(kindTail)
	}
	pairs[0].head.Store(kindPUD | shareOne)
	t.pmds.Add(-int64(t.span))
	t.puds.Add(1)
	return true
}
