package fs

import (
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
)

// rangeState says where in the region the blocks of a file's range are that one large folio could
// hold.
type rangeState struct {
	whole uint64           // length of the range in blocks
	full  bool             // no block of it is missing, or shared with another file
	best  uint64           // the aligned block where most of it is already
	right uint64           // how many of its blocks are there
	at    [basesMax]inBase // candidates for best
	n     int              // of at
}

// inBase is how many blocks of a range are where they have to be in the aligned block at base.
type inBase struct{ base, blocks uint64 }

const basesMax = 8

// rangeState looks at the range of an order around file block b. Called with io held, or as
// a hint without.
func (in *inode) rangeState(b uint64, order uint8) (s rangeState) {
	s.whole = 1 << order
	start := hugepage.AlignDown(b, order)
	for at := start; at < start+s.whole; {
		e, ok := in.space.Lookup(at)
		if !ok {
			return s
		}
		if e.Flags&layout.ExtentShared != 0 {
			return s // not to be moved
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

// count adds n blocks at a base, unless there are too many bases.
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

// collapsed reports whether the range is in one aligned block, in order.
func (s *rangeState) collapsed() bool { return s.full && s.right == s.whole }

// collapseFilled collapses the PMD ranges that a change of file blocks [lo, hi) filled, and
// leaves PUD ranges to Compact. Called with no lock held.
func (d *defrag) collapseFilled(ctx *Caller, in *inode, lo, hi uint64) {
	o := d.fs.alloc.Orders()
	for b := hugepage.AlignDown(lo, o.PMD); b < hi; b += 1 << o.PMD {
		end := b + 1<<o.PMD
		if _, ok := in.space.Lookup(end - 1); !ok {
			continue
		}
		if e, ok := in.space.Lookup(b); !ok || e.End() >= end && hugepage.Congruence(b, e.BlockAt(b)) >= o.PMD {
			continue
		}
		if s := in.rangeState(b, o.PMD); s.full && !s.collapsed() {
			d.collapsePMD(ctx, in, b, &s)
		}
	}
	for b := hugepage.AlignDown(lo, o.PUD); b < hi && hi-b >= 1<<o.PUD; b += 1 << o.PUD {
		d.add(in.ino)
	}
	if hi&(1<<o.PUD-1) == 0 {
		d.add(in.ino)
	}
}

// collapsePMD collapses one PMD range, in the block where most of it is, or in a new one.
func (d *defrag) collapsePMD(ctx *Caller, in *inode, b uint64, s *rangeState) {
	fs := d.fs
	if s.right > 0 && d.mayMove(s.whole-s.right, moveShare) {
		n, ok := d.collapse(ctx, in, b, s.best)
		d.moved.Add(n - (s.whole - s.right))
		if ok {
			return
		}
	}
	o := fs.alloc.Orders()
	if fs.reserve.limitAlloc(s.whole) < s.whole || !d.mayMove(s.whole, moveShare) {
		return
	}
	base, n, ok := fs.alloc.Reservation(o.PMD, 0, s.whole)
	if ok && n == s.whole {
		fs.alloc.Free(base, n) // collapse takes it piece by piece
		n, _ = d.collapse(ctx, in, b, base)
	} else if ok {
		fs.alloc.Free(base, n)
		n = 0
	}
	d.moved.Add(n - s.whole)
}

// collapse moves the PMD range from file block b on to base, as far as it does not lie there. It
// returns how many blocks it moved, and whether the range is collapsed afterwards. It moves nothing
// if a block there is in use otherwise, a folio of the range is shared or referenced, or ctx may
// not wait and another caller has the range.
func (d *defrag) collapse(ctx *Caller, in *inode, b, base uint64) (n uint64, ok bool) {
	end := b + 1<<d.fs.alloc.Orders().PMD
	lock, err := in.lockRange(ctx, int64(b)<<layout.BlockShift, int64(end)<<layout.BlockShift, true)
	if err != nil {
		return 0, false
	}
	defer in.rl.Unlock(lock)
	if in.lockIO(ctx) != nil {
		return 0, false
	}
	defer in.io.Unlock()
	return d.moveToLocked(ctx, in, b, end, base)
}
