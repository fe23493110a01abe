package hugepage

import (
	"math/rand/v2"
	"testing"
)

// TestPool checks that a run freed through a pool serves the next small request through it, counts
// as free, and can be had by all callers.
func TestPool(t *testing.T) {
	a := newAllocator(t, 256, tiny)
	block, n, _ := a.AllocFrom(3, 0, 3)
	a.FreeTo(3, block, n)
	if a.FreeBlocks() != 256 {
		t.Errorf("%d blocks are free", a.FreeBlocks())
	}
	if b, _, _ := a.AllocFrom(4, 0, 3); b == block {
		t.Error("another pool serves the run")
	}
	if b, n, _ := a.AllocFrom(3, 0, 2); b != block || n != 2 {
		t.Errorf("the pool gives %d+%d, not the beginning of %d", b, n, block)
	}
	if b, _, _ := a.AllocFrom(3, 0, 2); b == block+2 {
		t.Error("a run of one block serves two")
	}
	if !a.IsFree(block+2, 1) || !a.Reserve(block+2, 1) {
		t.Error("blocks in a pool are not free to others")
	}
	if a.FreeBlocks() != 256-8 {
		t.Errorf("%d blocks are free", a.FreeBlocks())
	}
}

// TestPools compares an allocator behind pools with a plain list of owners.
func TestPools(t *testing.T) {
	const blocks = 64*4 + 5
	alloc := newAllocator(t, blocks, tiny)
	rng := rand.New(rand.NewPCG(7, 7))
	owned := make([]bool, blocks)
	var held [][2]uint64
	free := uint64(blocks)
	for i := range 50_000 {
		pool := rng.Uint32N(5)
		if len(held) > 0 && (rng.IntN(2) == 0 || free < 20) {
			which := rng.IntN(len(held))
			run := held[which]
			held[which] = held[len(held)-1]
			held = held[:len(held)-1]
			for block := run[0]; block < run[0]+run[1]; block++ {
				owned[block] = false
			}
			alloc.FreeTo(pool, run[0], run[1])
			free += run[1]
		} else {
			want := 1 + rng.Uint64N(20)
			block, n, ok := alloc.AllocFrom(pool, 0, want)
			if !ok || n == 0 || n > want {
				t.Fatalf("%d: AllocFrom(%d) = %d+%d, %t with %d free", i, want, block, n, ok, free)
			}
			for each := block; each < block+n; each++ {
				if owned[each] {
					t.Fatalf("%d: block %d was given twice", i, each)
				}
				owned[each] = true
			}
			held = append(held, [2]uint64{block, n})
			free -= n
		}
		if alloc.FreeBlocks() != free {
			t.Fatalf("%d: %d blocks free, expected %d", i, alloc.FreeBlocks(), free)
		}
		if i%1000 == 0 {
			if stats := alloc.Stats(); stats.Free != free || stats.Free4K+stats.Free2M+stats.Free1G != free {
				t.Fatalf("%d: %+v, expected %d free", i, stats, free)
			}
		}
	}
	for {
		block, n, ok := alloc.AllocFrom(9, 0, 3)
		if !ok {
			break
		}
		free -= n
		_ = block
	}
	if free != 0 {
		t.Errorf("%d free blocks cannot be allocated", free)
	}
}
