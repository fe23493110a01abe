package fs

import (
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
)

// rangeState describes where in the region the blocks of one aligned range of a file are. One large
// folio could hold the range.
type rangeState struct {
	whole  uint64           // length of the range in blocks
	full   bool             // every block is allocated, and none is shared with another file
	shared bool             // a block is shared with another file
	best   uint64           // first region block of the aligned block with most of it in place
	right  uint64           // number of blocks in place in best
	at     [basesMax]inBase // candidates for best
	n      int              // length of at
}

// inBase counts the blocks of a range that are in place in the aligned region block at base.
type inBase struct{ base, blocks uint64 }

const basesMax = 8 // bounds the candidates for best

// rangeState examines the aligned range of an order around file block b. Called with io held;
// without it the result is only a hint.
func (in *inode) rangeState(b uint64, order uint8) (s rangeState) {
	s.whole = 1 << order
	start := hugepage.AlignDown(b, order)
	for at := start; at < start+s.whole; {
		e, ok := in.space.Lookup(at)
		if !ok {
			return s
		}
		if e.Flags&layout.ExtentShared != 0 {
			s.shared = true
			return s // shared blocks are not moved
		}
		x := part(e, at, min(e.End(), start+s.whole))
		if base := x.Block - (x.Logical - start); x.Block >= x.Logical-start && hugepage.Aligned(base, order) {
			s.count(base, uint64(x.Len))
		}
		at = x.End()
	}
	s.full = true
	for _, p := range s.at[:s.n] {
		if p.blocks > s.right {
			s.best, s.right = p.base, p.blocks
		}
	}
	return s
}

// count adds n blocks that are in place in the aligned block at base. It ignores them if there are
// basesMax other bases.
func (s *rangeState) count(base, n uint64) {
	i := 0
	for i < s.n && s.at[i].base != base {
		i++
	}
	if i == basesMax {
		return
	}
	if i == s.n {
		s.at[i] = inBase{base: base}
		s.n++
	}
	s.at[i].blocks += n
}

// collapsed reports whether all blocks of the range are in place in one aligned block.
func (s *rangeState) collapsed() bool { return s.full && s.right == s.whole }

// collapseFilled collapses the PMD ranges that a change of file blocks [lo, hi) filled, and notes
// the file for Compact if PUD ranges may be full. Called with no lock held.
func (d *defrag) collapseFilled(ctx *Caller, in *inode, lo, hi uint64) {
	o := d.fs.alloc.Orders()
	for b := hugepage.AlignDown(lo, o.PMD); b < hi; b += 1 << o.PMD {
		end := b + 1<<o.PMD
		if _, ok := in.space.Lookup(end - 1); !ok {
			continue
		}
		if _, ok := in.space.Lookup(b); !ok || d.mergeFilled(ctx, in, b, o.PMD) {
			continue
		}
		if s := in.rangeState(b, o.PMD); s.full && !s.collapsed() {
			d.collapsePMD(ctx, in, b, &s, moveShare)
		}
	}
	for b := hugepage.AlignDown(lo, o.PUD); b < hi && hi-b >= 1<<o.PUD; b += 1 << o.PUD {
		d.mergeFilled(ctx, in, b, o.PUD)
		d.add(in.ino)
	}
	if hi&(1<<o.PUD-1) == 0 {
		d.add(in.ino)
	}
}

// mergeFilled reports whether one extent has all blocks of the range of an order from file block b
// on in place. If so, and they are several folios since they were allocated or written in pieces,
// it merges them.
func (d *defrag) mergeFilled(ctx *Caller, in *inode, b uint64, order uint8) bool {
	e, ok := in.space.Lookup(b)
	if !ok || e.End() < b+1<<order || hugepage.Congruence(b, e.BlockAt(b)) < order {
		return false
	}
	if d.fs.table.Order(e.BlockAt(b)) < order {
		d.merge(ctx, in, b, order)
	}
	return true
}

// merge merges the folios of the aligned range of an order at file block b into one. It reports
// whether the range is collapsed; a busy folio stays as it is.
func (d *defrag) merge(ctx *Caller, in *inode, b uint64, order uint8) bool {
	if o := d.fs.alloc.Orders(); order == o.PUD {
		for x := b; x < b+1<<o.PUD; x += 1 << o.PMD { // a piece at a time
			if e, ok := in.space.Lookup(x); ok && d.fs.table.Order(e.BlockAt(x)) < o.PMD {
				d.merge(ctx, in, x, o.PMD)
			}
		}
	}
	if in.lockIO(ctx) != nil {
		return false
	}
	defer in.io.Unlock()
	s := in.rangeState(b, order)
	if s.collapsed() {
		d.mergeFolios(in, b, b+s.whole, s.best)
	}
	return s.collapsed()
}

// collapsePMD collapses the full PMD range from file block b on, whose state is s: in the aligned
// block that has most of it, or else in a new reservation. share is the budget of its moves. It
// returns false if there is no aligned block for it.
func (d *defrag) collapsePMD(ctx *Caller, in *inode, b uint64, s *rangeState, share uint64) (placed bool) {
	fs := d.fs
	if s.right > 0 && d.mayMove(s.whole-s.right, share) {
		n, ok := d.collapse(ctx, in, b, s.best)
		d.movedOf(s.whole-s.right, n, share)
		if ok {
			return true
		}
	}
	o := fs.alloc.Orders()
	if fs.reserve.limitAlloc(s.whole) < s.whole || !d.mayMove(s.whole, share) {
		return true
	}
	base, got, placed := fs.alloc.Reservation(o.PMD, 0, s.whole)
	if placed {
		fs.alloc.Free(base, got) // collapse allocates it piece by piece
	}
	n := uint64(0)
	if placed = placed && got == s.whole; placed {
		n, _ = d.collapse(ctx, in, b, base)
	}
	d.movedOf(s.whole, n, share)
	return placed
}

// collapse moves those blocks of the PMD range from file block b on that are not in place to the
// aligned block at base. It returns how many blocks it moved, and whether the range is collapsed
// now. It moves nothing if another user has a block there, or if a folio of the range is shared or
// referenced. It also moves nothing if ctx may not wait and another caller has the range locked.
func (d *defrag) collapse(ctx *Caller, in *inode, b, base uint64) (n uint64, ok bool) {
	end := b + 1<<d.fs.alloc.Orders().PMD
	for at := b; at < end; {
		m, stop, ok := d.collapsePiece(ctx, in, b, at, base)
		if n += m; !ok {
			return n, false
		}
		at = stop
	}
	return n, true
}

// collapsePiece does as much of collapse, from file block at on, as one transaction takes, and
// returns up to where. It holds the locks for that long only.
func (d *defrag) collapsePiece(ctx *Caller, in *inode, b, at, base uint64) (n, stop uint64, ok bool) {
	fs := d.fs
	order := fs.alloc.Orders().PMD
	end := b + 1<<order
	lock, err := in.lockRange(ctx, int64(at)<<layout.BlockShift, int64(end)<<layout.BlockShift, true)
	if err != nil {
		return 0, at, false
	}
	defer in.rl.Unlock(lock)
	if in.lockIO(ctx) != nil {
		return 0, at, false
	}
	defer in.io.Unlock()
	n, stop, ok = d.moveToLocked(ctx, in, at, end, base+(at-b))
	if !ok {
		return n, stop, false
	}
	if stop < end {
		fs.alloc.Keep(order, base) // until the rest is there
		return n, stop, true
	}
	if s := in.rangeState(b, order); !s.collapsed() || s.best != base {
		return n, stop, false // the beginning has changed since it was moved
	}
	d.mergeFolios(in, b, end, base)
	return n, stop, true
}
