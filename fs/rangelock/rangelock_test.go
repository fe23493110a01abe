package rangelock

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

func TestTryLock(t *testing.T) {
	for _, c := range []struct {
		name               string
		start, end         int64
		excl               bool
		tryStart, tryEnd   int64
		tryExcl, wantTaken bool
	}{
		{"two readers", 0, 10, false, 5, 15, false, true},
		{"reader after writer", 0, 10, true, 9, 15, false, false},
		{"writer after reader", 5, 10, false, 0, 6, true, false},
		{"two writers", 0, 10, true, 0, 10, true, false},
		{"writers side by side", 0, 10, true, 10, 20, true, true},
		{"writer before writer", 10, 20, true, 0, 10, true, true},
		{"writer within writer", 0, 100, true, 50, 51, true, false},
		{"empty range", 0, 10, true, 10, 10, true, true},
	} {
		var l Lock
		held := l.Lock(c.start, c.end, c.excl)
		token, ok := l.TryLock(c.tryStart, c.tryEnd, c.tryExcl)
		if ok != c.wantTaken {
			t.Errorf("%s: taken %v, want %v", c.name, ok, c.wantTaken)
		}
		if ok {
			l.Unlock(token)
		}
		l.Unlock(held)
		if token, ok = l.TryLock(c.tryStart, c.tryEnd, c.tryExcl); !ok {
			t.Errorf("%s: not taken after the holder has gone", c.name)
		}
		l.Unlock(token)
		if len(l.q) != 0 {
			t.Errorf("%s: %d entries are left", c.name, len(l.q))
		}
	}
}

// TestOrderOfArrival checks that a reader that comes after a waiting writer waits for it, although
// the reader overlaps only readers that hold their ranges. Otherwise readers could keep a writer
// waiting forever.
func TestOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lock
		var mu sync.Mutex
		var order []string
		done := func(name string) { mu.Lock(); order = append(order, name); mu.Unlock() }
		first := l.Lock(0, 10, false)
		go func() { w := l.Lock(5, 15, true); done("writer"); l.Unlock(w) }()
		synctest.Wait()
		go func() { r := l.Lock(0, 10, false); done("reader"); l.Unlock(r) }()
		synctest.Wait()
		if len(order) != 0 {
			t.Fatalf("%v did not wait", order)
		}
		beside := l.Lock(20, 30, true) // overlaps no other range
		l.Unlock(beside)
		l.Unlock(first)
		synctest.Wait()
		if len(order) != 2 || order[0] != "writer" {
			t.Errorf("served in the order %v", order)
		}
	})
}

// TestExclusion lets goroutines lock random ranges of a few cells, and counts the holders of each
// cell.
func TestExclusion(t *testing.T) {
	const cells, goroutines, rounds = 16, 8, 3000
	var l Lock
	var mu sync.Mutex
	var readers, writers [cells]int
	enter := func(start, end int64, excl bool, delta int) {
		mu.Lock()
		defer mu.Unlock()
		for i := start; i < end; i++ {
			if excl {
				writers[i] += delta
			} else {
				readers[i] += delta
			}
			if writers[i] > 1 || writers[i] == 1 && readers[i] > 0 {
				t.Errorf("cell %d has %d writers and %d readers", i, writers[i], readers[i])
			}
		}
	}
	var wg sync.WaitGroup
	for seed := range goroutines {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(seed), 0))
			for range rounds {
				start := random.Int64N(cells)
				end, excl := start+1+random.Int64N(cells-start), random.IntN(2) == 0
				token, ok := Token(0), false
				if random.IntN(2) == 0 {
					token, ok = l.TryLock(start, end, excl)
				}
				if !ok {
					token = l.Lock(start, end, excl)
				}
				enter(start, end, excl, 1)
				enter(start, end, excl, -1)
				l.Unlock(token)
			}
		})
	}
	wg.Wait()
	if len(l.q) != 0 || l.waiters != 0 {
		t.Errorf("%d entries and %d waiters are left", len(l.q), l.waiters)
	}
}

func TestAllocs(t *testing.T) {
	var l Lock
	n := testing.AllocsPerRun(1000, func() {
		a := l.Lock(0, 10, false)
		b, _ := l.TryLock(5, 15, false)
		l.Unlock(a)
		l.Unlock(b)
	})
	if n != 0 {
		t.Errorf("%v allocations for two locks", n)
	}
}
