package refcnt

import (
	"testing"
)

// TestDrainEnds checks that blocks cut from a large folio become free when the references from
// before the cut are gone, although there is never a moment without a reader.
func TestDrainEnds(t *testing.T) {
	const pmd, pud = 3, 6
	tab := newTableOf(t, 1<<pud, pmd, pud)
	var got idles
	free := func() (n uint64) {
		for _, run := range got.runs {
			n += run.n
		}
		return n
	}
	tab.Own(0, 1<<pud)
	const last = 1<<pud - 1 // the readers' block
	cur, waited := get(t, tab, last, 1), 0
	for block := uint64(0); block < last; block++ {
		tab.Disown(block, 1, got.add)
		n := tab.Deferred()
		if n+free() != block+1 {
			t.Fatalf("after block %d: %d deferred and %d free", block, n, free())
		}
		if n > 0 {
			waited++
		}
		next := get(t, tab, last, 1) // before the current reference is dropped
		tab.Put(cur, got.add)
		cur = next
		if n := tab.Deferred(); n != 0 {
			t.Fatalf("after block %d and its readers: %d deferred and %d free", block, n, free())
		}
	}
	if waited != 2 { // for the PUD folio, and for the PMD folio that the readers used then
		t.Errorf("waited %d times", waited)
	}
	tab.Disown(last, 1, got.add)
	tab.Put(cur, got.add)
	if stats := tab.Stats(); free() != 1<<pud || stats.Draining != 0 || stats.PMDs != 0 || stats.PUDs != 0 {
		t.Errorf("%d free in the end: %+v", free(), stats)
	}
}

// TestDrainHolds checks that a long-lived reference keeps all blocks that were cut from its folio,
// whatever happens to the smaller folios there, and no other blocks.
func TestDrainHolds(t *testing.T) {
	const pmd, pud = 3, 6
	tab := newTableOf(t, 2<<pud, pmd, pud)
	var got idles
	tab.Own(0, 2<<pud)
	first := get(t, tab, 0, 1)
	tab.Disown(8, 8, got.add) // the folio is split: the reference drains
	if o := tab.Order(0); o != pmd {
		t.Fatalf("order %d after the cut", o)
	}
	if tab.Refs(63) != 1 || tab.Sole(63, 1) || !tab.Sole(64, 64) {
		t.Fatal("the reference is to another folio")
	}
	read := get(t, tab, 16, 8)
	tab.Disown(16, 4, got.add) // a drain within the other
	tab.Put(read, got.add)
	tab.Disown(0, 8, got.add) // a whole one of the smaller folios
	tab.Disown(64, 1, got.add)
	wantRuns(t, "outside the drain", got.take(), run{64, 1})
	if n := tab.Deferred(); n != 20 {
		t.Errorf("%d blocks deferred, want 20", n)
	}
	tab.Put(first, got.add)
	n := uint64(0)
	for _, r := range got.take() {
		n += r.n
	}
	if n != 20 || tab.Deferred() != 0 || !tab.Sole(24, 40) {
		t.Errorf("%d blocks became free: %+v", n, tab.Stats())
	}
}
