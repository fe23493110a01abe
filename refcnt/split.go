package refcnt

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// errChanged: the folio was split, merged or freed since it was found.
var errChanged = errors.New("refcnt: folio changed")

// cuts are the large folios of which some owners own a part only.
type cuts struct {
	mu sync.Mutex
	of map[uint64]layers // protected by mu: by the folio's first block; its word says deferred
}

// set replaces the layers of a folio. Called with mu held, when the word says so.
func (c *cuts) set(block uint64, l layers) {
	if len(l) == 0 {
		delete(c.of, block)
		return
	}
	if c.of == nil {
		c.of = map[uint64]layers{}
	}
	c.of[block] = l
}

// cut takes an owner from a part of a large folio. If that leaves a block without any,
// the folio is split: now, or if it is busy by whoever drops the last reference. It
// returns false if the folio has changed: look again.
func (t *Table) cut(f *folio, block, n uint64, op string, r *idleRun) bool {
	c := &t.cuts
	c.mu.Lock()
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind || old&splitting != 0: // the latter by somebody else, for a few stores
			c.mu.Unlock()
			runtime.Gosched()
			return false
		case old&shareMask == 0 || old&frozen != 0:
			c.mu.Unlock()
			misuse(op+" of a part", block, old)
		}
		l := c.of[f.block].add(block, n)
		if l.max() > sharesOf(old) {
			c.mu.Unlock()
			misuse(op+" of a part that has no owner left", block, old)
		}
		now := old | deferred
		if rest, ok := l.peel(f); ok {
			l, now = rest, now-shareOne
		}
		if len(l) == 0 {
			now &^= deferred
		}
		switch {
		case now&(refMask|shareMask) == 0:
			if f.w.CompareAndSwap(old, f.kind|splitting) {
				c.set(f.block, nil)
				c.mu.Unlock()
				t.vacate(f)
				r.add(f.block, f.n)
				return true
			}
		case now&refMask == 0 && len(l) > 0 && l.max() == sharesOf(now):
			if f.w.CompareAndSwap(old, now|splitting) {
				c.set(f.block, nil)
				c.mu.Unlock()
				t.split(f, now, l, r)
				return true
			}
		case f.w.CompareAndSwap(old, now):
			c.set(f.block, l)
			c.mu.Unlock()
			return true
		}
	}
}

// settle drops the last reference of a folio that says deferred, or an owner of all of
// it: old becomes now, and the folio is split if that leaves a block without an owner. It
// returns false if the word has changed.
func (t *Table) settle(f *folio, old, now uint64, r *idleRun) bool {
	c := &t.cuts
	c.mu.Lock()
	l := c.of[f.block]
	if l.max() < sharesOf(now) {
		ok := f.w.CompareAndSwap(old, now)
		c.mu.Unlock()
		return ok
	}
	if !f.w.CompareAndSwap(old, now|splitting) {
		c.mu.Unlock()
		return false
	}
	c.set(f.block, nil)
	c.mu.Unlock()
	t.split(f, now, l, r)
	return true
}

// sharePart adds an owner of a part of a large folio; errChanged: look again.
func (t *Table) sharePart(f *folio, block, n uint64) error {
	c := &t.cuts
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		old := f.w.Load()
		if old&kindMask != f.kind || old&splitting != 0 {
			return errChanged
		}
		l := c.of[f.block]
		switch {
		case old&shareMask == 0:
			misuse("share", f.block, old)
		case old&shareMask == shareMask:
			return fmt.Errorf("%w: block %d has %d owners", ErrOverflow, f.block, maxShares)
		}
		if block > f.block {
			l = l.add(f.block, block-f.block)
		}
		if end := block + n; end < f.end() {
			l = l.add(end, f.end()-end)
		}
		now := (old | deferred) + shareOne
		if rest, ok := l.peel(f); ok {
			l, now = rest, now-shareOne
		}
		if len(l) == 0 {
			now &^= deferred
		}
		if f.w.CompareAndSwap(old, now) {
			c.set(f.block, l)
			return nil
		}
	}
}

// forgetCuts drops the layers of a folio that goes as a whole; w was its word.
func (t *Table) forgetCuts(f *folio, w uint64) {
	if w&deferred != 0 {
		t.cuts.mu.Lock()
		t.cuts.set(f.block, nil)
		t.cuts.mu.Unlock()
	}
}

// split makes smaller folios of one that is splitting, with the owners that w says, but
// for those that l says own another part only. A PMD folio becomes folios of 4 KiB; a
// PUD folio PMD folios, and folios of 4 KiB where not all is owned alike. What has no owner
// left is free, and added to r.
//
// The word of the folio changes last: until then TryGet fails, and so it does on what is
// free afterwards. Only then are the free blocks reported, since their next owner writes
// words of its own.
func (t *Table) split(f *folio, w uint64, l layers, r *idleRun) {
	shares := w & shareMask
	first := f.block >> t.pmd
	var freed []run
	if f.kind == kindPMD {
		t.pmds.Add(-1)
		freed = t.shatter(first, shares, l, freed)
		f.w.Store(0)
	} else {
		t.puds.Add(-1)
		for i := t.span; i > 0; i-- {
			p, head := first+i-1, kindPMD|shares
			if l.touches(p<<t.pmd, 1<<t.pmd) {
				freed = t.shatter(p, shares, l, freed)
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

// shatter writes the words of a piece, whose head still hides them, and appends what has
// no owner left to freed.
func (t *Table) shatter(p, shares uint64, l layers, freed []run) []run {
	base := p << t.pmd
	left := make([]uint64, 1<<t.pmd)
	live := uint64(0)
	for i := range left {
		b := base + uint64(i)
		left[i] = shares - l.at(b)*shareOne
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
		t.cuts.mu.Lock()
		l := t.cuts.of[f.block]
		ok := f.w.CompareAndSwap(old, old|splitting)
		if ok {
			t.cuts.set(f.block, nil)
		}
		t.cuts.mu.Unlock()
		if ok {
			t.split(&f, old, l, nil)
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
