package lease_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/refcnt"
)

// hooked is a Fake that calls a function after it has looked for a lock.
type hooked struct {
	*lease.Fake
	after func(locked bool)
}

func (h *hooked) FirstLock(off, n int64) (lo, hi int64, ok bool, err error) {
	lo, hi, ok, err = h.Fake.FirstLock(off, n)
	if f := h.after; f != nil {
		h.after = nil
		f(ok)
	}
	return lo, hi, ok, err
}

// table returns a table of leases over 64 owned blocks.
func table(t *testing.T, locks lease.Locks, o lease.Options) *lease.Table {
	folios, err := refcnt.New(64, 3, 6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folios.Close() })
	folios.Own(0, 64)
	memory := map[int64]uint64{}
	o.Locks, o.Folios, o.Block, o.Slots = locks, folios, blockSize, 4
	o.Idle = func(block, n uint64) { t.Errorf("owned blocks %d+%d are free", block, n) }
	o.Store = func(off int64, v uint64) error { memory[off] = v; return nil }
	o.Load = func(off int64) (uint64, error) { return memory[off], nil }
	return lease.New(o)
}

// TestRelock checks that a lease does not end which Confirm has seen after a Sweep had missed it.
func TestRelock(t *testing.T) {
	locks := &hooked{Fake: new(lease.Fake)}
	w := newWorld(t)
	ends := 0
	l := table(t, locks, lease.Options{Now: w.clock, Ended: func(uint64, *lease.Grant) { ends++ }})
	g := &lease.Grant{Ino: 1, Hi: 1, Parts: []lease.Part{{N: 1}}, Writable: true}
	confirm := func() {
		t.Helper()
		locks.Use(g, blockSize, 1)
		if err := l.Confirm(1, g.ID, g.Generation); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Add(g, 0); err != nil {
		t.Fatal(err)
	}
	confirm()
	locks.Use(g, blockSize, -1)
	locks.after = func(locked bool) {
		if locked {
			t.Error("the lock is seen that is gone")
		}
		confirm()
	}
	if err := l.Sweep(10); err != nil || ends != 0 {
		t.Fatalf("%d leases have ended, %v", ends, err)
	}
	if _, err := l.Lookup(1, g.ID); err != nil {
		t.Errorf("the lease that was confirmed again has ended: %v", err)
	}
	locks.Use(g, blockSize, -1)
	if err := l.Sweep(10); err != nil || ends != 1 {
		t.Errorf("%d leases have ended, %v", ends, err)
	}
}

// TestEndedSweeps checks that Options.Ended, which may free a file, may sweep.
func TestEndedSweeps(t *testing.T) {
	locks, w := new(lease.Fake), newWorld(t)
	var l *lease.Table
	ends := 0
	l = table(t, locks, lease.Options{Now: w.clock, Ended: func(uint64, *lease.Grant) {
		if ends++; l.Sweep(10) != nil || l.TrySweep() != nil {
			t.Error("no sweep")
		}
	}})
	g := &lease.Grant{Ino: 1, Hi: 1, Parts: []lease.Part{{N: 1}}}
	if err := l.Add(g, 0); err != nil {
		t.Fatal(err)
	}
	locks.Use(g, blockSize, 1)
	if err := l.Confirm(1, g.ID, g.Generation); err != nil {
		t.Fatal(err)
	}
	locks.Use(g, blockSize, -1)
	if err := l.Sweep(10); err != nil || ends != 1 {
		t.Errorf("%d leases have ended, %v", ends, err)
	}
}

// TestIDsWrap checks that ids go on at 1 after the largest, and that no two grants have the same.
func TestIDsWrap(t *testing.T) {
	w := newWorld(t)
	l := table(t, new(lease.Fake), lease.Options{Now: w.clock, LastID: protocol.MaxID - 2})
	add := func() uint64 {
		g := &lease.Grant{Ino: 1, Hi: 1, Parts: []lease.Part{{N: 1}}, Handle: 1}
		if err := l.Add(g, 0); err != nil {
			t.Fatal(err)
		}
		return g.ID
	}
	for _, want := range []uint64{protocol.MaxID - 1, protocol.MaxID, 1, 2} {
		if id := add(); id != want {
			t.Errorf("id %d, want %d", id, want)
		}
	}
	l = table(t, new(lease.Fake), lease.Options{Now: w.clock, LastID: protocol.MaxID})
	add()
	l.SetLastID(protocol.MaxID)
	if id := add(); id != 2 {
		t.Errorf("id %d while id 1 is in use", id)
	}
}

// TestEndedBudget checks that the locks of a lease that has ended count no more, although its
// blocks are in quarantine.
func TestEndedBudget(t *testing.T) {
	w := newWorld(t)
	w.own(0, 1)
	for range 2 * lease.Budget {
		g := w.add(1, 0, 1, false)
		w.k.Use(g, blockSize, 1)
		if err := w.Confirm(1, g.ID, g.Generation); err != nil {
			t.Fatal(err)
		}
		w.k.Use(g, blockSize, -1)
		if err := w.Look(1, g.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.sweepAll()
	if w.Any() || w.folios.Leased(0, 1) {
		t.Error("leases are left")
	}
}

// TestFoundInTurns checks that sweeps of some grants at a time come to the found leases, too, and
// that their blocks are kept for Quarantine.
func TestFoundInTurns(t *testing.T) {
	w := newWorld(t)
	w.own(0, 8)
	w.k.Lock(0, 4*blockSize, 1)
	if err := w.Find(blocks, func(_, n uint64) (uint64, bool) { return n, false }); err != nil {
		t.Fatal(err)
	}
	w.k.Lock(0, 4*blockSize, -1)
	for range 20 {
		w.add(1, 4, 4, false)
	}
	turn := func() {
		for range 7 {
			if err := w.Sweep(3); err != nil {
				t.Fatal(err)
			}
		}
	}
	turn()
	w.now = w.now.Add(lease.Quarantine - 1)
	turn()
	if !w.folios.Leased(0, 4) || !w.Ending() {
		t.Error("what nobody locks is not in quarantine after a whole turn")
	}
	w.now = w.now.Add(1)
	turn()
	if w.folios.Leased(0, 4) || w.Ending() {
		t.Error("what nobody locks is leased after its quarantine")
	}
	w.CloseHandle(5)
}

// slow is a Fake that takes a millisecond to find a lock.
type slow struct {
	*lease.Fake
	now     time.Time
	queries int
}

func (k *slow) Locks(off, n int64, f func(lo, hi int64) bool) error {
	return k.Fake.Locks(off, n, func(lo, hi int64) bool {
		k.now, k.queries = k.now.Add(time.Millisecond), k.queries+1
		return f(lo, hi)
	})
}

// TestManyFound checks that a Sweep does not look at all found leases if a program has taken so
// many locks that it would take long, and that the next Sweeps come to all of them: also if the
// locks are within a single found lease.
func TestManyFound(t *testing.T) {
	for _, whole := range []bool{false, true} {
		k := &slow{Fake: new(lease.Fake), now: time.Unix(1, 0)}
		l := table(t, k, lease.Options{Now: func() time.Time { return k.now }})
		lock := func(d int) {
			for b := range int64(64) {
				if b%2 == 0 {
					k.Lock(b*blockSize, (b+1)*blockSize, d)
				}
			}
		}
		if whole {
			k.Lock(0, 64*blockSize, 1)
		} else {
			lock(1)
		}
		if err := l.Find(64, func(_, n uint64) (uint64, bool) { return n, false }); err != nil {
			t.Fatal(err)
		}
		if whole {
			k.Lock(0, 64*blockSize, -1)
			lock(1)
		}
		for range 10 {
			k.queries = 0
			if err := l.Sweep(10); err != nil || k.queries == 0 || k.queries > 11 {
				t.Fatalf("a Sweep made %d queries, %v", k.queries, err)
			}
		}
		if n := len(l.List()); n != 32 {
			t.Errorf("%d found leases, expected 32", n)
		}
		k.DropAll()
		for range 10 {
			if err := l.Sweep(10); err != nil {
				t.Fatal(err)
			}
			k.now = k.now.Add(lease.Quarantine)
		}
		if l.Any() || l.Ending() {
			t.Error("leases are left")
		}
	}
}

// TestThousandsEnd checks that the grants of a file end in one pass: 20 000 at once, as when a
// program with that many dies, while others use the table.
func TestThousandsEnd(t *testing.T) {
	w := newWorld(t)
	w.own(0, 8)
	const n = 20_000
	for range n {
		g := w.add(1, 0, 1, false)
		w.k.Use(g, blockSize, 1)
		if err := w.Confirm(1, g.ID, g.Generation); err != nil {
			t.Fatal(err)
		}
		w.k.Use(g, blockSize, -1)
		if err := w.Look(1, g.ID); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 100 {
				w.OfFile(1)
				w.CloseHandle(77)
				if _, err := w.Lookup(1, 1<<40); !errors.Is(err, lease.ErrUnknown) {
					t.Error(err)
				}
			}
		}()
	}
	w.sweepAll()
	wg.Wait()
	if w.Any() {
		t.Error("leases are left")
	}
}
