package hugepage

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// TestConcurrent has several callers allocate, free and reserve. Every block has one owner at a
// time, and at the end all of them are free again.
func TestConcurrent(t *testing.T) {
	const blocks = 64*5 + 3
	alloc := newAllocator(t, blocks, tiny)
	alloc.SetReserve(2)
	var mu sync.Mutex
	owner := make([]int, blocks)
	own := func(caller int, block, n uint64) {
		mu.Lock()
		defer mu.Unlock()
		for each := block; each < block+n; each++ {
			if owner[each] != 0 {
				t.Errorf("block %d given to %d, is held by %d", each, caller, owner[each])
			}
			owner[each] = caller
		}
	}
	var wg sync.WaitGroup
	for caller := 1; caller <= 4; caller++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(3, uint64(caller)))
			var held [][2]uint64
			for range 5000 {
				var block, n uint64
				var ok bool
				switch rng.IntN(6) {
				case 0, 1:
					block, n, ok = alloc.AllocFrom(uint32(caller), rng.Uint64N(2)*rng.Uint64N(blocks), 1+rng.Uint64N(80))
				case 2:
					n = tiny.PMDBlocks()
					block, ok = alloc.AllocChunk()
				case 3:
					block, n = rng.Uint64N(blocks), 1+rng.Uint64N(3)
					ok = alloc.Reserve(block, n)
				default:
					if len(held) > 0 {
						run := held[0]
						held = held[1:]
						half := run[1] / 2
						mu.Lock()
						clear(owner[run[0] : run[0]+run[1]])
						mu.Unlock()
						if half > 0 {
							alloc.FreeTo(uint32(caller), run[0], half)
						}
						alloc.FreeTo(uint32(caller)%3, run[0]+half, run[1]-half)
					}
				}
				if ok {
					own(caller, block, n)
					held = append(held, [2]uint64{block, n})
				}
			}
			for _, run := range held {
				mu.Lock()
				clear(owner[run[0] : run[0]+run[1]])
				mu.Unlock()
				alloc.FreeTo(uint32(caller), run[0], run[1])
			}
		}()
	}
	wg.Wait()
	if alloc.FreeBlocks() != blocks || !alloc.IsFree(0, blocks) {
		t.Errorf("%d blocks free, want %d", alloc.FreeBlocks(), blocks)
	}
}

// TestDeterministic runs the same calls on two allocators.
func TestDeterministic(t *testing.T) {
	trace := func() (got []uint64) {
		a := newAllocator(t, 64*9+5, tiny)
		r := rand.New(rand.NewPCG(5, 5))
		var held [][2]uint64
		for range 5000 {
			if r.IntN(5) < 2 && len(held) > 0 {
				i := r.IntN(len(held))
				a.Free(held[i][0], held[i][1])
				held = slices.Delete(held, i, i+1)
				continue
			}
			if block, n, ok := a.Alloc(r.Uint64N(200), 1+r.Uint64N(20)); ok {
				held = append(held, [2]uint64{block, n})
				got = append(got, block, n)
			}
		}
		return got
	}
	if !slices.Equal(trace(), trace()) {
		t.Error("the same calls gave different answers")
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	a := newAllocator(t, 1<<21, DefaultOrders)
	var held [3000]uint64
	f := func() {
		for i := range held {
			held[i], _, _ = a.Alloc(0, 1)
		}
		for _, b := range held {
			a.Free(b, 1)
		}
		for want := uint64(1); want < 1<<20; want *= 3 {
			block, n, _ := a.Alloc(0, want)
			a.Free(block, n)
		}
	}
	if n := testing.AllocsPerRun(10, f); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// aged returns an allocator of that many blocks with holes in many places, from a fixed seed.
func aged(b *testing.B, blocks uint64) *Allocator {
	a := newAllocator(b, blocks, DefaultOrders)
	r := rand.New(rand.NewPCG(9, 9))
	for p := uint64(0); p < blocks; p += 512 {
		switch r.IntN(4) {
		case 0:
			a.Reserve(p, 512)
		case 1:
			for at := p; at < p+480; {
				n := 1 + r.Uint64N(40)
				a.Reserve(at, n)
				at += n + 1 + r.Uint64N(20)
			}
		}
	}
	return a
}

func BenchmarkAllocFree(b *testing.B) {
	for _, c := range []struct {
		name       string
		blocks     uint64
		goal, want uint64
	}{
		{"4K/64G", 1 << 24, 0, 1},
		{"4K/16T", 1 << 32, 0, 1},
		{"64K/64G", 1 << 24, 0, 16},
		{"1M/64G", 1 << 24, 0, 256},
		{"2M/64G", 1 << 24, 0, 512},
		{"1G/64G", 1 << 24, 0, 1 << 18},
	} {
		b.Run(c.name, func(b *testing.B) {
			var a *Allocator
			if c.blocks > 1<<30 {
				a = newAllocator(b, c.blocks, DefaultOrders, [2]uint64{0, 100})
			} else {
				a = aged(b, c.blocks)
			}
			var held [64]uint64
			var n [64]uint64
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if n[i] != 0 {
					a.Free(held[i], n[i])
				}
				held[i], n[i], _ = a.Alloc(c.goal, c.want)
				i = (i + 7) & 15
			}
		})
	}
}

// BenchmarkAppend grows a run by one block at its end, as a log file does.
func BenchmarkAppend(b *testing.B) {
	a := aged(b, 1<<24)
	start, n, _ := a.Alloc(0, 1<<15)
	b.ReportAllocs()
	grown := uint64(0)
	for b.Loop() {
		if _, _, ok := a.Alloc(start+n+grown, 1); !ok {
			b.Fatal("full")
		}
		if grown++; grown == 1000 {
			b.StopTimer()
			for i := range grown {
				if !a.IsFree(start+n+i, 1) {
					a.Free(start+n+i, 1)
				}
			}
			grown = 0
			b.StartTimer()
		}
	}
}

func BenchmarkReserve(b *testing.B) {
	const blocks = 1 << 24
	a := newAllocator(b, blocks, DefaultOrders)
	b.ReportAllocs()
	x := uint64(0)
	for b.Loop() {
		x += 7919
		if at := x % (blocks / 2) * 2; !a.Reserve(at, 1) {
			a.Free(at, 1)
		}
	}
}
