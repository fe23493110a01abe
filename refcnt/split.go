package refcnt

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
)

// errChanged reports that the folio was split, merged or freed since find returned it.
var errChanged = errors.New("refcnt: folio changed")

// partlyOwned is the set of large folios that some owners own in part only.
type partlyOwned struct {
	mu sync.Mutex
	of map[uint64]*ownerCounts // protected by mu; by the folio's first block, whose word says partial
}

// addLocked adds an owner of n blocks of a folio (d is 1), or takes one away (d is -1). It returns
// the folio's owner counts, and by how much the number of owners in its word has to rise. Called
// with mu held: the caller keeps mu until the word agrees, or until another addLocked has undone
// the change.
func (c *partlyOwned) addLocked(f *folio, shift uint8, block, n uint64, d int64) (y *ownerCounts, rise int64) {
	y = c.of[f.block]
	if y == nil {
		y = newOwnerCounts(f, shift)
		if c.of == nil {
			c.of = map[uint64]*ownerCounts{}
		}
		c.of[f.block] = y
	}
	rise = y.add(block-f.block, n, d)
	if y.even() {
		delete(c.of, f.block)
	}
	return y, rise
}

// cut takes an owner from n blocks, a part of a large folio. If that leaves a block without an
// owner, the folio is split. It returns false if the folio has changed, and the caller has to find
// it again.
func (t *Table) cut(f *folio, block, n uint64, op string, r *idleRun) bool {
	c := &t.partlyOwned
	c.mu.Lock()
	y, rise := c.addLocked(f, t.pmd, block, n, -1)
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind || old&splitting != 0: // another thread is splitting it, for a few stores
			c.addLocked(f, t.pmd, block, n, 1)
			c.mu.Unlock()
			runtime.Gosched()
			return false
		case old&shareMask == 0 || old&frozen != 0:
			c.addLocked(f, t.pmd, block, n, 1)
			c.mu.Unlock()
			t.noOwner(op+" of a part", block, old)
			return true
		}
		now := y.word(old, rise)
		left := y.least(sharesOf(now))
		if left < 0 {
			c.addLocked(f, t.pmd, block, n, 1)
			c.mu.Unlock()
			t.noOwner(op+" of a part that has no owner left", block, old)
			return true
		}
		if left > 0 {
			if f.w.CompareAndSwap(old, now) {
				c.mu.Unlock()
				return true
			}
		} else if d, ok := t.drains.begin(f, old, parting(now)); ok {
			delete(c.of, f.block)
			c.mu.Unlock()
			t.split(f, now, y, d, r)
			return true
		}
	}
}

// word returns the word w of a folio with rise more owners. The word says partial if the owner
// counts are still needed.
func (y *ownerCounts) word(w uint64, rise int64) uint64 {
	w += uint64(rise) * shareOne
	if y.even() {
		return w &^ partial
	}
	return w | partial
}

// parting returns the word w of a folio that is about to be split: marked as splitting, and without
// its references, which go to a drain.
func parting(w uint64) uint64 { return w&^refMask | splitting }

// disownWhole takes an owner of the whole folio from a folio whose word says partial: old becomes
// now. The folio is split if that leaves a block without an owner. It returns false if the word is
// not old.
func (t *Table) disownWhole(f *folio, old, now uint64, r *idleRun) bool {
	c := &t.partlyOwned
	c.mu.Lock()
	y := c.of[f.block]
	if y == nil || y.least(sharesOf(now)) > 0 { // nil: the word has changed, and the swap fails
		ok := f.w.CompareAndSwap(old, now)
		c.mu.Unlock()
		return ok
	}
	d, ok := t.drains.begin(f, old, parting(now))
	if ok {
		delete(c.of, f.block)
	}
	c.mu.Unlock()
	if ok {
		t.split(f, now, y, d, r)
	}
	return ok
}

// sharePart adds an owner of n blocks, a part of a large folio. It returns errChanged if the folio
// has changed, and the caller has to find it again.
func (t *Table) sharePart(f *folio, block, n uint64) error {
	c := &t.partlyOwned
	c.mu.Lock()
	defer c.mu.Unlock()
	y, rise := c.addLocked(f, t.pmd, block, n, 1)
	for {
		old := f.w.Load()
		switch {
		case old&kindMask != f.kind || old&splitting != 0:
			c.addLocked(f, t.pmd, block, n, -1)
			return errChanged
		case old&shareMask == 0:
			c.addLocked(f, t.pmd, block, n, -1)
			if t.doubt == nil {
				misuse("share", f.block, old)
			}
			return ErrNoOwner
		case old&shareMask == shareMask && rise > 0:
			c.addLocked(f, t.pmd, block, n, -1)
			return fmt.Errorf("%w: block %d has %d owners", ErrOverflow, block, maxShares)
		}
		if f.w.CompareAndSwap(old, y.word(old, rise)) {
			return nil
		}
	}
}

// split replaces a folio that is splitting by smaller folios, with the owners that w counts and y
// spreads over the blocks. A PMD folio becomes folios of 4 KiB. A PUD folio becomes PMD folios, and
// folios of 4 KiB in pieces whose blocks have different owner counts. Blocks that have no owner
// left are free, and added to r.
//
// The word of the folio changes last: until then TryGet fails, and so it does on free blocks
// afterwards. The free blocks are reported only then, since their next owner writes words of its
// own. If d is not nil, it has the references that the folio had, and pins the free blocks.
func (t *Table) split(f *folio, w uint64, y *ownerCounts, d *drain, r *idleRun) {
	shares, first := sharesOf(w), f.block>>t.pmd
	var freed []run
	if f.kind == kindPMD {
		t.pmds.Add(-1)
	} else {
		t.puds.Add(-1)
	}
	var head, h uint64
	for i := range f.n >> t.pmd {
		p := first + i
		all, each := y.piece(i, shares)
		switch h = 0; {
		case each != nil || f.kind == kindPMD && all > 0:
			freed = t.shatter(p, all, each, freed)
		case all == 0:
			freed = append(freed, run{p << t.pmd, 1 << t.pmd})
		default:
			h = kindPMD | all*shareOne
			t.pmds.Add(1)
		}
		if i == 0 {
			head = h
		} else {
			t.pairs[p].head.Store(h)
		}
	}
	f.w.Store(head)
	for _, u := range freed {
		r.add(u.block, u.n)
	}
	if d != nil {
		t.drains.put(f, "split", r) // the reference that begin added for this split
	}
}

// shatter writes the words of a piece, whose head still hides them. Each block gets the number of
// owners in each, or all if each is nil. It appends the blocks without an owner to freed.
func (t *Table) shatter(p, all uint64, each []uint64, freed []run) []run {
	base, live := p<<t.pmd, uint64(1)<<t.pmd
	for i, n := range each {
		if n != 0 {
			continue
		}
		live--
		b := base + uint64(i)
		if k := len(freed); k > 0 && freed[k-1].block+freed[k-1].n == b {
			freed[k-1].n++
		} else {
			freed = append(freed, run{b, 1})
		}
	}
	t.appear(p, live)
	for i := range uint64(1) << t.pmd {
		if each != nil {
			all = each[i]
		}
		if all != 0 {
			t.words[base+i].Store(all * shareOne)
		}
	}
	return freed
}

// Split replaces the large folio that covers a block by folios of the next smaller order: PUD to
// PMD, PMD to 4 KiB. It returns false if the folio is of 4 KiB, free, frozen or referenced.
//
// Precondition: as for Freeze.
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
		t.partlyOwned.mu.Lock()
		y := t.partlyOwned.of[f.block]
		ok := f.w.CompareAndSwap(old, old|splitting)
		if ok {
			delete(t.partlyOwned.of, f.block)
		}
		t.partlyOwned.mu.Unlock()
		if ok {
			t.split(&f, old, y, nil, nil)
			return true
		}
	}
}

// Merge makes one folio of an order, PMD or PUD, from the aligned blocks at block. These must be
// folios of the next smaller order, each idle and with exactly one owner. Otherwise it returns
// false and has changed nothing.
//
// Precondition: as for Freeze, and all of them have the same owner.
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
