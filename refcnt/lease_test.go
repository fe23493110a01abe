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
	for _, c := range []struct {
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
			r, ok := tab.TryGet(8, 1)
			if !ok {
				panic("cannot be referenced")
			}
			tab.Disown(0, 1<<pud, idle)
			tab.Put(r, idle)
		}, []run{{0, 8}, {16, 1<<pud - 16}}, []run{{8, 8}}},
		{"two leases that overlap", run{4, 8}, func(tab *Table, idle func(block, n uint64)) {
			tab.Lease(8, 8, true)
			tab.Disown(0, 1<<pud, idle)
			tab.Unlease(8, 8, true, idle)
		}, []run{{0, 4}, {16, 1<<pud - 16}, {12, 4}}, []run{{4, 8}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := newTableOf(t, 1<<pud, pmd, pud)
			tab.Own(0, 1<<pud)
			tab.Lease(c.lease.block, c.lease.n, false)
			var now, later idles
			c.do(tab, now.add)
			if !slices.Equal(now.runs, c.freed) {
				t.Errorf("freed %v, want %v", now.runs, c.freed)
			}
			if !tab.Leased(0, 1<<pud) || !tab.Leased(c.lease.block, 1) || tab.Leased(1<<pud-1, 1) && c.lease.n < 1<<pud {
				t.Errorf("Leased does not agree with the lease %v", c.lease)
			}
			kept := uint64(0)
			for _, r := range c.later {
				kept += r.n
			}
			if n := tab.Deferred(); n != kept {
				t.Errorf("%d blocks deferred, want %d", n, kept)
			}
			before := tab.Released()
			tab.Unlease(c.lease.block, c.lease.n, false, later.add)
			if !slices.Equal(later.runs, c.later) {
				t.Errorf("freed with the lease %v, want %v", later.runs, c.later)
			}
			if n := tab.Released() - before; n != kept || tab.Deferred() != 0 || tab.Leased(0, 1<<pud) {
				t.Errorf("released %d, want %d; deferred %d, leased %v", n, kept, tab.Deferred(), tab.Leased(0, 1<<pud))
			}
		})
	}
}

// take returns a function for LeaseFound that takes all blocks once, and reports them to i.
func take(i *idles) func(block, n uint64) (uint64, bool) {
	taken := map[uint64]bool{}
	return func(block, n uint64) (k uint64, ok bool) {
		first := taken[block]
		for k < n && taken[block+k] == first {
			taken[block+k] = true
			k++
		}
		if !first {
			i.add(block, k)
		}
		return k, true
	}
}

// TestLeaseFound checks that a mount's leases pin the blocks that have no owner, and report them
// once.
func TestLeaseFound(t *testing.T) {
	const pmd, pud = 3, 6
	tab := newTableOf(t, 1<<pud, pmd, pud)
	tab.Own(8, 8)
	tab.Own(20, 2)
	var free, later idles
	takeFree, found := take(&free), func(block, n uint64) {}
	tab.LeaseFound(4, 20, takeFree, found)
	tab.LeaseFound(0, 8, takeFree, found)
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
	tab.Unlease(4, 20, true, later.add)
	tab.Unlease(0, 8, true, later.add)
	if got, want := merged(later.runs), []run{{0, 20}, {22, 2}}; !slices.Equal(got, want) {
		t.Errorf("freed %v, want %v", got, want)
	}
}

// TestFoundRuns checks that what a mount finds leased is reported in runs, however long they are.
func TestFoundRuns(t *testing.T) {
	const blocks = 1 << 18
	tab := newTable(t, blocks)
	var free idles
	tab.Own(1000, 1)
	tab.LeaseFound(0, blocks, take(&free), func(block, n uint64) {})
	wantRuns(t, "without an owner", free.take(), run{0, 1000}, run{1001, blocks - 1001})
	tab.Unlease(0, blocks, true, free.add)
	wantRuns(t, "freed", free.take(), run{0, 1000}, run{1001, blocks - 1001})
}

// TestLeaseModel compares a table with counts for each block, through random operations.
func TestLeaseModel(t *testing.T) {
	for seed := range uint64(40) {
		leaseModel(t, seed)
	}
}

func leaseModel(t *testing.T, seed uint64) {
	const pmd, pud, blocks = 3, 6, 3 << 6
	tab := newTableOf(t, blocks, pmd, pud)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var owners, holders, writers, kept [blocks]int // kept: references to folios that the block was part of
	var allocated [blocks]bool                     // not reported as free
	type held struct {
		ref Ref
		run // of the folios
	}
	var refs []held
	type lease struct {
		run
		writable bool
	}
	var leases []lease
	released, counts := uint64(0), false // counts: an operation is under way that releases blocks
	idle := func(block, n uint64) {
		if counts {
			released += n
			if tab.Deferred() < n {
				t.Fatalf("seed %d: blocks %d+%d are neither deferred nor free yet", seed, block, n)
			}
		}
		for b := block; b < block+n; b++ {
			if !allocated[b] || owners[b] != 0 || holders[b] != 0 || kept[b] != 0 {
				t.Fatalf("seed %d: block %d is reported as free: allocated %v, owners %d, leases %d, references %d", seed, b, allocated[b], owners[b], holders[b], kept[b])
			}
			allocated[b] = false
		}
	}
	each := func(r run, f func(b uint64)) {
		for b := r.block; b < r.block+r.n; b++ {
			f(b)
		}
	}
	// owned picks a run of blocks that have an owner.
	owned := func() (r run, ok bool) {
		r = run{rnd.Uint64N(blocks), 0}
		most := 1 + rnd.Uint64N(80)
		for r.block+r.n < blocks && r.n < most && owners[r.block+r.n] > 0 {
			r.n++
		}
		return r, r.n > 0
	}
	for range 600 {
		switch op := rnd.IntN(8); op {
		case 0, 1:
			r := run{rnd.Uint64N(blocks), 0}
			if rnd.IntN(2) == 0 {
				r.block &^= 1<<pmd - 1
			}
			most := 1 + rnd.Uint64N(100)
			for r.block+r.n < blocks && r.n < most && !allocated[r.block+r.n] {
				r.n++
			}
			if r.n > 0 {
				each(r, func(b uint64) { allocated[b], owners[b] = true, 1 })
				tab.Own(r.block, r.n)
			}
		case 2, 3:
			if r, ok := owned(); ok {
				each(r, func(b uint64) { owners[b]-- })
				tab.Disown(r.block, r.n, idle)
			}
		case 4:
			if r, ok := owned(); ok {
				if err := tab.Share(r.block, r.n); err == nil {
					each(r, func(b uint64) { owners[b]++ })
				}
			}
		case 5:
			if r, ok := owned(); ok {
				ref, ok := tab.TryGet(r.block, r.n)
				if !ok {
					t.Fatalf("seed %d: blocks %v cannot be referenced", seed, r)
				}
				size := uint64(1) << tab.Order(ref.Block)
				h := held{ref, run{ref.Block &^ (size - 1), 0}}
				h.n = (ref.Block+ref.N+size-1)&^(size-1) - h.block
				each(h.run, func(b uint64) { kept[b]++ })
				refs = append(refs, h)
			} else if len(refs) > 0 {
				i := rnd.IntN(len(refs))
				h := refs[i]
				refs = slices.Delete(refs, i, i+1)
				each(h.run, func(b uint64) { kept[b]-- })
				counts = true
				tab.Put(h.ref, idle)
				counts = false
			}
		case 6:
			if r, ok := owned(); ok {
				l := lease{r, rnd.IntN(2) == 0}
				each(r, func(b uint64) {
					holders[b]++
					if l.writable {
						writers[b]++
					}
				})
				tab.Lease(r.block, r.n, l.writable)
				leases = append(leases, l)
			}
		case 7:
			if len(leases) > 0 {
				i := rnd.IntN(len(leases))
				l := leases[i]
				leases = slices.Delete(leases, i, i+1)
				each(l.run, func(b uint64) {
					holders[b]--
					if l.writable {
						writers[b]--
					}
				})
				counts = true
				tab.Unlease(l.block, l.n, l.writable, idle)
				counts = false
			}
		}
		deferred := uint64(0)
		for b := range uint64(blocks) {
			if allocated[b] && owners[b] == 0 {
				deferred++
				if holders[b] == 0 && kept[b] == 0 {
					t.Fatalf("seed %d: block %d is free and was not reported", seed, b)
				}
			}
			if got := tab.Leased(b, 1); got != (holders[b] > 0) {
				t.Fatalf("seed %d: block %d leased: %v, %d leases", seed, b, got, holders[b])
			}
			same, n := uint64(1), 1+rnd.Uint64N(blocks-b)
			for same < n && (writers[b+same] > 0) == (writers[b] > 0) {
				same++
			}
			if got, w := tab.LeasedToWrite(b, n); got != same || w != (writers[b] > 0) {
				t.Fatalf("seed %d: blocks %d+%d: the first %d leased to write: %v, want %d, %v", seed, b, n, got, w, same, writers[b] > 0)
			}
		}
		if n := tab.Released(); n != released {
			t.Fatalf("seed %d: %d blocks released, want %d", seed, n, released)
		}
		if n := tab.Deferred(); n != deferred {
			t.Fatalf("seed %d: %d blocks deferred, want %d", seed, n, deferred)
		}
	}
	for i, segments := 1, tab.leases.segments; i < len(segments); i++ {
		if a, b := &segments[i-1], &segments[i]; a.end() > b.block || a.joins(b) {
			t.Fatalf("seed %d: segments %+v and %+v", seed, *a, *b)
		}
	}
}

// TestLeaseStress checks, with owners, readers and lease holders at once, that each block is
// reported as free exactly once for each time that it was owned, and never while it is leased.
func TestLeaseStress(t *testing.T) {
	const pmd, pud, blocks = 3, 6, 2 << 6
	tab := newTableOf(t, blocks, pmd, pud)
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	var holders [blocks]atomic.Int32
	for round := range rounds {
		tab.Own(0, blocks)
		var free atomic.Int64
		idle := func(block, n uint64) {
			for b := block; b < block+n; b++ {
				if k := holders[b].Load(); k != 0 {
					t.Errorf("block %d is free with %d leases", b, k)
				}
			}
			free.Add(int64(n))
		}
		var wg, ready sync.WaitGroup
		for g := range uint64(3) {
			wg.Add(1)
			ready.Add(1)
			go func() {
				defer wg.Done()
				rnd := rand.New(rand.NewPCG(uint64(round), g))
				r := run{block: rnd.Uint64N(blocks)}
				r.n = 1 + rnd.Uint64N(blocks-r.block)
				tab.Lease(r.block, r.n, g == 0) // all blocks are still owned
				for b := r.block; b < r.block+r.n; b++ {
					holders[b].Add(1)
				}
				ready.Done()
				for b := r.block; b < r.block+r.n; b++ {
					if ref, ok := tab.TryGet(b, 1); ok {
						tab.Put(ref, idle)
					}
				}
				for b := r.block; b < r.block+r.n; b++ {
					holders[b].Add(-1)
				}
				tab.Unlease(r.block, r.n, g == 0, idle)
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
