package refcnt

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// TestLeaseKeeps checks which blocks become free, and when, for each way in which a leased folio
// loses its owners and references.
func TestLeaseKeeps(t *testing.T) {
	const pmd, pud = 3, 6
	none := []run(nil)
	for _, test := range []struct {
		name  string
		lease run
		do    func(tab *Table, idle func(block, n uint64))
		freed []run // by do
		later []run // by Unlease
	}{
		{"a leased block of a large folio", run{3, 1}, func(tab *Table, idle func(block, n uint64)) {
			tab.Disown(0, 1<<pud, idle)
		}, []run{{0, 3}, {4, 1<<pud - 4}}, []run{{3, 1}}},
		{"a large folio that loses the leased part first", run{6, 4}, func(tab *Table, idle func(block, n uint64)) {
			tab.Disown(0, 9, idle)
			tab.Disown(9, 1<<pud-9, idle)
		}, []run{{0, 6}, {10, 1<<pud - 10}}, []run{{6, 4}}},
		{"an owner that stays", run{3, 1}, func(tab *Table, idle func(block, n uint64)) {
			tab.Disown(0, 3, idle)
			tab.Disown(4, 1<<pud-4, idle)
		}, []run{{0, 3}, {4, 1<<pud - 4}}, none},
		{"a second owner", run{0, 1 << pud}, func(tab *Table, idle func(block, n uint64)) {
			if err := tab.Share(0, 1<<pud); err != nil {
				panic(err)
			}
			tab.Disown(0, 1<<pud, idle)
		}, none, none},
		{"a reader that comes and goes", run{8, 8}, func(tab *Table, idle func(block, n uint64)) {
			ref, ok := tab.TryGet(8, 1)
			if !ok {
				panic("cannot be referenced")
			}
			tab.Disown(0, 1<<pud, idle)
			tab.Put(ref, idle)
		}, []run{{0, 8}, {16, 1<<pud - 16}}, []run{{8, 8}}},
		{"two leases that overlap", run{4, 8}, func(tab *Table, idle func(block, n uint64)) {
			tab.Lease(8, 8)
			tab.Disown(0, 1<<pud, idle)
			tab.Unlease(8, 8, idle)
		}, []run{{0, 4}, {16, 1<<pud - 16}, {12, 4}}, []run{{4, 8}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tab, err := New(1<<pud, pmd, pud)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tab.Close() }()
			tab.Own(0, 1<<pud)
			tab.Lease(test.lease.block, test.lease.n)
			var now, later idles
			test.do(tab, now.add)
			if !slices.Equal(now.runs, test.freed) {
				t.Errorf("freed %v, want %v", now.runs, test.freed)
			}
			if !tab.Leased(0, 1<<pud) || !tab.Leased(test.lease.block, 1) || tab.Leased(1<<pud-1, 1) && test.lease.n < 1<<pud {
				t.Errorf("Leased does not agree with the lease %v", test.lease)
			}
			kept := uint64(0)
			for _, run := range test.later {
				kept += run.n
			}
			if n := tab.Deferred(); n != kept {
				t.Errorf("%d blocks deferred, want %d", n, kept)
			}
			before := tab.Released()
			tab.Unlease(test.lease.block, test.lease.n, later.add)
			if !slices.Equal(later.runs, test.later) {
				t.Errorf("freed with the lease %v, want %v", later.runs, test.later)
			}
			if n := tab.Released() - before; n != kept || tab.Deferred() != 0 || tab.Leased(0, 1<<pud) {
				t.Errorf("released %d, want %d; deferred %d, leased %v", n, kept, tab.Deferred(), tab.Leased(0, 1<<pud))
			}
		})
	}
}

// TestLeaseFound checks that a mount's leases pin the blocks that have no owner, and report them
// once.
func TestLeaseFound(t *testing.T) {
	const pmd, pud = 3, 6
	tab, err := New(1<<pud, pmd, pud)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tab.Close() }()
	tab.Own(8, 8)
	tab.Own(20, 2)
	var free, later idles
	tab.LeaseFound(4, 20, free.add)
	tab.LeaseFound(0, 8, free.add)
	merged := func(all []run) (out []run) {
		slices.SortFunc(all, func(a, b run) int { return int(a.block) - int(b.block) })
		for _, r := range all {
			if k := len(out) - 1; k >= 0 && out[k].block+out[k].n == r.block {
				out[k].n += r.n
			} else {
				out = append(out, r)
			}
		}
		return out
	}
	if got, want := merged(free.runs), []run{{0, 8}, {16, 4}, {22, 2}}; !slices.Equal(got, want) {
		t.Errorf("reported %v as free without a lease, want %v", got, want)
	}
	tab.Disown(8, 8, later.add)
	tab.Unlease(4, 20, later.add)
	tab.Unlease(0, 8, later.add)
	if got, want := merged(later.runs), []run{{0, 20}, {22, 2}}; !slices.Equal(got, want) {
		t.Errorf("freed %v, want %v", got, want)
	}
}

// TestLeaseModel compares a table with counts for each block, through random operations.
func TestLeaseModel(t *testing.T) {
	for seed := range uint64(40) {
		leaseModel(t, seed)
	}
}

func leaseModel(t *testing.T, seed uint64) {
	const pmd, pud, blocks = 3, 6, 3 << 6
	tab, err := New(blocks, pmd, pud)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tab.Close() }()
	rnd := rand.New(rand.NewPCG(seed, 1))
	var owners, holders, kept [blocks]int // kept: references to folios that the block was part of
	var allocated [blocks]bool            // not reported as free
	type held struct {
		ref Ref
		run // of the folios
	}
	var refs []held
	var leases []run
	idle := func(block, n uint64) {
		for freed := block; freed < block+n; freed++ {
			if !allocated[freed] || owners[freed] != 0 || holders[freed] != 0 || kept[freed] != 0 {
				t.Fatalf("seed %d: block %d is reported as free: allocated %v, owners %d, leases %d, references %d", seed, freed, allocated[freed], owners[freed], holders[freed], kept[freed])
			}
			allocated[freed] = false
		}
	}
	each := func(span run, f func(block uint64)) {
		for block := span.block; block < span.block+span.n; block++ {
			f(block)
		}
	}
	// owned picks a run of blocks that have an owner.
	owned := func() (span run, ok bool) {
		span = run{rnd.Uint64N(blocks), 0}
		most := 1 + rnd.Uint64N(80)
		for span.block+span.n < blocks && span.n < most && owners[span.block+span.n] > 0 {
			span.n++
		}
		return span, span.n > 0
	}
	for range 600 {
		switch operation := rnd.IntN(8); operation {
		case 0, 1:
			span := run{rnd.Uint64N(blocks), 0}
			if rnd.IntN(2) == 0 {
				span.block &^= 1<<pmd - 1
			}
			most := 1 + rnd.Uint64N(100)
			for span.block+span.n < blocks && span.n < most && !allocated[span.block+span.n] {
				span.n++
			}
			if span.n > 0 {
				each(span, func(block uint64) { allocated[block], owners[block] = true, 1 })
				tab.Own(span.block, span.n)
			}
		case 2, 3:
			if span, ok := owned(); ok {
				each(span, func(block uint64) { owners[block]-- })
				tab.Disown(span.block, span.n, idle)
			}
		case 4:
			if span, ok := owned(); ok {
				if err := tab.Share(span.block, span.n); err == nil {
					each(span, func(block uint64) { owners[block]++ })
				}
			}
		case 5:
			if span, ok := owned(); ok {
				ref, ok := tab.TryGet(span.block, span.n)
				if !ok {
					t.Fatalf("seed %d: blocks %v cannot be referenced", seed, span)
				}
				size := uint64(1) << tab.Order(ref.Block)
				holding := held{ref, run{ref.Block &^ (size - 1), 0}}
				holding.n = (ref.Block+ref.N+size-1)&^(size-1) - holding.block
				each(holding.run, func(block uint64) { kept[block]++ })
				refs = append(refs, holding)
			} else if len(refs) > 0 {
				i := rnd.IntN(len(refs))
				holding := refs[i]
				refs = slices.Delete(refs, i, i+1)
				each(holding.run, func(block uint64) { kept[block]-- })
				tab.Put(holding.ref, idle)
			}
		case 6:
			if span, ok := owned(); ok {
				each(span, func(block uint64) { holders[block]++ })
				tab.Lease(span.block, span.n)
				leases = append(leases, span)
			}
		case 7:
			if len(leases) > 0 {
				i := rnd.IntN(len(leases))
				span := leases[i]
				leases = slices.Delete(leases, i, i+1)
				each(span, func(block uint64) { holders[block]-- })
				tab.Unlease(span.block, span.n, idle)
			}
		}
		deferred := uint64(0)
		for block := range uint64(blocks) {
			if allocated[block] && owners[block] == 0 {
				deferred++
				if holders[block] == 0 && kept[block] == 0 {
					t.Fatalf("seed %d: block %d is free and was not reported", seed, block)
				}
			}
			if got := tab.Leased(block, 1); got != (holders[block] > 0) {
				t.Fatalf("seed %d: block %d leased: %v, %d leases", seed, block, got, holders[block])
			}
		}
		if n := tab.Deferred(); n != deferred {
			t.Fatalf("seed %d: %d blocks deferred, want %d", seed, n, deferred)
		}
	}
	for i, segments := 1, tab.leases.segments; i < len(segments); i++ {
		if before, after := &segments[i-1], &segments[i]; before.end() > after.block || before.joins(after) {
			t.Fatalf("seed %d: segments %+v and %+v", seed, *before, *after)
		}
	}
}

// TestLeaseStress checks, with owners, readers and lease holders at once, that each block is
// reported as free exactly once for each time that it was owned, and never while it is leased.
func TestLeaseStress(t *testing.T) {
	const pmd, pud, blocks = 3, 6, 2 << 6
	tab, err := New(blocks, pmd, pud)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tab.Close() }()
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	var holders [blocks]atomic.Int32
	for round := range rounds {
		tab.Own(0, blocks)
		var free atomic.Int64
		idle := func(block, n uint64) {
			for freed := block; freed < block+n; freed++ {
				if count := holders[freed].Load(); count != 0 {
					t.Errorf("block %d is free with %d leases", freed, count)
				}
			}
			free.Add(int64(n))
		}
		var wg, ready sync.WaitGroup
		for worker := range uint64(3) {
			wg.Add(1)
			ready.Add(1)
			go func() {
				defer wg.Done()
				rnd := rand.New(rand.NewPCG(uint64(round), worker))
				span := run{block: rnd.Uint64N(blocks)}
				span.n = 1 + rnd.Uint64N(blocks-span.block)
				tab.Lease(span.block, span.n) // all blocks are still owned
				for block := span.block; block < span.block+span.n; block++ {
					holders[block].Add(1)
				}
				ready.Done()
				for block := span.block; block < span.block+span.n; block++ {
					if ref, ok := tab.TryGet(block, 1); ok {
						tab.Put(ref, idle)
					}
				}
				for block := span.block; block < span.block+span.n; block++ {
					holders[block].Add(-1)
				}
				tab.Unlease(span.block, span.n, idle)
			}()
		}
		ready.Wait()
		for at := uint64(0); at < blocks; at += 16 {
			tab.Disown(at, 16, idle)
		}
		wg.Wait()
		if n := free.Load(); n != blocks || tab.Deferred() != 0 || tab.Leased(0, blocks) {
			t.Fatalf("round %d: %d of %d blocks free, %d deferred", round, n, blocks, tab.Deferred())
		}
	}
}
