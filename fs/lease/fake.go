package lease

import (
	"slices"
	"sync"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// Fake is the locks of a region as tests take them, in place of the kernel's. The zero value has
// none. Its methods may be called concurrently.
type Fake struct {
	mu   sync.Mutex
	held map[[2]int64]int // [lo, hi) in bytes, and how often it is locked
}

// Lock takes the lock of bytes [lo, hi) once more (d is 1), or drops it once (-1).
func (k *Fake) Lock(lo, hi int64, d int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held == nil {
		k.held = map[[2]int64]int{}
	}
	r := [2]int64{lo, hi}
	if k.held[r] += d; k.held[r] == 0 {
		delete(k.held, r)
	}
}

// DropAll drops all locks, as when all programs have ended.
func (k *Fake) DropAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.held)
}

// Use takes (d is 1) or drops (-1) the locks that a program takes for a grant. A block is that many
// bytes long.
func (k *Fake) Use(g *Grant, block int64, d int) {
	for _, p := range g.Parts {
		k.Lock(int64(p.Block)*block, int64(p.Block+p.N)*block, d)
	}
	id := protocol.Identity(g.ID, g.Writable)
	k.Lock(id, id+1, d)
}

// Locks is that of pmem.Region.
func (k *Fake) Locks(off, n int64, f func(lo, hi int64) bool) error {
	k.mu.Lock()
	var all [][2]int64
	for r := range k.held {
		if lo, hi := max(r[0], off), min(r[1], off+n); lo < hi {
			all = append(all, [2]int64{lo, hi})
		}
	}
	k.mu.Unlock()
	slices.SortFunc(all, func(a, b [2]int64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	at := off
	for _, r := range all {
		if lo := max(r[0], at); lo < r[1] {
			if at = r[1]; !f(lo, r[1]) {
				return nil
			}
		}
	}
	return nil
}

// FirstLock is that of pmem.Region.
func (k *Fake) FirstLock(off, n int64) (lo, hi int64, ok bool, err error) {
	err = k.Locks(off, n, func(a, b int64) bool {
		lo, hi, ok = a, b, true
		return false
	})
	return lo, hi, ok, err
}
