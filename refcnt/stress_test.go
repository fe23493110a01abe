package refcnt

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

// TestStress has owners and readers race for a few folios, readers with stale block numbers too. It
// counts the idle reports: one per life of a block. Blocks that are reported go into a pool that
// acts as the allocator. Every piece is emptied again and again, so that tables come and go.
func TestStress(t *testing.T) {
	const (
		pieces  = keepEmpty + 64 // so that the oldest empty one is recycled
		perLife = 3              // blocks owned together
		actors  = 4
	)
	rounds := 200_000
	if invariants.Enabled || testing.Short() {
		rounds = 20_000
	}
	tab := newTable(t, pieces*512)
	var (
		mu   sync.Mutex
		pool []uint64 // blocks the allocator has
		out  = make([]atomic.Bool, pieces*512)
	)
	for piece := range uint64(pieces) {
		for offset := range uint64(perLife) {
			pool = append(pool, piece*512+offset+512-perLife)
		}
	}
	total := len(pool)
	idle := func(block, n uint64) {
		for freed := block; freed < block+n; freed++ {
			if !out[freed].CompareAndSwap(true, false) {
				t.Errorf("block %d reported twice in one life", freed)
			}
		}
		mu.Lock()
		for freed := block; freed < block+n; freed++ {
			pool = append(pool, freed)
		}
		mu.Unlock()
	}
	alloc := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(pool) == 0 {
			return 0, false
		}
		block := pool[0]
		pool = pool[1:]
		return block, true
	}
	var wg sync.WaitGroup
	var gets atomic.Int64
	for actor := range actors {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(7, uint64(actor)))
			var owned []uint64
			for range rounds {
				switch rng.IntN(4) {
				case 0:
					if block, ok := alloc(); ok {
						if out[block].Swap(true) {
							t.Errorf("block %d allocated twice", block)
						}
						tab.Own(block, 1)
						owned = append(owned, block)
					}
				case 1:
					if len(owned) > 0 {
						block := owned[0]
						owned = owned[1:]
						if rng.IntN(4) == 0 && tab.Freeze(block, 0) {
							if rng.IntN(2) == 0 {
								tab.Unfreeze(block)
							}
						}
						tab.Disown(block, 1, idle)
					}
				default: // a reader, which does not know what is owned
					block := rng.Uint64N(pieces)*512 + 512 - perLife
					n := 1 + rng.Uint64N(perLife)
					if ref, ok := tab.TryGet(block, n); ok {
						gets.Add(1)
						if rng.IntN(8) == 0 {
							runtime.Gosched()
						}
						tab.Put(ref, idle)
					}
				}
			}
			for _, block := range owned {
				tab.Disown(block, 1, idle)
			}
		}()
	}
	wg.Wait()
	if len(pool) != total {
		t.Errorf("%d blocks came back, want %d", len(pool), total)
	}
	for block := range uint64(pieces * 512) {
		if word := tab.words[block].Load(); word != 0 {
			misuse("end of test", block, word)
		}
	}
	stats := tab.Stats()
	if stats.Tables > keepEmpty || stats.Deferred != 0 {
		t.Errorf("%+v", stats)
	}
	t.Logf("%d gets, %+v", gets.Load(), stats)
}

// TestStressRecycling has owners meet the recycler: few blocks, and a queue of empty pieces that is
// always full.
func TestStressRecycling(t *testing.T) {
	const pieces = keepEmpty + 4
	rounds := 300
	if invariants.Enabled || testing.Short() {
		rounds = 20
	}
	tab := newTable(t, pieces*512)
	var wg sync.WaitGroup
	for worker := range uint64(3) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n := uint64(0)
			idle := func(_, count uint64) { n += count }
			want := uint64(0)
			for range rounds {
				for piece := range uint64(pieces) {
					block := piece*512 + worker*10
					tab.Own(block, 4)
					ref, ok := tab.TryGet(block, 4)
					if !ok || ref.N != 4 {
						t.Errorf("lost the word of block %d", block)
						return
					}
					tab.Put(ref, nil)
					tab.Disown(block, 4, idle)
					want += 4
				}
			}
			if n != want {
				t.Errorf("%d reported, want %d", n, want)
			}
		}()
	}
	wg.Wait()
	if stats := tab.Stats(); stats.Tables > keepEmpty {
		t.Errorf("%+v", stats)
	} else {
		t.Logf("%+v", stats)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	tab := newTable(t, 4096)
	idle := func(_, _ uint64) {}
	tab.Own(100, 256)
	tab.Own(2048, 512)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"get and put", func() { r, _ := tab.TryGet(100, 1); tab.Put(r, idle) }},
		{"get and put of 1 MiB", func() { r, _ := tab.TryGet(100, 256); tab.Put(r, idle) }},
		{"get and put of a part of 2 MiB", func() { r, _ := tab.TryGet(2100, 256); tab.Put(r, idle) }},
		{"get and put of a range that ends early", func() { r, _ := tab.TryGet(100, 300); tab.Put(r, idle) }},
		{"failing get", func() { tab.TryGet(90, 1) }},
		{"own and disown", func() { tab.Own(1000, 600); tab.Disown(1000, 600, idle) }},
	} {
		if n := testing.AllocsPerRun(100, c.f); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func BenchmarkTryGetPut(b *testing.B) {
	for _, c := range []struct {
		name  string
		n     uint64
		large bool
	}{{"4K", 1, false}, {"64K", 16, false}, {"1M", 256, false}, {"4K of a large folio", 1, true}, {"1M of a large folio", 256, true}} {
		b.Run(c.name, func(b *testing.B) {
			tab := newTable(b, 1<<20)
			idle := func(_, _ uint64) {}
			if c.large {
				tab.Own(0, 1<<20)
			} else {
				for block := uint64(0); block < 1<<20; block += 256 {
					tab.Own(block, 256)
				}
			}
			b.ReportAllocs()
			at := uint64(0)
			for b.Loop() {
				r, _ := tab.TryGet(at, c.n)
				tab.Put(r, idle)
				at = (at + 4099*c.n) & (1<<20 - 1 - 511)
			}
		})
	}
}

func BenchmarkOwnDisown(b *testing.B) {
	tab := newTable(b, 1<<20)
	idle := func(_, _ uint64) {}
	b.ReportAllocs()
	for b.Loop() {
		tab.Own(1000, 1)
		tab.Disown(1000, 1, idle)
	}
}
