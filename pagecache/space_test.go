package pagecache

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

func TestEmpty(t *testing.T) {
	var s Space
	if e, ok := s.Lookup(7); ok || e.Logical != None {
		t.Errorf("Lookup = %v, %t", e, ok)
	}
	if _, ok := s.Last(); ok {
		t.Error("Last found something")
	}
	if _, ok := s.Prev(0); ok {
		t.Error("Prev found something")
	}
	if _, ok := s.Remove(0); ok {
		t.Error("Remove removed something")
	}
	if s.Len() != 0 {
		t.Errorf("Len = %d", s.Len())
	}
}

// spaceOf returns a Space of n extents of two blocks, with a hole of one block after each.
func spaceOf(n uint64) *Space {
	s := new(Space)
	for i := range n {
		s.Insert(Extent{Logical: 3 * i, Block: blockOf(3 * i), Len: 2, Slot: uint32(i)})
	}
	return s
}

// blockOf is the invariant of the tests: the region block of each file block.
func blockOf(logical uint64) uint64 { return logical*7 + 1000 }

func TestMisusePanics(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 100} {
		for _, c := range []struct {
			name string
			f    func(s *Space)
		}{
			{"overlap before", func(s *Space) { s.Insert(Extent{Logical: 1, Len: 1}) }},
			{"overlap same", func(s *Space) { s.Insert(Extent{Logical: 0, Len: 1}) }},
			{"overlap last", func(s *Space) { s.Insert(Extent{Logical: 3*n - 2, Len: 1}) }},
			{"empty", func(s *Space) { s.Insert(Extent{Logical: 3*n + 9}) }},
			{"end", func(s *Space) { s.Insert(Extent{Logical: None, Len: 1}) }},
			{"block", func(s *Space) { s.Insert(Extent{Logical: 3*n + 9, Len: 1, Block: maxBlock}) }},
			{"update absent", func(s *Space) { s.Update(1, Extent{Logical: 1, Len: 1}) }},
			{"update overlap", func(s *Space) {
				s.Insert(Extent{Logical: 3 * n, Len: 1})
				s.Update(3*n-3, Extent{Logical: 3*n - 3, Len: 4})
			}},
			{"update overlap before", func(s *Space) {
				s.Insert(Extent{Logical: 3 * n, Len: 1})
				s.Update(3*n, Extent{Logical: 3*n - 2, Len: 1})
			}},
			{"nested", func(s *Space) { s.BeginChange(); s.BeginChange() }},
			{"end without begin", func(s *Space) { s.EndChange() }},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%d extents: %s did not panic", n, c.name)
					}
				}()
				c.f(spaceOf(n))
			}()
		}
	}
}

func TestBatch(t *testing.T) {
	s := spaceOf(1)
	seq := s.Seq()
	if seq&1 != 0 || !s.Valid(seq) {
		t.Fatalf("quiet: seq %d, valid %t", seq, s.Valid(seq))
	}
	s.BeginChange()
	if s.Valid(seq) {
		t.Error("valid within a batch")
	}
	if odd := s.Seq(); odd&1 == 0 || s.Valid(odd) {
		t.Errorf("batch: seq %d, valid %t", odd, s.Valid(odd))
	}
	s.Insert(Extent{Logical: 10, Block: 1, Len: 1})
	if _, ok := s.Lookup(10); !ok {
		t.Error("the writer does not see its own change")
	}
	if odd := s.Seq(); s.Valid(odd) {
		t.Error("valid after a change within a batch")
	}
	s.EndChange()
	if s.Valid(seq) {
		t.Error("valid after a batch")
	}
	seq = s.Seq()
	s.Update(10, Extent{Logical: 10, Block: 1, Len: 2})
	if s.Valid(seq) {
		t.Error("valid after a change")
	}
	if seq = s.Seq(); !s.Valid(seq) {
		t.Error("not valid after all changes")
	}
	s.BeginChange()
	s.EndChange()
	if s.Valid(seq) {
		t.Error("valid after an empty batch")
	}
}

// TestConcurrent has a writer change two spaces, which exchange nodes through the pool. Readers
// check that each block is found only where it may be, and that pairs of extents change together,
// in batches.
func TestConcurrent(t *testing.T) {
	rounds := 3000
	if invariants.Enabled || testing.Short() {
		rounds = 500
	}
	const width = 4096
	var spaces [2]Space
	var stop atomic.Bool
	var readers sync.WaitGroup
	var valid atomic.Int64
	for reader := range 3 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			rng := rand.New(rand.NewPCG(1, uint64(reader)))
			for !stop.Load() {
				which := rng.IntN(2)
				space := &spaces[which]
				at := rng.Uint64N(width)
				seq := space.Seq()
				extent, ok := space.Lookup(at)
				twin, both := space.Lookup(at ^ width)
				if ok && (extent.BlockAt(at) != blockOf(at)+uint64(which)<<40 || at < extent.Logical || at >= extent.End()) {
					t.Errorf("space %d: Lookup(%d) = %v", which, at, extent)
					return
				}
				if !ok && extent.Logical <= at {
					t.Errorf("space %d: Lookup(%d) reports a hole that ends at %d", which, at, extent.Logical)
					return
				}
				if space.Valid(seq) {
					valid.Add(1)
					if ok != both || ok && twin.Slot != extent.Slot {
						t.Errorf("space %d: half of a batch at %d: %v %t, %v %t", which, at, extent, ok, twin, both)
						return
					}
				}
			}
		}()
	}
	rng := rand.New(rand.NewPCG(2, 0))
	slot := uint32(0)
	for range rounds {
		which := rng.IntN(2)
		space := &spaces[which]
		if rng.IntN(100) == 0 {
			space.Reset()
		}
		from, n := rng.Uint64N(width), rng.Uint64N(64)
		del := rng.IntN(2) == 0
		for at := from; at < min(from+n, width); at++ {
			slot++
			space.BeginChange()
			for _, at := range []uint64{at, at ^ width} {
				extent := Extent{Logical: at, Block: blockOf(at) + uint64(which)<<40, Len: 1, Slot: slot}
				_, ok := space.Lookup(at)
				switch {
				case ok && del:
					space.Remove(at)
				case ok:
					space.Update(at, extent)
				default:
					space.Insert(extent)
				}
			}
			space.EndChange()
		}
	}
	stop.Store(true)
	readers.Wait()
	t.Logf("%d valid reads", valid.Load())
}

func TestHotPathAllocatesNothing(t *testing.T) {
	if invariants.Enabled {
		t.Skip("pools forget under the race detector")
	}
	s := spaceOf(1000)
	last, _ := s.Last()
	at := uint64(0)
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"lookup", func() {
			seq := s.Seq()
			s.Lookup(at % 3000)
			s.Valid(seq)
			at += 17
		}},
		{"append", func() {
			last.Len++
			s.Update(last.Logical, last)
		}},
		{"insert and remove", func() {
			for i := range uint64(200) {
				s.Insert(Extent{Logical: 1<<30 + i, Len: 1})
			}
			for i := range uint64(200) {
				s.Remove(1<<30 + i)
			}
		}},
	} {
		if n := testing.AllocsPerRun(100, c.f); n >= 1 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, c := range []struct {
		name string
		n    uint64
	}{{"2", 2}, {"100", 100}, {"100000", 100000}} {
		b.Run(c.name, func(b *testing.B) {
			s := spaceOf(c.n)
			x := uint64(1)
			for b.Loop() {
				x = x*6364136223846793005 + 1442695040888963407
				s.Lookup((x >> 32) * (3 * c.n) >> 32)
			}
		})
	}
	b.Run("100000 in order", func(b *testing.B) {
		s := spaceOf(100000)
		at := uint64(0)
		for b.Loop() {
			if at++; at == 300000 {
				at = 0
			}
			s.Lookup(at)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := spaceOf(100000)
	last, _ := s.Last()
	for b.Loop() {
		last.Len = last.Len%1000 + 1
		s.Update(last.Logical, last)
	}
}

func BenchmarkInsertRemove(b *testing.B) {
	s := spaceOf(100000)
	x := uint64(1)
	for b.Loop() {
		x = x*6364136223846793005 + 1442695040888963407
		at := (x>>32)*100000>>32*3 + 2
		s.Insert(Extent{Logical: at, Len: 1})
		s.Remove(at)
	}
}
