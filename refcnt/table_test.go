package refcnt

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/daxfs/daxfs/internal/invariants"
)

// newTable returns a table that the test closes.
func newTable(t testing.TB, blocks uint64) *Table {
	t.Helper()
	table, err := New(blocks, 9, 18)
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
	if tab.TryGet(500, 1) {
		t.Fatal("got a free block")
	}
	tab.Own(500, 100) // across a pair's border
	if tab.TryGet(499, 2) || tab.TryGet(599, 2) {
		t.Fatal("got a range that is partly free")
	}
	if tab.Refs(500) != 0 || tab.Refs(599) != 0 {
		t.Fatal("a failed TryGet left references")
	}
	if !tab.TryGet(510, 5) {
		t.Fatal("did not get an owned range")
	}
	tab.Disown(500, 100, got.add)
	wantRuns(t, "disown around references", got.take(), run{500, 10}, run{515, 85})
	if tab.TryGet(510, 1) {
		t.Fatal("got an unlinked block")
	}
	tab.Put(510, 2, got.add)
	tab.Put(513, 2, got.add)
	wantRuns(t, "puts", got.take(), run{510, 2}, run{513, 2})
	tab.Put(512, 1, got.add)
	wantRuns(t, "last put", got.take(), run{512, 1})
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

func TestMaps(t *testing.T) {
	tab := newTable(t, 10)
	var got idles
	if err := tab.TryMap(0, 1); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("map of a free block: %v", err)
	}
	tab.Own(0, 2)
	for range maxMaps {
		if err := tab.TryMap(1, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.TryMap(0, 2); !errors.Is(err, ErrOverflow) {
		t.Fatalf("overflow: %v", err)
	}
	if !tab.TryGet(1, 1) {
		t.Fatal("maps are full, references are not")
	}
	if tab.Maps(0) != 0 || tab.Refs(0) != 0 || tab.Maps(1) != int(maxMaps) || tab.Refs(1) != int(maxMaps)+1 {
		t.Fatalf("maps %d %d refs %d %d", tab.Maps(0), tab.Maps(1), tab.Refs(0), tab.Refs(1))
	}
	tab.Put(1, 1, nil)
	for range maxMaps {
		tab.Unmap(1, 1, nil)
	}
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
	if tab.TryGet(4, 3) || tab.Refs(4) != 0 {
		t.Fatal("got a frozen block")
	}
	tab.Unfreeze(5)
	if !tab.TryGet(4, 3) || !tab.Freeze(5, 1) {
		t.Fatal("did not get or freeze")
	}
	tab.Disown(4, 3, got.add)
	wantRuns(t, "disown", got.take())
	tab.Put(4, 3, got.add)
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
		{"put of idle", func(tab *Table) { tab.Put(1, 1, nil) }},
		{"put of free", func(tab *Table) { tab.Put(9, 1, nil) }},
		{"unmap of idle", func(tab *Table) { tab.Unmap(1, 1, nil) }},
		{"unmap of a reference", func(tab *Table) { tab.TryGet(1, 1); tab.Unmap(1, 1, nil) }},
		{"share of free", func(tab *Table) { _ = tab.Share(2, 1) }},
		{"unfreeze", func(tab *Table) { tab.Unfreeze(1) }},
		{"last with nobody to free", func(tab *Table) { tab.Disown(1, 1, nil) }},
		{"outside", func(tab *Table) { tab.TryGet(9, 2) }},
		{"wrapped", func(tab *Table) { tab.TryGet(9, ^uint64(0)) }},
		{"put of a mapping", func(tab *Table) {
			if !invariants.Enabled {
				panic("not checked")
			}
			_ = tab.TryMap(1, 1)
			tab.Put(1, 1, nil)
		}},
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
	tab.TryGet(1, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := tab.WaitIdle(ctx, 0, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- tab.WaitIdle(context.Background(), 0, 3) }()
	tab.Put(2, 1, nil)
	time.Sleep(5 * time.Millisecond)
	tab.Put(1, 1, nil)
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
		if tab.TryGet(b, 2) {
			t.Fatalf("got block %d of an empty region", b)
		}
		tab.Own(b, 2)
		if !tab.TryGet(b, 2) {
			t.Fatalf("did not get block %d", b)
		}
		tab.Put(b, 2, got.add)
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

// TestBusyPiecesStay keeps pieces in use that the queue has seen empty.
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

// TestOrphan makes a TryGet fail after the owner of what it took has left.
func TestOrphan(t *testing.T) {
	tab := newTable(t, 10)
	var got idles
	leave := func() {
		tab.Own(3, 3)
		if err := tab.acquire(3, 3, refOne); err != nil {
			t.Fatal(err)
		}
		tab.Disown(3, 3, got.add)
		wantRuns(t, "disown", got.take())
		tab.undo(3, 6, refOne)
	}
	leave()
	if s := tab.Stats(); s.Orphans != 3 {
		t.Fatalf("%+v", s)
	}
	tab.Reap(got.add)
	wantRuns(t, "reap", got.take(), run{3, 3})
	leave()
	tab.Own(8, 1)
	tab.TryGet(8, 1)
	tab.Put(8, 1, nil)
	tab.TryGet(8, 1)
	tab.Put(8, 1, got.add)
	wantRuns(t, "anyone's put", got.take(), run{3, 3})
	if s := tab.Stats(); s.Orphans != 0 {
		t.Fatalf("%+v", s)
	}
}

// TestRestoreRefuses: runs that no Walk tells are an error.
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
		{{Block: 8, N: 1, Owners: 1, Lack: true}},
		{{Block: 8, N: 8, Owners: 2}, {Block: 8, N: 1, Owners: 1, Lack: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 8, N: 0, Owners: 1, Lack: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 8, N: 1, Owners: 2, Lack: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 15, N: 2, Owners: 1, Lack: true}},
		{{Block: 8, N: 8, Order: pmd, Owners: 2}, {Block: 10, N: 2, Owners: 1, Lack: true}, {Block: 11, N: 2, Owners: 1, Lack: true}},
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
