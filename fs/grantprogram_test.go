package fs_test

import (
	"math/rand/v2"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// mapping is what a program has: a grant, and the file that it knows.
type mapping struct {
	s *stressed
	f *stamped
	g *lease.Grant
}

// open asks for a grant, takes the locks, and confirms, as a program does. It returns nil if it got
// none, and at random: then the program has died between two steps.
func (s *stressed) open(ctx *fs.Caller, rnd *rand.Rand, f *stamped, write bool) *mapping {
	d := s.FS.Direct()
	lo := rnd.Uint64N(64)
	handle := 1 + rnd.Uint64N(1<<40)
	q := &fs.GrantQuery{Lo: lo, Hi: lo + 1 + rnd.Uint64N(32), Write: write, Allocate: write && rnd.IntN(2) == 0, Most: 1 + rnd.IntN(20), Handle: handle}
	g, _, e := d.Grant(ctx, f.ino, q)
	if e != 0 {
		return nil
	}
	s.grants.Add(1)
	defer d.CloseHandle(handle)
	if rnd.IntN(8) == 0 {
		return nil
	}
	s.locks.Use(g, layout.BlockSize, 1)
	if rnd.IntN(8) == 0 || d.Confirm(ctx, f.ino, g.ID, g.Generation) != 0 {
		s.locks.Use(g, layout.BlockSize, -1)
		return nil
	}
	return &mapping{s, f, g}
}

// close ends the lease: from now on the program does not touch the blocks.
func (m *mapping) close(rnd *rand.Rand, ctx *fs.Caller) {
	m.s.locks.Use(m.g, layout.BlockSize, -1)
	if rnd.IntN(2) == 0 && m.f.users.Load() > 0 {
		m.s.FS.Direct().Release(m.f.ino, m.g.ID)
	}
}

// current reports whether the grant is not stale.
func (m *mapping) current() bool {
	return word(m.s.bytes, m.g.Slot+protocol.SlotGeneration) == m.g.Generation
}

// copy returns what a program sees: the region, and zeros for holes.
func (m *mapping) copy() []byte {
	b := make([]byte, (m.g.Hi-m.g.Lo)<<layout.BlockShift)
	for _, p := range m.g.Parts {
		from, to := int64(p.Block)<<layout.BlockShift, int64(p.Logical-m.g.Lo)<<layout.BlockShift
		for i := int64(0); i < int64(p.N)<<layout.BlockShift; i += 8 {
			setWord(b, to+i, word(m.s.bytes, from+i))
		}
	}
	return b
}

// program maps files, several at once, and loads and stores their blocks, also of grants that are
// stale: what is mapped stays the file's, or nobody's.
func (s *stressed) program(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	ctx := &fs.Caller{Lane: uint32(seed), UID: uint32(seed)}
	var have []*mapping
	for s.running() {
		s.gate.RLock()
		switch op := rnd.IntN(6); {
		case op == 0 && len(have) < 6:
			f := s.use(rnd.IntN(len(s.names)))
			f.mu.RLock()
			if m := s.open(ctx, rnd, f, rnd.IntN(2) == 0); m != nil {
				have = append(have, m)
			}
			f.mu.RUnlock()
			s.done(f) // it closes the file, and keeps the mapping
		case op == 1 && len(have) > 0:
			i := rnd.IntN(len(have))
			have[i].close(rnd, ctx)
			have[i] = have[len(have)-1]
			have = have[:len(have)-1]
		case len(have) > 0:
			m := have[rnd.IntN(len(have))]
			if m.g.Writable && rnd.IntN(2) == 0 {
				m.store(rnd)
			}
			current := m.current()
			b := m.copy()
			if s.check("a load through a grant", m.f, b); !current || !m.current() {
				s.stale.Add(1)
			}
			if m.g.Writable && rnd.IntN(4) == 0 {
				s.FS.Direct().Commit(m.f.ino, m.g.ID, 0, 0)
			}
		}
		s.gate.RUnlock()
	}
	s.gate.RLock()
	for _, m := range have {
		m.close(rnd, ctx)
	}
	s.gate.RUnlock()
}

// store stores a stamp to some words of a grant.
func (m *mapping) store(rnd *rand.Rand) {
	m.f.mu.RLock()
	defer m.f.mu.RUnlock()
	w := m.s.stamp(m.f)
	for _, p := range m.g.Parts {
		for range 8 {
			setWord(m.s.bytes, int64(p.Block)<<layout.BlockShift+8*rnd.Int64N(int64(p.N)<<layout.BlockShift/8), w)
		}
	}
	m.s.stores.Add(1)
}
