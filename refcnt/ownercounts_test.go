package refcnt

import (
	"errors"
	"testing"
	"time"
)

// TestShareOfPartOverflows checks that a part may get another owner as long as none of its own
// blocks has as many owners as can be counted, however many the rest of the folio has.
func TestShareOfPartOverflows(t *testing.T) {
	tab := newTableOf(t, 64, 3, 5)
	tab.Own(0, 8)
	if err := tab.Share(7, 1); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(maxShares - 1) {
		if err := tab.Share(0, 1); err != nil {
			t.Fatalf("owner %d: %v", i+2, err)
		}
	}
	if err := tab.Share(0, 1); !errors.Is(err, ErrOverflow) {
		t.Errorf("one owner too many: %v", err)
	}
	if err := tab.Share(6, 2); err != nil { // both have fewer
		t.Errorf("others cannot be shared: %v", err)
	}
	for b, want := range []int{int(maxShares), 1, 1, 1, 1, 1, 2, 3} {
		if n := tab.Shares(uint64(b)); n != want {
			t.Errorf("block %d has %d owners, want %d", b, n, want)
		}
	}
}

// TestManyParts checks that the time to add or remove an owner of a part does not grow with the
// number of other parts that are owned: half a million changes of single blocks of a PUD folio take
// a moment.
func TestManyParts(t *testing.T) {
	const pmd, pud = 9, 18
	tab := newTableOf(t, 1<<pud, pmd, pud)
	tab.Own(0, 1<<pud)
	if err := tab.Share(0, 1<<pud); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for b := uint64(0); b < 1<<pud; b += 2 {
		tab.Disown(b, 1, nil)
		if tab.Shares(b) != 1 || tab.Shares(b+1) != 2 {
			t.Fatal("wrong count")
		}
	}
	for b := uint64(0); b < 1<<pud; b += 2 {
		if err := tab.Share(b, 1); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if s := tab.Stats(); s.PUDs != 1 || s.PartlyOwned != 0 {
		t.Errorf("not whole again: %+v", s)
	}
}
