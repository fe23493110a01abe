package pagecache

import (
	"runtime"
	"sync/atomic"
)

// Space is the address space of one file. The zero value is empty. It must not be copied once in
// use.
//
// States of the sequence word. Only the writer moves it between them:
//
//	quiet     00  BeginChange -> batch; a change -> changing
//	batch     01  a change -> changing; EndChange -> quiet, the next version
//	changing  1x  end of the change -> batch or quiet, the next version
//
// The low two bits are the state, the other bits are the version. Lookup waits while the state is
// changing, which is a few stores. Seq waits until it is quiet. Valid is true only for a quiet
// value that has not changed.
type Space struct {
	seq    atomic.Uint64
	root   atomic.Pointer[node] // of the tree; nil: the extents are inline
	inline [inlineExtents]cell  // in order; Len is 0 from the first unused one on.
	// While there is a tree, inline[0].logical is the number of extents.
}

const inlineExtents = 2

// cell is an extent in three words, see Extent.
type cell struct {
	logical, place, size atomic.Uint64
}

func (c *cell) load() Extent {
	return unpack(c.logical.Load(), c.place.Load(), c.size.Load())
}

func (c *cell) store(e Extent) {
	c.logical.Store(e.Logical)
	c.place.Store(e.place())
	c.size.Store(e.size())
}

const (
	batch    = uint64(1)
	changing = uint64(2)
	quiet    = batch | changing // mask of the state
)

// spins bounds how often Seq yields before it gives up.
const spins = 128

// Seq returns the sequence for a later Valid. If a batch of changes lasts longer than a short wait,
// it returns an odd value, for which Valid is never true.
func (s *Space) Seq() uint64 {
	for try := 0; ; try++ {
		seq := s.seq.Load()
		if seq&quiet == 0 {
			return seq
		}
		if try == spins {
			return seq | batch
		}
		runtime.Gosched()
	}
}

// Valid reports whether nothing has changed since Seq returned seq.
func (s *Space) Valid(seq uint64) bool {
	return seq&quiet == 0 && s.seq.Load() == seq
}

// BeginChange starts a batch of changes. Readers that validate see the batch as one change. Batches
// do not nest. The writer itself may use Lookup meanwhile.
func (s *Space) BeginChange() {
	seq := s.seq.Load()
	if seq&quiet != 0 {
		panic("pagecache: BeginChange within a change")
	}
	s.seq.Store(seq | batch)
}

// EndChange ends the batch.
func (s *Space) EndChange() {
	seq := s.seq.Load()
	if seq&quiet != batch {
		panic("pagecache: EndChange without BeginChange")
	}
	s.seq.Store(seq&^quiet + quiet + 1)
}

// enter starts the change of one extent, leave ends it.
func (s *Space) enter() { s.seq.Store(s.seq.Load() | changing) }
func (s *Space) leave() { s.seq.Store(s.seq.Load() + changing) }

// Lookup returns the extent that covers file block logical. If there is none, ok is false and
// e.Logical is where the next extent starts, which is the end of the hole; None if there is no next
// extent. Any number of goroutines may call it at any time.
func (s *Space) Lookup(logical uint64) (e Extent, ok bool) {
	f := s.findStable(logical)
	if logical-f.logical < uint64(uint32(f.size)) {
		return f.extent(), true
	}
	return Extent{Logical: f.next}, false
}

// Translate is Lookup for a caller that only needs the place: the region block of file block
// logical, how many blocks of the extent there are from it on, and the extent's flags. If no extent
// covers the block, n is 0, and block is the file block where the next extent starts, or None.
// (Analogous to iomap_begin. Its results fit in registers, which an Extent does not.)
func (s *Space) Translate(logical uint64) (block, n uint64, flags uint8) {
	// In a file of one extent, or in the first of two: find without its loops.
	if seq := s.seq.Load(); seq&changing == 0 && s.root.Load() == nil {
		c := &s.inline[0]
		at, size := c.logical.Load(), c.size.Load()
		if logical-at < uint64(uint32(size)) {
			place := c.place.Load()
			if s.seq.Load() == seq {
				return place&(maxBlock-1) + (logical - at), uint64(uint32(size)) - (logical - at), uint8(place >> flagShift)
			}
		}
	}
	return s.translate(logical)
}

// translate is Translate in a file of any number of extents.
func (s *Space) translate(logical uint64) (block, n uint64, flags uint8) {
	f := s.findStable(logical)
	if in := logical - f.logical; in < uint64(uint32(f.size)) {
		return f.place&(maxBlock-1) + in, uint64(uint32(f.size)) - in, uint8(f.place >> flagShift)
	}
	return f.next, 0, 0
}

// Prev returns the last extent that starts before file block logical, whether it covers that block
// or not. It may be called as Lookup may.
func (s *Space) Prev(logical uint64) (Extent, bool) {
	if logical == 0 {
		return Extent{}, false
	}
	f := s.findStable(logical - 1)
	if uint32(f.size) == 0 {
		return Extent{}, false
	}
	return f.extent(), true
}

// Last returns the last extent of the file. It may be called as Lookup may.
func (s *Space) Last() (Extent, bool) { return s.Prev(None) }

// LookupQuiet is Lookup for callers without the inode's lock that must see a batch of changes as
// one: it waits until no batch is in progress. The writer never calls it within a batch.
func (s *Space) LookupQuiet(logical uint64) (e Extent, ok bool) {
	for {
		seq := s.Seq()
		if e, ok = s.Lookup(logical); s.Valid(seq) {
			return e, ok
		}
	}
}

// Ascend calls f for each extent in order, from the one that covers file block from or else follows
// it, until f returns false. Each step is a new LookupQuiet, so f may change the space, but not
// within a batch. For a view of all extents at one moment, hold the inode's lock.
func (s *Space) Ascend(from uint64, f func(Extent) bool) {
	walked := false
	for {
		e, ok := s.LookupQuiet(from)
		if !ok {
			if e.Logical == None {
				return
			}
			from = e.Logical
			continue
		}
		if walked && e.Logical < from { // merged meanwhile with extents that f has seen
			e.Block, e.Len = e.BlockAt(from), uint32(e.End()-from)
			e.Logical = from
		}
		if !f(e) {
			return
		}
		from, walked = e.End(), true
	}
}

// Len returns the number of extents. It may be called as Lookup may, but is approximate during a
// change.
func (s *Space) Len() int {
	if s.root.Load() != nil {
		return int(s.inline[0].logical.Load())
	}
	n := 0
	for i := range s.inline {
		if uint32(s.inline[i].size.Load()) != 0 {
			n++
		}
	}
	return n
}

// found is the result of a search for a file block: the words of the last extent that starts at or
// before it (Len 0: no such extent), and where the extent after it starts. (It has four fields, so
// that the compiler keeps it in registers.)
type found struct {
	logical, place, size uint64
	next                 uint64
}

func (f found) extent() Extent { return unpack(f.logical, f.place, f.size) }

// findStable repeats find until the sequence does not change meanwhile.
func (s *Space) findStable(logical uint64) found {
	for try := 1; ; try++ {
		seq := s.seq.Load()
		if seq&changing == 0 {
			f, sound := s.find(logical)
			if sound && s.seq.Load() == seq {
				return f
			}
		}
		if try%8 == 0 {
			runtime.Gosched()
		}
	}
}

// find searches once. The result holds if it is sound and the sequence has not changed meanwhile.
func (s *Space) find(logical uint64) (f found, sound bool) {
	if n := s.root.Load(); n != nil {
		return n.find(logical)
	}
	f.next = None
	for i := range s.inline {
		c := &s.inline[i]
		at, size := c.logical.Load(), c.size.Load()
		if uint32(size) == 0 {
			break
		}
		if at > logical {
			f.next = at
			break
		}
		f.logical, f.place, f.size = at, c.place.Load(), size
	}
	return f, true
}
