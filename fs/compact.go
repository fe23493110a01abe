package fs

import (
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pagecache"
)

// candidate is an aligned block of the region that may be emptied: to collapse a range of a file
// there, or to be free as a whole.
type candidate struct {
	base, size uint64 // in region blocks
	ino, lo    uint64 // the file and the first file block of its range; ino 0: no range
	others     uint64 // blocks to move out of the way
	cost       uint64 // blocks to move
	done       uint64 // blocks moved
}

// easiest returns the candidate that takes the fewest moved blocks to collapse a PUD range. Its
// time depends on the blocks that are allocated, not on the sizes of the files.
func (d *defrag) easiest(ctx *Caller) (best candidate, ok bool) {
	fs := d.fs
	for _, ino := range d.list() {
		if ctx.cancelled() {
			return best, false
		}
		in, e := fs.get(ino)
		if e != 0 {
			d.drop(ino)
			continue
		}
		left := false // a range that is full and not collapsed
		if fs.extentsLoaded(ctx, in) == nil {
			left = d.easiestOf(in, &best, &ok)
		}
		fs.put(in, 1)
		if !left {
			d.drop(ino)
		}
	}
	return best, ok
}

// easiestOf replaces best by the cheapest candidate for the file's PUD ranges, if that is cheaper;
// *ok reports whether best is valid. It returns whether the file has a PUD range that is full and
// not collapsed.
func (d *defrag) easiestOf(in *inode, best *candidate, ok *bool) (left bool) {
	order := d.fs.alloc.Orders().PUD
	end := in.size.Load() >> layout.BlockShift
	for lo, next := uint64(0), uint64(1)<<order; next <= end; lo, next = next, next+1<<order {
		if e, found := in.space.Lookup(lo); !found && e.Logical >= next {
			next = hugepage.AlignDown(min(e.Logical, end), order)
			continue
		}
		s := in.rangeState(lo, order)
		if !s.full || s.collapsed() {
			continue
		}
		left = true
		in.io.Lock()
		cs := d.candidatesLocked(in, lo, &s)
		in.io.Unlock()
		for _, c := range cs {
			if !*ok || c.cost < best.cost {
				*best, *ok = c, true
			}
		}
	}
	return left
}

// candidatesLocked returns the aligned blocks in which the PUD range at file block lo could be
// collapsed: those that hold a part of it in place, and the emptiest. Called with io held.
func (d *defrag) candidatesLocked(in *inode, lo uint64, s *rangeState) (cs []candidate) {
	fs := d.fs
	order := fs.alloc.Orders().PUD
	places := s.at[:s.n]
	if base, ok := fs.alloc.Emptiest(order); ok {
		places = append(places, inBase{base: base})
	}
	for _, p := range places {
		free, kept := fs.alloc.FreeIn(order, p.base)
		if kept && p.base != in.ext.reservedAt || fs.table.Order(p.base) == order || p.base+s.whole > fs.sb.Blocks() || !d.onlyData(p.base, s.whole) {
			continue
		}
		others := s.whole - free - p.blocks
		if fs.alloc.FreeBlocks()-free < others+others/8+fs.reserve.kept.Load()*uint64(fs.sb.ChunkBlocks()) {
			continue
		}
		cs = append(cs, candidate{base: p.base, size: s.whole, ino: in.ino, lo: lo, others: others, cost: others + s.whole - p.blocks})
	}
	return cs
}

// collapsePUD collapses the range of a candidate, and reports whether it is collapsed now. It locks
// one PMD range of one file at a time.
func (d *defrag) collapsePUD(ctx *Caller, c *candidate) bool {
	fs := d.fs
	o := fs.alloc.Orders()
	fs.alloc.Keep(o.PUD, c.base)
	users := []uint64(nil)
	if c.others > 0 {
		users = d.usersOf(ctx, []*candidate{c})
	}
	for _, ino := range users {
		if ctx.cancelled() || !d.clear(ctx, c, ino) {
			return false
		}
	}
	in, e := fs.get(c.ino)
	if e != 0 {
		return false
	}
	defer fs.put(in, 1)
	if fs.extentsLoaded(ctx, in) != nil {
		return false
	}
	for off := uint64(0); off < 1<<o.PUD; off += 1 << o.PMD {
		if ctx.cancelled() {
			return false
		}
		if s := in.rangeState(c.lo+off, o.PMD); s.collapsed() && s.best == c.base+off {
			continue
		}
		n, ok := d.collapse(ctx, in, c.lo+off, c.base+off)
		c.done += n
		if !ok {
			return false
		}
	}
	in.io.Lock()
	defer in.io.Unlock()
	if s := in.rangeState(c.lo, o.PUD); s.collapsed() {
		d.mergeFolios(in, c.lo, c.lo+s.whole, s.best)
		return true
	}
	return false
}

// pack empties PMD blocks that are at most half used into the free space of other partial PMD
// blocks, and returns how many blocks it moved. It does nothing if less than 1/32 of the free space
// is in partial PMD blocks. share is the budget of its moves.
func (d *defrag) pack(ctx *Caller, share uint64) (moved uint64) {
	fs := d.fs
	st := fs.alloc.Stats()
	if st.Free4K < st.Free/32 {
		return 0
	}
	o := fs.alloc.Orders()
	var cs []*candidate
	// Free blocks in partial PMD blocks that are not emptied, less the blocks to move there.
	room := st.Free4K
	for _, b := range fs.alloc.Sparse(1<<o.PMD/2, packMax) {
		used := 1<<o.PMD - b.Free
		if room < b.Free+used+1<<o.PMD {
			break
		}
		if d.onlyData(b.Base, 1<<o.PMD) && d.mayMove(used, share) {
			room -= b.Free + used
			fs.alloc.Keep(o.PMD, b.Base)
			cs = append(cs, &candidate{base: b.Base, size: 1 << o.PMD, cost: used})
		}
	}
	if len(cs) == 0 {
		return 0
	}
	for _, ino := range d.usersOf(ctx, cs) {
		for _, c := range cs {
			if ctx.cancelled() {
				break
			}
			d.clear(ctx, c, ino)
		}
	}
	for _, c := range cs {
		moved += c.done
		d.movedOf(c.cost, c.done, share)
	}
	return moved
}

// packMax bounds how many PMD blocks one call of pack empties.
const packMax = 64

// clear moves a file's blocks out of a candidate's block, except those that are in place for the
// candidate's range. It reports whether no other block of the file is left there.
func (d *defrag) clear(ctx *Caller, c *candidate, ino uint64) bool {
	fs := d.fs
	in, e := fs.get(ino)
	if e != 0 {
		return true // the file was deleted meanwhile
	}
	defer fs.put(in, 1)
	if !in.isReg() || fs.extentsLoaded(ctx, in) != nil {
		return false
	}
	o := fs.alloc.Orders()
	for at := uint64(0); ; {
		x, ok := in.nextIn(at, c, ino, o)
		if !ok {
			return true
		}
		if ctx.cancelled() || !d.moveAway(ctx, in, c, x) {
			return false
		}
		at = x.End()
	}
}

// nextIn returns the next part of the file, from file block at on, that lies in the candidate's
// block and is not in place for the candidate's range. The part does not cross the end of a PMD
// range.
func (in *inode) nextIn(at uint64, c *candidate, ino uint64, o hugepage.Orders) (x pagecache.Extent, ok bool) {
	end := c.base + c.size
	in.space.Ascend(at, func(e pagecache.Extent) bool {
		lo, hi := max(e.Block, c.base), min(e.Block+uint64(e.Len), end)
		if lo >= hi {
			return true
		}
		x = part(e, e.Logical+lo-e.Block, e.Logical+hi-e.Block)
		if x.End() <= at {
			return true
		}
		x = part(x, max(x.Logical, at), x.End())
		if ino == c.ino && x.Logical >= c.lo && x.Logical-c.lo == x.Block-c.base {
			return true
		}
		x = part(x, x.Logical, min(x.End(), hugepage.AlignDown(x.Logical, o.PMD)+1<<o.PMD))
		ok = true
		return false
	})
	return x, ok
}

// moveAway moves x, a part of one PMD range of the file, out of the candidate's block. It reports
// whether that succeeded.
func (d *defrag) moveAway(ctx *Caller, in *inode, c *candidate, x pagecache.Extent) bool {
	lock := in.rl.Lock(int64(x.Logical)<<layout.BlockShift, int64(x.End())<<layout.BlockShift, true)
	in.io.Lock()
	defer in.rl.Unlock(lock)
	defer in.io.Unlock()
	for b := x.Logical; b < x.End(); {
		e, ok := in.space.Lookup(b)
		if !ok || e.BlockAt(b) != x.BlockAt(b) {
			return true // changed meanwhile: if it is still in the way, a later step finds it
		}
		y := part(e, b, min(e.End(), x.End()))
		if !d.movable(y) {
			return false
		}
		to, n := d.placeAway(in, c, x.Logical, y)
		switch {
		case n == 0:
			return false
		case to < c.base+c.size && to+n > c.base: // free space is left only in the way
			d.fs.alloc.Free(to, n)
			return false
		}
		y = part(y, y.Logical, y.Logical+n)
		if d.move(ctx, in, y.Logical, y.End(), to) != nil {
			return false
		}
		c.done += n
		b = y.End()
	}
	return true
}

// placeAway allocates blocks for y, or for its first blocks, and returns the first block and their
// number. n is 0 if there is no space. If the candidate is for a file's range, the blocks may go to
// a reservation of their own; the reservation continues the file blocks that were moved from first
// on.
func (d *defrag) placeAway(in *inode, c *candidate, first uint64, y pagecache.Extent) (to, n uint64) {
	fs := d.fs
	want := fs.reserve.limitAlloc(uint64(y.Len))
	if want == 0 {
		return 0, 0
	}
	if c.ino == 0 {
		return fs.alloc.Pack(want)
	}
	o := fs.alloc.Orders()
	if fs.fills(in, nil, y.Logical, uint64(y.Len), o.PMD, sharePMD) {
		goal, known := in.goal(nil, y.Logical)
		if known && y.Logical > first && hugepage.Congruence(goal, y.Logical) >= o.PMD {
			if n = fs.alloc.Extend(goal, want, o.PMD); n > 0 {
				return goal, n
			}
		}
		off := y.Logical & (1<<o.PMD - 1)
		if base, n, ok := fs.alloc.Reservation(o.PMD, off, want); ok {
			return base + off, n
		}
	}
	to, n, _ = fs.alloc.Alloc(0, want)
	return to, n
}

// onlyData reports whether n region blocks from block on contain neither metadata nor a bad block.
// Bad blocks never become free.
func (d *defrag) onlyData(block, n uint64) bool {
	fs := d.fs
	if block < uint64(fs.sb.StaticEnd)>>layout.BlockShift || fs.bad.Has(block, n) {
		return false
	}
	if block+n > uint64(fs.sb.DataEnd())>>layout.BlockShift {
		return false
	}
	return !fs.meta.Overlaps(block, n)
}

// usersOf lists the files that have blocks in the candidates' blocks. It reads every inode, as a
// scan does: it is rarely called, so no index is kept for it.
func (d *defrag) usersOf(ctx *Caller, cs []*candidate) (inos []uint64) {
	fs := d.fs
	for _, b := range d.fs.meta.InodeBlocks() {
		for i := int64(0); i < layout.InodesPerBlock && !ctx.cancelled(); i++ {
			in, e := fs.get(fs.sb.InodeAt(int64(b)<<layout.BlockShift + i*layout.InodeSize))
			if e != 0 {
				continue
			}
			if in.isReg() && fs.extentsLoaded(ctx, in) == nil && in.isIn(cs) {
				inos = append(inos, in.ino)
			}
			fs.put(in, 1)
		}
	}
	return inos
}

// isIn reports whether a file has blocks in one of the candidates' blocks.
func (in *inode) isIn(cs []*candidate) (found bool) {
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		for _, c := range cs {
			found = found || e.Block < c.base+c.size && c.base < e.Block+uint64(e.Len)
		}
		return !found
	})
	return found
}
