package fs

import (
	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/hugepage"
	"github.com/daxfs/daxfs/pagecache"
)

// splice is a change of a file's extents: those it touches and what stands in their
// place afterwards. Whatever changes extents (writing, allocating, zeroing, punching,
// truncating, a directory's growth) is one.
//
// Life: empty -> planned (begin, take, put, finish) -> settled (slots known) -> staged in
// a transaction -> applied (committed) or dropped (not committed) -> empty. Between
// planned and the end a file's io is held throughout, or a directory's mu.
//
// It is kept with the inode, so that a growing file allocates nothing.
type splice struct {
	old   []pagecache.Extent // extents it replaces, in order
	now   []pagecache.Extent // what replaces them, in order; contiguous ones are merged
	parts []piece            // plan of a write: where each piece of it goes
	runs  []run              // newly allocated: owned once applied, free again if dropped
	gone  []run              // no longer the file's once applied
	data  []dataPiece        // of a write that is all or nothing: what the transaction stores in place
	max   int                // bounds the extents
}

// piece is where a part of a write goes. If it is unwritten its blocks hold no data yet,
// and what the write does not cover of them is zeros, or a copy of what is at from.
type piece struct {
	pagecache.Extent
	from uint64 // region block of the shared one that it replaces; 0: none
}

// spliceMax bounds the extents, and so the lines, of one transaction. A write that is all
// or nothing may have as many as there are blocks, and one on either side.
const spliceMax = 40

// spliceRuns bounds the allocations of one splice that merge to few extents.
const spliceRuns = 256

// maxExtent is the longest extent in blocks: 4 TiB.
const maxExtent = 1 << 30

// part is the piece [lo, hi) of an extent.
// Precondition: e covers it.
func part(e pagecache.Extent, lo, hi uint64) pagecache.Extent {
	e.Block = e.BlockAt(lo)
	e.Logical, e.Len = lo, uint32(hi-lo)
	return e
}

// full reports whether nothing more should be planned: a hole or an extent adds one
// extent on either side, the end one more.
func (s *splice) full() bool {
	return max(len(s.old), len(s.now)) >= s.max || len(s.runs) >= max(s.max, spliceRuns)
}

// begin starts a plan for the file's blocks from lo on. What ends at lo takes part: it
// may be lengthened.
func (s *splice) begin(in *inode, lo uint64) {
	s.old, s.now, s.parts, s.runs, s.gone, s.data = s.old[:0], s.now[:0], s.parts[:0], s.runs[:0], s.gone[:0], s.data[:0]
	s.max = spliceMax
	if p, ok := in.space.Prev(lo); ok && p.End() >= lo {
		s.take(p)
		s.put(part(p, p.Logical, lo))
	}
}

// finish ends a plan at block hi: what follows takes part, too.
func (s *splice) finish(in *inode, hi uint64) {
	if x, ok := in.space.Lookup(hi); ok {
		s.take(x)
		s.put(part(x, hi, x.End()))
	}
}

// take notes that e is replaced.
func (s *splice) take(e pagecache.Extent) {
	if n := len(s.old); n == 0 || s.old[n-1].Logical != e.Logical {
		s.old = append(s.old, e)
	}
}

// put notes that e stands there afterwards, behind all that was put before.
func (s *splice) put(e pagecache.Extent) {
	if n := len(s.now); n > 0 {
		p := &s.now[n-1]
		if p.End() == e.Logical && p.Block+uint64(p.Len) == e.Block && p.Flags == e.Flags && uint64(p.Len)+uint64(e.Len) <= maxExtent {
			p.Len += e.Len
			return
		}
	}
	s.now = append(s.now, e)
}

// settle ends the planning: what stays as it is leaves both lists. It returns how many
// slots the rest needs beyond those it has.
func (s *splice) settle() (slots int) {
	old, now := s.old[:0], s.now[:0]
	i, j := 0, 0
	for i < len(s.old) || j < len(s.now) {
		switch {
		case i < len(s.old) && j < len(s.now) && s.old[i] == s.now[j]:
			i++
			j++
		case j == len(s.now) || i < len(s.old) && s.old[i].Logical <= s.now[j].Logical:
			old = append(old, s.old[i])
			i++
		default:
			now = append(now, s.now[j])
			j++
		}
	}
	s.old, s.now = old, now
	return max(0, len(now)-len(old))
}

// idle reports whether a settled splice changes nothing.
func (s *splice) idle() bool { return len(s.old)+len(s.now) == 0 }

// settle settles a file's splice, and makes sure of the slots that it takes. Called
// with io held, and neither mu nor a lane.
func (fs *FS) settle(ctx *Context, in *inode) error {
	n := in.ext.splice.settle()
	if in.freeSlots() >= n {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return fs.needSlots(ctx, in, n)
}

// stageSplice writes the slots of a settled splice.
func (in *inode) stageSplice(t *tx) {
	s := &in.ext.splice
	for i := range s.now {
		if i < len(s.old) {
			s.now[i].Slot = s.old[i].Slot
		} else {
			s.now[i].Slot = in.takeSlot()
		}
		in.stageSlot(t, s.now[i].Slot, mediaExtent(s.now[i]))
	}
	for i := len(s.now); i < len(s.old); i++ {
		in.stageSlot(t, s.old[i].Slot, layout.Extent{})
	}
}

// dropSplice gives back what stageSplice took, after a commit that failed.
func (in *inode) dropSplice() {
	s := &in.ext.splice
	for i := len(s.old); i < len(s.now); i++ {
		in.giveSlot(s.now[i].Slot)
	}
}

// applySplice makes a committed splice current in DRAM, as one change to readers.
func (in *inode) applySplice() {
	s := &in.ext.splice
	in.space.BeginChange()
	j := 0
	for _, o := range s.old {
		for j < len(s.now) && s.now[j].Logical < o.Logical {
			j++
		}
		if j == len(s.now) || s.now[j].Logical != o.Logical {
			in.space.Remove(o.Logical)
		}
	}
	for _, insert := range []bool{false, true} { // what stays may shrink to make room
		i := 0
		for _, e := range s.now {
			for i < len(s.old) && s.old[i].Logical < e.Logical {
				i++
			}
			stays := i < len(s.old) && s.old[i].Logical == e.Logical
			switch {
			case stays && !insert:
				in.space.Update(e.Logical, e)
			case !stays && insert:
				in.space.Insert(e)
			}
		}
	}
	in.space.EndChange()
	n := uint64(0)
	for _, e := range s.now {
		n += uint64(e.Len)
	}
	for _, e := range s.old {
		n -= uint64(e.Len)
	}
	in.blocks.Add(n)
	for i := len(s.now); i < len(s.old); i++ {
		in.giveSlot(s.old[i].Slot)
	}
}

// owned is the end of a file's applied splice: what is no
// longer its own goes to whoever holds it last. A large folio of which a part goes is
// split, when it is idle.
func (fs *FS) owned(ctx *Context, in *inode) {
	s := &in.ext.splice
	for _, r := range s.runs {
		fs.promote(s, r)
	}
	for _, r := range s.gone {
		fs.table.Disown(r.block, r.n, fs.freeTo(ctx))
	}
}

// promote makes larger folios of those that r completes: a file that grows in place by
// small appends ends up in large ones. One that is busy stays as it is.
func (fs *FS) promote(s *splice, r run) {
	i := 0
	for i < len(s.now) && (r.block < s.now[i].Block || r.block >= s.now[i].Block+uint64(s.now[i].Len)) {
		i++
	}
	if i == len(s.now) {
		return // merged with nothing, and left as it was
	}
	e := s.now[i]
	o := fs.alloc.Orders()
	for _, order := range [2]uint8{o.PMD, o.PUD} {
		size := uint64(1) << order
		for _, b := range [2]uint64{r.block, r.block + r.n - 1} { // what r has of it in the middle is whole
			b = hugepage.AlignDown(b, order)
			if b >= e.Block && b+size <= e.Block+uint64(e.Len) && fs.table.Order(b) < order {
				fs.table.Merge(b, order)
			}
		}
	}
}

// unowned is the end of a file's splice that was not committed.
func (fs *FS) unowned(ctx *Context, in *inode) {
	for _, r := range in.ext.splice.runs {
		fs.freeTo(ctx)(r.block, r.n)
	}
}

// payer returns the user whose space a change of the file takes.
func (in *inode) payer(ctx *Context) uint32 {
	if ctx.Writeback {
		return in.uid()
	}
	return ctx.UID
}

// dataBlock returns the first block of an extent's data; 0: it is unwritten and holds none.
func dataBlock(e pagecache.Extent) uint64 {
	if e.Flags&layout.ExtentUnwritten != 0 {
		return 0
	}
	return e.Block
}

// fate is what becomes of the blocks of a range.
type fate int

const (
	fateWrite    fate = iota // data: holes are allocated, unwritten blocks become written
	fateAllocate             // holes become unwritten blocks, the rest stays as it is
	fateZero                 // all becomes unwritten blocks
	fatePunch                // all becomes a hole
)

// plan fills in the inode's splice with what f makes of blocks [lo, hi), as far as one
// transaction goes: up to stop. The blocks it allocates are free again after unowned. If
// there is no space for the first block it is errNoSpace, and nothing is planned.
func (fs *FS) plan(ctx *Context, in *inode, lo, hi uint64, f fate) (stop uint64, err error) {
	s := &in.ext.splice
	s.begin(in, lo)
	if f == fateWrite && fs.atomic() {
		s.max = layout.LoggedMax - 1 // and the core line
	}
	uid := in.payer(ctx)
	b := lo
	for b < hi && !s.full() {
		e, ok := in.space.Lookup(b)
		switch {
		case ok:
			s.take(e)
			x := part(e, b, min(hi, e.End()))
			if f == fateWrite || f == fateZero {
				m, bad := fs.bad.alike(x.Block, uint64(x.Len))
				x = part(x, b, b+m)
				if bad || fs.elsewhere(x) {
					block, n, ok := fs.placeCopy(ctx, b, fs.spare(uid, uint64(x.Len)))
					if !ok {
						if b == lo {
							return lo, errNoSpace
						}
						hi = b
						continue
					}
					s.runs = append(s.runs, run{block, n})
					s.gone = append(s.gone, run{x.Block, n})
					y := pagecache.Extent{Logical: b, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
					s.parts = append(s.parts, piece{y, dataBlock(x)})
					if f == fateWrite {
						y.Flags = 0
					}
					s.put(y)
					b += n
					continue
				}
				x.Flags &^= layout.ExtentShared
			}
			s.parts = append(s.parts, piece{Extent: x})
			switch f {
			case fateWrite:
				x.Flags &^= layout.ExtentUnwritten
			case fateZero:
				x.Flags |= layout.ExtentUnwritten
			}
			if f == fatePunch {
				s.gone = append(s.gone, run{x.Block, uint64(x.Len)})
			} else {
				s.put(x)
			}
			b = x.End()
		case f == fatePunch:
			b = min(hi, e.Logical)
		default:
			block, n, ok := fs.place(ctx, in, b, fs.spare(uid, min(hi, e.Logical)-b))
			if !ok {
				if b == lo {
					return lo, errNoSpace
				}
				hi = b
				continue
			}
			fs.defrag.placed.Add(n)
			s.runs = append(s.runs, run{block, n})
			x := pagecache.Extent{Logical: b, Block: block, Len: uint32(n), Flags: layout.ExtentUnwritten}
			s.parts = append(s.parts, piece{Extent: x})
			if f == fateWrite {
				x.Flags = 0
			}
			s.put(x)
			b += n
		}
	}
	s.finish(in, b)
	return b, nil
}
