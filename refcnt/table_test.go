package refcnt

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

// newTable returns a table of that many blocks with the usual orders, which the test closes.
func newTable(t testing.TB, blocks uint64) *Table {
	t.Helper()
	return newTableOf(t, blocks, 9, 18)
}

// newTableOf is newTable with other orders.
func newTableOf(t testing.TB, blocks uint64, pmd, pud uint8) *Table {
	t.Helper()
	table, err := New(blocks, pmd, pud)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Error(err)
		}
	})
	return table
}

// idles collects idle reports.
type idles struct{ runs []run }

func (i *idles) add(block, n uint64) { i.runs = append(i.runs, run{block, n}) }

// take returns the reports since the last take.
func (i *idles) take() []run {
	r := i.runs
	i.runs = nil
	return r
}

// get takes a reference, and fails the test if it cannot.
func get(t testing.TB, tab *Table, block, n uint64) Ref {
	t.Helper()
	r, ok := tab.TryGet(block, n)
	if !ok {
		t.Fatalf("did not get block %d", block)
	}
	return r
}

func wantRuns(t *testing.T, what string, got []run, want ...run) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: reported %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: reported %v, want %v", what, got, want)
		}
	}
}

func TestNewRefusesSizes(t *testing.T) {
	for _, blocks := range []uint64{0, maxBlocks + 1, ^uint64(0)} {
		if _, err := New(blocks, 9, 18); !errors.Is(err, ErrSize) {
			t.Errorf("New(%d): %v", blocks, err)
		}
	}
}

func TestLife(t *testing.T) {
	tab := newTable(t, 2000)
	var got idles
	if _, ok := tab.TryGet(500, 1); ok {
		t.Fatal("got a free block")
	}
	tab.Own(500, 100) // across a pair's border
	if _, ok := tab.TryGet(499, 2); ok {
		t.Fatal("got a range that begins with a free block")
	}
	if ref := get(t, tab, 599, 2); ref.N != 1 || tab.Refs(600) != 0 {
		t.Fatalf("got %d blocks of a range of which one is owned", ref.N)
	} else {
		tab.Put(ref, nil)
	}
	if tab.Refs(500) != 0 || tab.Refs(599) != 0 {
		t.Fatal("references are left")
	}
	for block := uint64(510); block < 515; block++ {
		get(t, tab, block, 1)
	}
	tab.Disown(500, 100, got.add)
	wantRuns(t, "disown around references", got.take(), run{500, 10}, run{515, 85})
	if _, ok := tab.TryGet(510, 1); ok {
		t.Fatal("got an unlinked block")
	}
	if n := tab.Deferred(); n != 5 {
		t.Fatalf("%d blocks are deferred", n)
	}
	tab.Put(Ref{Block: 510, N: 2}, got.add)
	tab.Put(Ref{Block: 513, N: 2}, got.add)
	wantRuns(t, "puts", got.take(), run{510, 2}, run{513, 2})
	tab.Put(Ref{Block: 512, N: 1}, got.add)
	wantRuns(t, "last put", got.take(), run{512, 1})
	if n := tab.Deferred(); n != 0 {
		t.Fatalf("%d blocks are deferred", n)
	}
	tab.Own(500, 100)
	tab.Disown(500, 100, got.add)
	wantRuns(t, "disown", got.take(), run{500, 100})
}

func TestShare(t *testing.T) {
	tab := newTable(t, 10)
	var got idles
	tab.Own(1, 3)
	if err := tab.Share(1, 3); err != nil {
		t.Fatal(err)
	}
	if tab.Shares(2) != 2 {
		t.Fatalf("shares %d", tab.Shares(2))
	}
	tab.Disown(1, 3, nil)
	tab.words[2].Store(tab.words[2].Load() | shareMask)
	if err := tab.Share(1, 3); !errors.Is(err, ErrOverflow) {
		t.Fatalf("overflow: %v", err)
	}
	if tab.Shares(1) != 1 || tab.Shares(2) != int(maxShares) || tab.Shares(3) != 1 {
		t.Fatal("a failed Share left shares")
	}
	tab.Disown(3, 1, got.add)
	wantRuns(t, "disown", got.take(), run{3, 1})
}

// TestManyReferences checks that a folio with as many references as can be counted gets no more.
func TestManyReferences(t *testing.T) {
	tab := newTable(t, 10)
	var got idles
	tab.Own(0, 2)
	w := tab.find(1).w
	w.Add(maxRefs)
	if _, err := tab.acquire(1, 1); !errors.Is(err, ErrOverflow) {
		t.Fatalf("overflow: %v", err)
	}
	if r, ok := tab.TryGet(0, 2); !ok || r.N != 1 {
		t.Fatalf("got %d blocks up to one that is full, %v", r.N, ok)
	} else {
		tab.Put(r, nil)
	}
	if tab.Refs(0) != 0 || tab.Refs(1) != int(maxRefs) {
		t.Fatalf("refs %d %d", tab.Refs(0), tab.Refs(1))
	}
	w.Add(^uint64(maxRefs - 1))
	tab.Disown(0, 2, got.add)
	wantRuns(t, "disown", got.take(), run{0, 2})
}

func TestFreeze(t *testing.T) {
	tab := newTable(t, 10)
	var got idles
	if tab.Freeze(5, 0) {
		t.Fatal("froze a free block")
	}
	tab.Own(4, 3)
	if tab.Freeze(5, 1) || !tab.Freeze(5, 0) || tab.Freeze(5, 0) {
		t.Fatal("froze at the wrong count, or twice")
	}
	if r := get(t, tab, 4, 3); r.N != 1 {
		t.Fatal("got a frozen block")
	} else {
		tab.Put(r, nil)
	}
	tab.Unfreeze(5)
	r := get(t, tab, 4, 3)
	if r.N != 3 || !tab.Freeze(5, 1) {
		t.Fatal("did not get or freeze")
	}
	tab.Disown(4, 3, got.add)
	wantRuns(t, "disown", got.take())
	tab.Put(r, got.add)
	wantRuns(t, "put of a frozen block", got.take(), run{4, 3})
	if w := tab.words[5].Load(); w != 0 {
		t.Fatalf("word %#x after the end", w)
	}
}

func TestMisusePanics(t *testing.T) {
	for _, c := range []struct {
		name string
		f    func(tab *Table)
	}{
		{"own of owned", func(tab *Table) { tab.Own(0, 2) }},
		{"disown of free", func(tab *Table) { tab.Disown(1, 2, func(_, _ uint64) {}) }},
		{"put of idle", func(tab *Table) { tab.Put(Ref{Block: 1, N: 1}, nil) }},
		{"put of free", func(tab *Table) { tab.Put(Ref{Block: 9, N: 1}, nil) }},
		{"unlease of what is not leased", func(tab *Table) { tab.Lease(1, 1, false); tab.Unlease(1, 2, false, nil) }},
		{"unlease of another kind", func(tab *Table) { tab.Lease(1, 1, false); tab.Unlease(1, 1, true, nil) }},
		{"share of free", func(tab *Table) { _ = tab.Share(2, 1) }},
		{"unfreeze", func(tab *Table) { tab.Unfreeze(1) }},
		{"last count without idle", func(tab *Table) { tab.Disown(1, 1, nil) }},
		{"outside", func(tab *Table) { tab.TryGet(9, 2) }},
		{"wrapped", func(tab *Table) { tab.TryGet(9, ^uint64(0)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := newTable(t, 10)
			tab.Own(1, 1)
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			c.f(tab)
		})
	}
}

func TestWaitIdle(t *testing.T) {
	tab := newTable(t, 10)
	tab.Own(0, 3)
	if err := tab.WaitIdle(context.Background(), 0, 3); err != nil {
		t.Fatal(err)
	}
	r, second := get(t, tab, 1, 1), get(t, tab, 2, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := tab.WaitIdle(ctx, 0, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- tab.WaitIdle(context.Background(), 0, 3) }()
	tab.Put(second, nil)
	time.Sleep(5 * time.Millisecond)
	tab.Put(r, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestLargeRegion has a table of 16 TiB, of which a few folios are in use.
func TestLargeRegion(t *testing.T) {
	if invariants.Enabled {
		t.Skip("under the race detector the table is all there")
	}
	const blocks = 1 << 32
	tab := newTable(t, blocks)
	var got idles
	for _, b := range []uint64{0, 1 << 20, blocks/2 - 1, blocks - 2} {
		if _, ok := tab.TryGet(b, 2); ok {
			t.Fatalf("got block %d of an empty region", b)
		}
		tab.Own(b, 2)
		r := get(t, tab, b, 2)
		if r.N != 2 {
			t.Fatalf("got %d blocks from block %d on", r.N, b)
		}
		tab.Put(r, got.add)
		tab.Disown(b, 2, got.add)
		wantRuns(t, "disown", got.take(), run{b, 2})
	}
	s := tab.Stats()
	if perTiB := s.PairBytes / 16; perTiB != 8<<20 {
		t.Errorf("%d bytes of pairs per TiB", perTiB)
	}
	if s.Tables != 5 {
		t.Errorf("%+v", s)
	}
}

// TestRecycling walks over more pieces than may stay empty.
func TestRecycling(t *testing.T) {
	const pieces = 3 * keepEmpty
	tab := newTable(t, pieces*512)
	var got idles
	for round := range uint64(3) {
		for p := range uint64(pieces) {
			b := p*512 + round
			tab.Own(b, 1)
			tab.Disown(b, 1, got.add)
		}
		if n := len(got.take()); n != pieces {
			t.Fatalf("%d reports", n)
		}
		s := tab.Stats()
		if s.Tables != keepEmpty || s.Recycled != (round+1)*pieces-keepEmpty {
			t.Fatalf("round %d: %+v", round, s)
		}
	}
	for i := range tab.words {
		if w := tab.words[i].Load(); w != 0 {
			t.Fatalf("word of block %d is %#x", i, w)
		}
	}
	if s := tab.Stats(); s.PairBytes != pieces*16 || s.TableBytes != keepEmpty*4096 {
		t.Fatalf("%+v", s)
	}
}

// TestBusyPiecesStay checks that pieces in use are not recycled, although they are still in the
// queue of empty pieces.
func TestBusyPiecesStay(t *testing.T) {
	const pieces = 2 * keepEmpty
	tab := newTable(t, pieces*512)
	var got idles
	for p := range uint64(pieces) {
		b := p * 512
		tab.Own(b, 1)
		tab.Disown(b, 1, got.add)
		tab.Own(b+1, 1)
	}
	if s := tab.Stats(); s.Tables != pieces || s.Recycled != 0 {
		t.Fatalf("%+v", s)
	}
	for p := range uint64(pieces) {
		if tab.Shares(p*512+1) != 1 {
			t.Fatalf("piece %d lost its owner", p)
		}
		tab.Disown(p*512+1, 1, got.add)
	}
	if s := tab.Stats(); s.Tables != keepEmpty {
		t.Fatalf("%+v", s)
	}
}

// TestRestoreRefuses checks that Restore refuses runs that Walk cannot have returned.
func TestRestoreRefuses(t *testing.T) {
	const pmd, pud, blocks = 3, 5, 150
	for _, rs := range [][]Run{
		{{Block: 151, N: 0, Owners: 1}},
		{{Block: 149, N: 2, Owners: 1}},
		{{Block: 8, N: 1 << 63, Owners: 1}},
		{{Block: 8, N: 8, Order: 4, Owners: 1}},
		{{Block: 8, N: 8, Order: 64, Owners: 1}},
		{{Block: 4, N: 8, Order: pmd, Owners: 1}},
		{{Block: 8, N: 9, Order: pmd, Owners: 1}},
		{{Block: 8, N: 8, Order: pud, Owners: 1}},
		{{Block: 8, N: 8, Order: pmd}},
		{{Block: 8, N: 8, Owners: maxShares + 1}},
		{{Block: 8, N: 1, Owners: 1, Missing: true}},
		{{Block: 8, N: 8, Owners: 2}, {Block: 8, N: 1, Owners: 1, Missing: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 8, N: 0, Owners: 1, Missing: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 8, N: 1, Owners: 2, Missing: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 15, N: 2, Owners: 1, Missing: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 10, N: 2, Owners: 1, Missing: true}, {Block: 11, N: 2, Owners: 1, Missing: true}},
	} {
		tab, err := New(blocks, pmd, pud)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range rs {
			if err := tab.Restore(r); errors.Is(err, ErrRun) != (i == len(rs)-1) {
				t.Errorf("%+v, run %d: %v", rs, i, err)
			}
		}
		_ = tab.Close()
	}
}
