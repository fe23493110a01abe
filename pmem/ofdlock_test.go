package pmem_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/pmem"
)

// lockedRegion returns a region and the path of its file, in a temporary directory of the test.
func lockedRegion(t *testing.T, size int64) (*pmem.Region, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "region")
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, path
}

func locksOf(t *testing.T, r *pmem.Region, off, n int64) (all [][2]int64) {
	t.Helper()
	if err := r.Locks(off, n, func(lo, hi int64) bool {
		all = append(all, [2]int64{lo, hi})
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestLockLivesWithMapping checks that a shared lock outlives its descriptor as long as the file is
// mapped.
func TestLockLivesWithMapping(t *testing.T) {
	r, path := lockedRegion(t, 4<<20)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	const identity = 1<<62 + 14
	for _, l := range [][2]int64{{4096, 8192}, {1 << 20, 4096}, {identity, 1}} {
		if err := pmem.LockShared(f, l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	want := [][2]int64{{4096, 12288}, {1 << 20, 1<<20 + 4096}, {identity, identity + 1}}
	if got := locksOf(t, r, 0, 1<<63-1); !slices.Equal(got, want) {
		t.Errorf("locks of the mapping: %v, want %v", got, want)
	}
	if got := locksOf(t, r, 8192, 1<<20); !slices.Equal(got, [][2]int64{{8192, 12288}, {1 << 20, 1<<20 + 4096}}) {
		t.Errorf("locks within a range: %v", got)
	}
	if err := unix.Munmap(m); err != nil {
		t.Fatal(err)
	}
	if got := locksOf(t, r, 0, 1<<63-1); len(got) != 0 {
		t.Errorf("locks after munmap: %v, want none", got)
	}
}

// TestLocks checks that Locks lists exactly the locks that are held, in ascending order, whatever
// the order in which they were taken and however many descriptions hold them.
func TestLocks(t *testing.T) {
	region, path := lockedRegion(t, 4<<20)
	rnd := rand.New(rand.NewPCG(1, 1))
	const blocks = 256
	var held [blocks]int
	type owner struct {
		f     *os.File
		block int
		n     int
	}
	var owners []owner
	for range 400 {
		if len(owners) > 0 && rnd.IntN(3) == 0 {
			i := rnd.IntN(len(owners))
			taken := owners[i]
			taken.f.Close()
			for block := taken.block; block < taken.block+taken.n; block++ {
				held[block]--
			}
			owners = slices.Delete(owners, i, i+1)
		} else {
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			taken := owner{file, rnd.IntN(blocks), 0}
			taken.n = 1 + rnd.IntN(min(8, blocks-taken.block))
			if err := pmem.LockShared(file, int64(taken.block)*4096, int64(taken.n)*4096); err != nil {
				t.Fatal(err)
			}
			for block := taken.block; block < taken.block+taken.n; block++ {
				held[block]++
			}
			owners = append(owners, taken)
		}
		var got [blocks]bool
		last := int64(0)
		for _, lock := range locksOf(t, region, 0, blocks*4096) {
			if lock[0] < last || lock[1] <= lock[0] {
				t.Fatalf("lock %v after one that ends at %d", lock, last)
			}
			last = lock[1]
			for block := lock[0] / 4096; block < lock[1]/4096; block++ {
				got[block] = true
			}
		}
		for block := range held {
			if got[block] != (held[block] > 0) {
				t.Fatalf("block %d: listed %v, held %d times", block, got[block], held[block])
			}
			lo, hi, ok, err := region.FirstLock(int64(block)*4096, 4096)
			if err != nil || ok != got[block] || ok && (lo != int64(block)*4096 || hi != lo+4096) {
				t.Fatalf("block %d: first lock [%d, %d) %v, %v", block, lo, hi, ok, err)
			}
		}
	}
	for _, taken := range owners {
		taken.f.Close()
	}
	stopped := 0
	if err := region.Locks(0, 1<<63-1, func(lo, hi int64) bool { stopped++; return false }); err != nil || stopped != 0 {
		t.Errorf("%d locks are left, %v", stopped, err)
	}
}

// TestKeepsLocks checks that on an ordinary filesystem a mapping keeps locks and the probe leaves
// none, and that memory of this process cannot be locked.
func TestKeepsLocks(t *testing.T) {
	r, _ := lockedRegion(t, 4<<20)
	if err := r.KeepsLocks(); err != nil {
		t.Error(err)
	}
	if got := locksOf(t, r, 0, 1<<63-1); len(got) != 0 {
		t.Errorf("the probe left %v", got)
	}
	m, err := pmem.NewMemory(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.KeepsLocks(); !errors.Is(err, pmem.ErrLocksVanish) {
		t.Errorf("a region in memory: %v", err)
	}
}
