package hugepage

import (
	"errors"
	"testing"
)

var tiny = Orders{PMD: 3, PUD: 6}

// newAllocator returns an allocator in which the runs of used are allocated.
func newAllocator(t testing.TB, blocks uint64, o Orders, used ...[2]uint64) *Allocator {
	t.Helper()
	a, err := NewAllocator(blocks, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range used {
		if !a.Reserve(u[0], u[1]) {
			t.Fatalf("cannot reserve %v", u)
		}
	}
	return a
}

func TestRefuses(t *testing.T) {
	for _, o := range []Orders{{}, {9, 9}, {9, 8}, {0, 4}, {16, 18}, {9, 25}} {
		if _, err := NewAllocator(1000, o); !errors.Is(err, ErrOrders) {
			t.Errorf("%v: %v", o, err)
		}
	}
	for _, n := range []uint64{0, 1 << 41, ^uint64(0)} {
		if _, err := NewAllocator(n, DefaultOrders); !errors.Is(err, ErrSize) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// TestAlloc is a table: the runs that are allocated already, the request, and the expected result.
// A PMD block has 8 blocks, and a PUD block 64.
func TestAlloc(t *testing.T) {
	type runs = [][2]uint64
	for _, test := range []struct {
		name       string
		blocks     uint64
		used       runs
		reserve    uint64
		goal, want uint64
		block, n   uint64 // n = 0: fails
	}{
		{"nothing wanted", 64, nil, 0, 0, 0, 0, 0},
		{"first", 256, nil, 0, 0, 3, 0, 3},
		{"one free PMD", 256, nil, 0, 0, 8, 0, 8},
		{"free PMDs, the rest later", 256, runs{{0, 1}}, 0, 0, 20, 8, 16},
		{"free PUD", 256, runs{{0, 1}}, 0, 0, 64, 64, 64},
		{"free PUDs, the rest later", 256, runs{{0, 1}}, 0, 0, 150, 64, 128},
		{"PUD wanted, none free", 128, runs{{0, 1}, {127, 1}}, 0, 0, 64, 8, 56},
		{"packed into partial", 256, runs{{64, 3}}, 0, 0, 5, 67, 5},
		{"best class first", 256, runs{{0, 3}, {8, 6}}, 0, 0, 2, 14, 2},
		{"lowest of a class", 256, runs{{8, 6}, {16, 6}}, 0, 0, 2, 14, 2},
		{"good part of the request", 256, runs{{0, 4}}, 0, 0, 7, 4, 4},
		{"too small a part", 256, runs{{0, 7}}, 0, 0, 7, 8, 7},
		{"partial PUD before free", 256, runs{{64, 8}}, 0, 0, 5, 72, 5},
		{"PMD in partial PUD", 256, runs{{64, 8}}, 0, 0, 16, 72, 16},
		{"goal", 256, runs{{0, 3}}, 0, 3, 4, 3, 4},
		{"goal ends with its PMD", 256, runs{{0, 3}}, 0, 3, 40, 3, 5},
		{"goal taken", 256, runs{{0, 3}}, 0, 2, 1, 3, 1},
		{"goal outside", 256, runs{{0, 3}}, 0, 256, 1, 3, 1},
		{"goal in a free PMD", 256, runs{{0, 3}}, 0, 250, 3, 3, 3},
		{"reserve: nothing partial", 64, nil, 8, 0, 1, 0, 0},
		{"reserve: one left", 64, nil, 7, 0, 1, 0, 1},
		{"reserve: large", 64, nil, 6, 0, 64, 0, 16},
		{"reserve: rest of partial", 64, runs{{0, 7}}, 7, 0, 64, 7, 1},
		{"tail is partial", 13, nil, 0, 0, 4, 8, 4},
		{"tail ends", 13, runs{{0, 8}}, 0, 0, 8, 8, 5},
		{"longest of what is left", 16, runs{{0, 6}, {8, 4}}, 0, 0, 8, 12, 4},
		{"full", 16, runs{{0, 16}}, 0, 0, 1, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			alloc := newAllocator(t, test.blocks, tiny, test.used...)
			alloc.SetReserve(test.reserve)
			free := alloc.FreeBlocks()
			block, n, ok := alloc.Alloc(test.goal, test.want)
			if block != test.block && test.n != 0 || n != test.n || ok != (test.n != 0) {
				t.Fatalf("got %d+%d %t, want %d+%d", block, n, ok, test.block, test.n)
			}
			if alloc.FreeBlocks() != free-n {
				t.Fatalf("%d blocks free, want %d", alloc.FreeBlocks(), free-n)
			}
			if ok {
				if alloc.IsFree(block, 1) {
					t.Fatal("allocated blocks are free")
				}
				alloc.Free(block, n)
			}
			if alloc.FreeBlocks() != free {
				t.Fatal("free space was lost")
			}
		})
	}
}

func TestAllocChunk(t *testing.T) {
	a := newAllocator(t, 200, tiny, [2]uint64{0, 64}, [2]uint64{130, 1})
	a.SetReserve(99)
	for i, want := range []uint64{192, 136, 144, 152, 160, 168, 176, 184, 64, 72} {
		if got, ok := a.AllocChunk(); !ok || got != want {
			t.Fatalf("chunk %d is %d, %t, want %d", i, got, ok, want)
		}
	}
}

func TestReserve(t *testing.T) {
	a := newAllocator(t, 100, tiny)
	for _, c := range []struct {
		block, n uint64
		want     bool
	}{
		{0, 1, true}, {0, 1, false}, {1, 20, true}, {20, 5, false}, {21, 4, true},
		{99, 1, true}, {99, 2, false}, {100, 1, false}, {100, 0, true}, {101, 0, false},
		{5, ^uint64(0), false}, {32, 64, true}, {95, 1, false},
	} {
		free := a.FreeBlocks()
		if got := a.Reserve(c.block, c.n); got != c.want {
			t.Errorf("Reserve(%d, %d) = %t", c.block, c.n, got)
		} else if got {
			free -= c.n
		}
		if a.FreeBlocks() != free {
			t.Errorf("Reserve(%d, %d): %d free, want %d", c.block, c.n, a.FreeBlocks(), free)
		}
	}
}

func TestFreePanics(t *testing.T) {
	for _, c := range [][2]uint64{{8, 1}, {4, 5}, {7, 9}, {24, 8}, {0, 64}, {63, 2}, {64, 1}, {3, ^uint64(0)}} {
		a := newAllocator(t, 64, tiny, [2]uint64{0, 8}, [2]uint64{9, 7}, [2]uint64{63, 1})
		free := a.FreeBlocks()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Free(%d, %d) did not panic", c[0], c[1])
				}
			}()
			a.Free(c[0], c[1])
		}()
		if a.FreeBlocks() != free || a.Stats().Free != free {
			t.Errorf("Free(%d, %d) changed something", c[0], c[1])
		}
	}
}

func TestStats(t *testing.T) {
	a := newAllocator(t, 64*3+13, tiny, [2]uint64{0, 3}, [2]uint64{64, 8})
	want := Stats{Blocks: 205, Free: 194, Free4K: 5 + 5, Free2M: 56 + 56 + 8, Free1G: 64, Partial: 2}
	if got := a.Stats(); got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	a.Free(0, 3)
	a.Free(64, 8)
	if a.FreePUDs() != 3 || a.FreePMDs() != 25 {
		t.Errorf("%d free PUD blocks, %d free PMD blocks", a.FreePUDs(), a.FreePMDs())
	}
}
