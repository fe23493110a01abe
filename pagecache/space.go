package pagecache

import (
	"runtime"
	"sync/atomic"
)

// Space is the address space of one file. The zero value is empty. It must not
// be copied once in use.
//
// States of the sequence word and who moves it between them, all of them the
// writer:
//
//	quiet     00  BeginChange -> batch; a change -> changing
//	batch     01  a change -> changing; EndChange -> quiet, a version later
//	changing  1x  end of the change -> batch or quiet, a version later
//
// The low two bits are the state, the rest is the version. Lookup waits while
// it is changing, which is a few stores; Seq waits until it is quiet, and Valid
// holds only for a quiet value that is still there.
type Space struct {
	seq    atomic.Uint64
	root   atomic.Pointer[node] // of the tree; nil: the extents are inline
	inline [inlineExtents]cell  // in order; Len 0 from the first free one on.
	// While there is a tree, inline[0].logical is the number of extents.
}

const inlineExtents = 2

// cell is an extent in words, see Extent.
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

// Seq returns the sequence for a later Valid. If a batch of changes is not
// over after a short wait, it returns an odd value, for which Valid is never
// true.
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

// BeginChange starts a batch of changes, which readers that validate see as
// one. Batches do not nest. The writer itself may look up meanwhile.
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

// Lookup returns the extent that covers a file block. If none does, ok is false
// and e.Logical is where the next extent after it starts, None if there is
// none: the hole is that long. Any number of goroutines may call it at any
// time.
func (s *Space) Lookup(logical uint64) (e Extent, ok bool) {
	f := s.findStable(logical)
	if logical-f.logical < uint64(uint32(f.size)) {
		return f.extent(), true
	}
	return Extent{Logical: f.next}, false
}

// Translate is Lookup for whoever only wants to go there: the region block of a file
// block, how many blocks of the extent there are from it on, and the extent's flags. If no
// extent covers it n is 0, and block is where the next one starts in the file.
// (Analogous to iomap_begin. Its results fit registers, which an Extent does not.)
func (s *Space) Translate(logical uint64) (block, n uint64, flags uint8) {
	// A file of one extent, or the first of two: settle without its loops.
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

// translate is Translate in any file.
func (s *Space) translate(logical uint64) (block, n uint64, flags uint8) {
	f := s.findStable(logical)
	if in := logical - f.logical; in < uint64(uint32(f.size)) {
		return f.place&(maxBlock-1) + in, uint64(uint32(f.size)) - in, uint8(f.place >> flagShift)
	}
	return f.next, 0, 0
}

// Prev returns the last extent that starts before a file block, whether it
// covers that block or not. Safe as Lookup is.
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

// Last returns the last extent of the file. Safe as Lookup is.
func (s *Space) Last() (Extent, bool) { return s.Prev(None) }

// LookupQuiet is Lookup for callers without the inode's lock to whom a batch of changes must be
// one: it waits until there is none. Never called by the writer within a batch.
func (s *Space) LookupQuiet(logical uint64) (e Extent, ok bool) {
	for {
		seq := s.Seq()
		if e, ok = s.Lookup(logical); s.Valid(seq) {
			return e, ok
		}
	}
}

// Ascend calls f for each extent in order, from the one that covers file block
// from or follows it, until f returns false. Each step looks up anew (LookupQuiet), so that f
// may change the space, but not within a batch; for one view of the
// whole, hold the inode's lock.
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
		if walked && e.Logical < from { // merged meanwhile with what was told
			e.Block, e.Len = e.BlockAt(from), uint32(e.End()-from)
			e.Logical = from
		}
		if !f(e) {
			return
		}
		from, walked = e.End(), true
	}
}

// Len returns the number of extents. Safe as Lookup is, if approximate then.
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

// found is what a search for a file block finds: the words of the last extent
// that starts at or before it (Len 0: none), and where the one after it starts.
// (Four fields, so that the compiler keeps it in registers.)
type found struct {
	logical, place, size uint64
	next                 uint64
}

func (f found) extent() Extent { return unpack(f.logical, f.place, f.size) }

// findStable finds, again and again until no change came in between.
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

// find searches once. What it says holds if sound, and if the sequence is what
// it was before.
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
