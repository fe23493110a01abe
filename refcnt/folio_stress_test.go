package refcnt

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestStressFolios has owners own, share and disown folios of all orders, whole and in parts, and
// split and merge them, while readers get and put any range. Each block must be reported free
// exactly once for each time that it was owned, and have no owner then.
func TestStressFolios(t *testing.T) {
	const pmd, pud, span, owners = 3, 5, 128, 3
	tab := newTableOf(t, owners*span, pmd, pud)
	var taken [owners * span]atomic.Bool // owned, or not reported free yet
	var twice atomic.Int64
	idle := func(block, n uint64) {
		for freed := block; freed < block+n; freed++ {
			if !taken[freed].CompareAndSwap(true, false) {
				twice.Add(1)
			}
		}
	}
	stop := time.Now().Add(2 * time.Second)
	var wg, readers sync.WaitGroup
	var gets, lives, merges, splits, shares atomic.Int64
	for owner := range uint64(owners) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(owner, 1))
			var mine [span]int // times owned
			base := owner * span
			for time.Now().Before(stop) {
				first, n := rng.Uint64N(span), 1+rng.Uint64N(40)
				if rng.IntN(2) == 0 {
					first, n = first&^(1<<pmd-1), (n+1<<pmd-1)&^(1<<pmd-1)
				}
				n = min(n, span-first)
				switch rng.IntN(8) {
				case 0, 1, 2: // own the free blocks of the range
					for n > 0 && !taken[base+first].Load() && mine[first] == 0 {
						count := uint64(1)
						for count < n && !taken[base+first+count].Load() && mine[first+count] == 0 {
							count++
						}
						for i := first; i < first+count; i++ {
							taken[base+i].Store(true)
							mine[i] = 1
						}
						tab.Own(base+first, count)
						lives.Add(int64(count))
						first, n = first+count, n-count
					}
				case 3, 4: // disown the owned blocks of the range
					for i := first; i < first+n; {
						end := i
						for end < first+n && mine[end] > 0 {
							mine[end]--
							end++
						}
						if end > i {
							tab.Disown(base+i, end-i, idle)
						}
						i = max(end, i+1)
					}
				case 5, 6: // share the owned blocks at its start
					count := uint64(0)
					for count < n && mine[first+count] > 0 && mine[first+count] < 4 {
						count++
					}
					if count == 0 {
						continue
					}
					if err := tab.Share(base+first, count); err != nil {
						t.Error(err)
					}
					for i := first; i < first+count; i++ {
						mine[i]++
					}
					shares.Add(1)
				default:
					whole := uint64(1) << pmd
					if rng.IntN(2) == 0 {
						whole = 1 << pud
					}
					first &^= whole - 1
					for i := first; i < first+whole; i++ {
						if mine[i] == 0 {
							whole = 0
							break
						}
					}
					switch {
					case whole == 0:
					case rng.IntN(2) == 0:
						if tab.Split(base + first) {
							splits.Add(1)
						}
					default:
						order := uint8(pmd)
						if whole != 1<<pmd {
							order = pud
						}
						if tab.Merge(base+first, order) {
							merges.Add(1)
						}
					}
				}
			}
			for i := range uint64(span) {
				for ; mine[i] > 0; mine[i]-- {
					tab.Disown(base+i, 1, idle)
				}
			}
		})
	}
	var over atomic.Bool
	for reader := range uint64(3) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(reader, 2))
			var held []Ref
			defer func() {
				for _, ref := range held {
					tab.Put(ref, idle)
				}
			}()
			for !over.Load() {
				first, n := rng.Uint64N(owners*span), 1+rng.Uint64N(20)
				n = min(n, owners*span-first)
				if ref, ok := tab.TryGet(first, n); ok {
					gets.Add(1)
					held = append(held, ref)
				}
				// Most references are short; some overlap for long.
				for i := 0; i < len(held); i++ {
					if len(held) > 8 || rng.IntN(4) > 0 {
						tab.Put(held[i], idle)
						held[i] = held[len(held)-1]
						held = held[:len(held)-1]
						i--
					}
				}
			}
		})
	}
	wg.Wait()
	over.Store(true)
	readers.Wait()
	if n := twice.Load(); n > 0 {
		t.Errorf("%d blocks were reported free that were not taken", n)
	}
	for block := range taken {
		if taken[block].Load() {
			t.Fatalf("block %d was never reported free: word %#x, %+v", block, tab.find(uint64(block)).w.Load(), tab.Stats())
		}
	}
	if stats := tab.Stats(); stats.PMDs != 0 || stats.PUDs != 0 || stats.Deferred != 0 || stats.Draining != 0 {
		t.Errorf("left: %+v", stats)
	}
	t.Logf("%d gets, %d lives of blocks, %d splits, %d merges, %d shares", gets.Load(), lives.Load(), splits.Load(), merges.Load(), shares.Load())
	if gets.Load() < 1000 || lives.Load() < 1000 || splits.Load() < 10 || merges.Load() < 10 || shares.Load() < 100 {
		t.Error("too little happened")
	}
}

// TestReportedIsFree checks that idle itself may own the blocks that it is called with.
func TestReportedIsFree(t *testing.T) {
	for _, c := range []struct{ block, n uint64 }{{8, 8}, {32, 32}, {3, 4}} {
		for _, busy := range []bool{false, true} {
			tab, err := New(128, 3, 5)
			if err != nil {
				t.Fatal(err)
			}
			var again []run
			idle := func(block, n uint64) {
				tab.Own(block, n)
				again = append(again, run{block, n})
			}
			tab.Own(c.block, c.n)
			var f Ref
			if busy {
				f = get(t, tab, c.block, c.n)
			}
			tab.Disown(c.block+1, 1, idle)
			tab.Disown(c.block+3, 1, idle)
			if busy {
				if len(again) != 0 || tab.Deferred() != 2 {
					t.Errorf("%v: %d deferred, reported %v", c, tab.Deferred(), again)
				}
				tab.Put(f, idle)
			}
			if len(again) != 2 || again[0] != (run{c.block + 1, 1}) || again[1] != (run{c.block + 3, 1}) {
				t.Errorf("%v: reported %v", c, again)
			}
			tab.Disown(c.block, c.n, func(_, _ uint64) {})
			if err := tab.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
