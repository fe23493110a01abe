package lease_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/refcnt"
)

const (
	blockSize = 4096
	blocks    = 1 << 10
	fileBlock = 100 // file block of the region's block 0, in what the tests grant
)

// world is a table of leases with what it needs. Blocks of the region belong to a file, or are
// free.
type world struct {
	*testing.T
	*lease.Table
	k      *lease.Fake
	folios *refcnt.Table
	memory []uint64 // slots
	now    time.Time

	mu    sync.Mutex
	free  [blocks]bool // protected by mu
	ended []uint64     // protected by mu: ids
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, k: &lease.Fake{}, memory: make([]uint64, 4*8), now: time.Unix(1, 0)}
	w.start()
	return w
}

// start is a new mount: of owners and leases nothing is known.
func (w *world) start() {
	w.Helper()
	folios, err := refcnt.New(blocks, 3, 6)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { folios.Close() })
	w.folios, w.free, w.ended = folios, [blocks]bool{}, nil
	for i := range w.free {
		w.free[i] = true
	}
	w.Table = lease.New(lease.Options{
		Locks: w.k, Folios: folios, Block: blockSize, Slots: len(w.memory) / 8,
		Idle: func(block, n uint64) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for b := block; b < block+n; b++ {
				if w.free[b] {
					w.Errorf("block %d becomes free again", b)
				}
				w.free[b] = true
			}
		},
		Ended: func(_ uint64, g *lease.Grant) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, g.ID)
		},
		Now:   w.clock,
		Store: func(off int64, v uint64) error { w.memory[off/8] = v; return nil },
		Load:  func(off int64) (uint64, error) { return w.memory[off/8], nil },
	})
}

func (w *world) clock() time.Time { return w.now }

func (w *world) own(block, n uint64) {
	for b := block; b < block+n; b++ {
		w.free[b] = false
	}
	w.folios.Own(block, n)
}

func (w *world) disown(block, n uint64) {
	w.folios.Disown(block, n, func(b, k uint64) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for ; k > 0; b, k = b+1, k-1 {
			w.free[b] = true
		}
	})
}

// frees returns how many of n blocks are free.
func (w *world) frees(block, n uint64) (k int) {
	for b := block; b < block+n; b++ {
		if w.free[b] {
			k++
		}
	}
	return k
}

func (w *world) add(ino, block, n uint64, writable bool) *lease.Grant {
	w.Helper()
	g := &lease.Grant{Ino: ino, Lo: fileBlock + block, Hi: fileBlock + block + n, Parts: []lease.Part{{Logical: fileBlock + block, Block: block, N: n}}, Writable: writable, Handle: 5, UID: 7}
	if err := w.Add(g, 1<<20); err != nil {
		w.Fatal(err)
	}
	return g
}

func (w *world) sweep() {
	w.Helper()
	if err := w.Sweep(1 << 20); err != nil {
		w.Fatal(err)
	}
}

// sweepAll lets the quarantine of what has ended pass.
func (w *world) sweepAll() {
	w.Helper()
	w.sweep()
	w.now = w.now.Add(lease.Quarantine)
	w.sweep()
}

func (w *world) generation(g *lease.Grant) uint64 {
	return w.memory[(g.Slot+protocol.SlotGeneration)/8]
}

// TestLife follows a grant through its states.
func TestLife(t *testing.T) {
	w := newWorld(t)
	w.own(0, 64)
	g := w.add(1, 8, 4, true)
	if all, writable := w.OfFile(1); all != 1 || writable != 1 || !w.Any() || !w.folios.Leased(8, 1) {
		t.Fatalf("%d grants, %d writable", all, writable)
	}
	if err := w.Confirm(1, g.ID, g.Generation); !errors.Is(err, lease.ErrNotLocked) {
		t.Errorf("confirmed without a lock: %v", err)
	}
	w.k.Use(g, blockSize, 1)
	for _, c := range []struct {
		ino, id, gen uint64
		want         error
	}{{2, g.ID, g.Generation, lease.ErrUnknown}, {1, g.ID + 1, g.Generation, lease.ErrUnknown}, {1, g.ID, g.Generation + 2, lease.ErrStale}, {1, g.ID, g.Generation, nil}} {
		if err := w.Confirm(c.ino, c.id, c.gen); !errors.Is(err, c.want) {
			t.Errorf("confirm %+v: %v", c, err)
		}
	}
	w.CloseHandle(5) // it is the lock's now
	w.disown(0, 64)
	w.sweep()
	if n := w.frees(0, 64); n != 60 || len(w.ended) != 0 {
		t.Fatalf("%d blocks free while it is locked, ended %v", n, w.ended)
	}
	w.k.Use(g, blockSize, -1)
	w.sweep()
	if n := w.frees(0, 64); n != 60 || !slices.Equal(w.ended, []uint64{g.ID}) || len(w.List()) != 0 {
		t.Fatalf("%d blocks free in quarantine, ended %v", n, w.ended)
	}
	w.now = w.now.Add(lease.Quarantine)
	w.sweep()
	if n := w.frees(0, 64); n != 64 || w.Any() || len(w.ended) != 1 {
		t.Fatalf("%d blocks free in the end, ended %v", n, w.ended)
	}
}

// TestPromise checks when a grant ends that was never confirmed.
func TestPromise(t *testing.T) {
	for name, over := range map[string]func(w *world, g *lease.Grant){
		"the file is closed": func(w *world, _ *lease.Grant) { w.CloseHandle(5) },
		"time passes":        func(w *world, _ *lease.Grant) { w.now = w.now.Add(lease.Unconfirmed); w.sweep() },
		"it is released": func(w *world, g *lease.Grant) {
			w.k.Use(g, blockSize, 1) // not while it is locked: CONFIRM may come
			if err := w.Look(1, g.ID); err != nil || w.frees(0, 8) != 0 {
				w.Errorf("released while it is locked: %v, %d free", err, w.frees(0, 8))
			}
			w.k.Use(g, blockSize, -1)
			if err := w.Look(1, g.ID); err != nil {
				w.Error(err)
			}
		},
	} {
		w := newWorld(t)
		w.own(0, 8)
		g := w.add(1, 0, 8, false)
		w.disown(0, 8)
		w.CloseHandle(4)
		w.sweep()
		if w.frees(0, 8) != 0 {
			t.Errorf("%s: free before", name)
		}
		over(w, g)
		if w.frees(0, 8) != 8 || w.Any() || len(w.ended) != 0 {
			t.Errorf("%s: %d free, ended %v", name, w.frees(0, 8), w.ended)
		}
	}
}

// TestStale checks which changes make a grant stale, and that its generation never comes again.
func TestStale(t *testing.T) {
	w := newWorld(t)
	w.own(0, 64)
	seen := map[uint64]bool{}
	for range 20 {
		g := w.add(1, 8, 4, false)
		other := w.add(2, 32, 1, false)
		w.k.Use(g, blockSize, 1)
		if seen[g.Generation] || g.Generation%2 != 0 || w.generation(g) != g.Generation {
			t.Fatalf("generation %d, in the slot %d", g.Generation, w.generation(g))
		}
		seen[g.Generation] = true
		for _, far := range [][2]uint64{{0, fileBlock + 8}, {fileBlock + 12, 1 << 40}} {
			if begun, err := w.BeginChange(1, far[0], far[1]); begun || err != nil {
				t.Fatalf("a change of %v makes it stale: %v", far, err)
			}
		}
		if err := w.Resize(1, 77); err != nil || w.memory[(g.Slot+protocol.SlotFileSize)/8] != 77 || w.generation(g) != g.Generation {
			t.Fatalf("resized: %v, %v", w.memory, err)
		}
		begun, err := w.BeginChange(1, fileBlock+11, fileBlock+12)
		if !begun || err != nil || w.generation(g) != g.Generation+1 {
			t.Fatalf("begun %v, %v, generation %d", begun, err, w.generation(g))
		}
		if err := w.EndChange(1); err != nil || w.generation(g)%2 != 0 || seen[w.generation(g)] {
			t.Fatalf("generation %d, %v", w.generation(g), err)
		}
		if err := w.Confirm(1, g.ID, g.Generation); !errors.Is(err, lease.ErrStale) {
			t.Fatalf("confirmed though it is stale: %v", err)
		}
		if w.generation(other) != other.Generation {
			t.Fatal("another file's grant is stale")
		}
		w.k.Use(g, blockSize, -1)
		if err := w.Drop(1); err != nil || w.generation(g) == g.Generation || !w.folios.Leased(8, 1) {
			t.Fatalf("dropped: %v", err)
		}
		if _, err := w.Lookup(1, g.ID); !errors.Is(err, lease.ErrUnknown) {
			t.Fatalf("the grant of a file that is gone: %v", err)
		}
		w.CloseHandle(5)
	}
}

// TestFound checks that a new mount keeps what programs have locked, owned or not, as long as they
// do, gives out no id that is in use, and makes their generations new.
func TestFound(t *testing.T) {
	w := newWorld(t)
	w.own(0, 64)
	a, b := w.add(1, 8, 8, true), w.add(2, 12, 20, false)
	for _, g := range []*lease.Grant{a, b} {
		w.k.Use(g, blockSize, 1)
		if err := w.Confirm(g.Ino, g.ID, g.Generation); err != nil {
			t.Fatal(err)
		}
	}
	w.k.Lock(40*blockSize, 42*blockSize, 1)
	w.start()
	w.own(0, 10)
	var unowned uint64
	if err := w.Find(blocks, func(block, n uint64) (uint64, bool) {
		if block == 40 {
			return n, false // somebody else's, as metadata is
		}
		unowned += n
		for i := block; i < block+n; i++ {
			w.free[i] = false
		}
		return n, true
	}); err != nil {
		t.Fatal(err)
	}
	if unowned != 22 || !w.Any() || w.frees(0, 64) != 32 {
		t.Fatalf("%d blocks without an owner, %d free", unowned, w.frees(0, 64))
	}
	for _, g := range []*lease.Grant{a, b} {
		if gen := w.generation(g); gen == g.Generation || gen%2 != 0 {
			t.Errorf("the generation is %d and was %d", gen, g.Generation)
		}
	}
	if c := w.add(3, 9, 1, false); c.ID <= b.ID {
		t.Errorf("id %d after %d", c.ID, b.ID)
	}
	w.CloseHandle(5)
	w.disown(0, 10)
	w.sweepAll()
	if w.frees(0, 64) != 40 {
		t.Errorf("%d free while all is locked", w.frees(0, 64))
	}
	w.k.Use(a, blockSize, -1)
	w.sweepAll()
	if w.frees(8, 4) != 4 || w.frees(12, 20) != 0 {
		t.Errorf("after one of two has gone %d and %d are free", w.frees(8, 4), w.frees(12, 20))
	}
	w.k.Use(b, blockSize, -1)
	w.sweepAll()
	if w.frees(0, blocks) != blocks || w.Any() {
		t.Errorf("%d free in the end", w.frees(0, blocks))
	}
}

// TestBudget checks the limits of grants by region, by user and by slots, and that what has ended
// counts no more.
func TestBudget(t *testing.T) {
	w := newWorld(t)
	w.own(0, blocks)
	grant := func(ino uint64, uid uint32, parts int) error {
		g := &lease.Grant{Ino: ino, Lo: 0, Hi: 1 << 30, UID: uid, Handle: uint64(uid)}
		for i := range parts {
			g.Parts = append(g.Parts, lease.Part{Logical: uint64(i), Block: uint64(i % blocks), N: 1})
		}
		return w.Add(g, 0)
	}
	for round := range 2 {
		if err := grant(1, 1, lease.Budget/2); !errors.Is(err, lease.ErrBudget) {
			t.Fatalf("round %d: a user gets more than half: %v", round, err)
		}
		if err := grant(1, 1, lease.Budget/2-1); err != nil {
			t.Fatalf("round %d: half: %v", round, err)
		}
		if err := grant(1, 0, lease.Budget/2-1); err != nil {
			t.Fatalf("round %d: root's: %v", round, err)
		}
		if err := grant(1, 0, 0); !errors.Is(err, lease.ErrBudget) {
			t.Fatalf("round %d: more than all: %v", round, err)
		}
		w.CloseHandle(0)
		w.CloseHandle(1)
		for ino := range uint64(4) {
			if err := grant(1+ino, 2, 1); err != nil {
				t.Fatalf("round %d: slot %d: %v", round, ino, err)
			}
		}
		if err := grant(9, 2, 1); !errors.Is(err, lease.ErrBudget) {
			t.Fatalf("round %d: a fifth slot of four: %v", round, err)
		}
		w.CloseHandle(2)
		if w.Any() || w.folios.Leased(0, blocks) {
			t.Fatalf("round %d: leases are left", round)
		}
	}
}

// TestPassOn has leases of the same blocks pass on and on among programs that overlap, while their
// owner comes and goes: nothing becomes free under a lock, and all is free in the end.
func TestPassOn(t *testing.T) {
	w := newWorld(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	owned := false
	var live []*lease.Grant
	for range 20_000 {
		switch rnd.IntN(5) {
		case 0, 1:
			if !owned && w.frees(0, 16) == 16 {
				w.own(0, 16)
				owned = true
			}
			if owned {
				b := rnd.Uint64N(16)
				g := w.add(1, b, 1+rnd.Uint64N(16-b), rnd.IntN(2) == 0)
				w.k.Use(g, blockSize, 1)
				if err := w.Confirm(1, g.ID, g.Generation); err != nil {
					t.Fatal(err)
				}
				live = append(live, g)
			}
		case 2:
			if owned {
				w.disown(0, 16)
				if err := w.Drop(1); err != nil {
					t.Fatal(err)
				}
				owned = false
			}
		default:
			if len(live) > 0 {
				i := rnd.IntN(len(live))
				w.k.Use(live[i], blockSize, -1)
				live = slices.Delete(live, i, i+1)
			}
			w.now = w.now.Add(lease.Quarantine / 4)
			if err := w.Sweep(1 + rnd.IntN(4)); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range live {
			if p := g.Parts[0]; w.frees(p.Block, p.N) != 0 {
				t.Fatalf("grant %d: blocks %d+%d are free while they are mapped", g.ID, p.Block, p.N)
			}
		}
	}
	for _, g := range live {
		w.k.Use(g, blockSize, -1)
	}
	if owned {
		w.disown(0, 16)
	}
	w.sweepAll()
	if w.frees(0, blocks) != blocks || w.Any() || len(w.List()) != 0 {
		t.Errorf("%d of %d blocks free in the end, grants %v", w.frees(0, blocks), blocks, w.List())
	}
}

// TestForeignLocks checks that locks which no grant explains, as those of a former daemon's grants
// are, neither confirm a grant nor keep others from getting one, unless they cover all ids.
func TestForeignLocks(t *testing.T) {
	w := newWorld(t)
	w.own(0, 8)
	for id := uint64(2); id <= 10; id++ {
		off := protocol.Identity(id, id%2 == 0)
		w.k.Lock(off, off+1, 1)
	}
	first, second := w.add(1, 0, 1, false), w.add(1, 0, 1, false)
	if first.ID != 1 || second.ID != 11 {
		t.Errorf("ids %d and %d, want 1 and 11: those between are locked", first.ID, second.ID)
	}
	if err := w.Confirm(1, second.ID, second.Generation); !errors.Is(err, lease.ErrNotLocked) {
		t.Errorf("confirmed: %v", err)
	}
	w.SetLastID(second.ID)
	w.k.Lock(0, 1<<63-1, 1) // as flock(2) on NFS, or a backup program does
	g := &lease.Grant{Ino: 1, Lo: 0, Hi: 1, Handle: 5}
	if err := w.Add(g, 0); !errors.Is(err, lease.ErrBudget) {
		t.Errorf("a grant whose id is locked already: %v", err)
	}
	w.k.Lock(0, 1<<63-1, -1)
	if err := w.Add(g, 0); err != nil {
		t.Errorf("a grant once the lock is gone: %v", err)
	}
}
