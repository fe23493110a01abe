package fs

import (
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pagecache"
)

// What of a large folio's range a file must fill, from its beginning on, to get a reservation for
// the rest of it, as log2 of the divisor. What it had before is moved there when the rest
// is full (collapse), so this is a bet: the later, the more is moved; the earlier, the more
// reservations are begun in vain. Few files that have a megabyte stay below two; of those that
// have 64 MiB most never see a gigabyte, but to move half of one costs too much.
const (
	sharePMD = 1
	sharePUD = 4
)

// placeLocked allocates blocks for a file's blocks from b on, up to want, where a large folio
// can hold them together with what is around them. In this order:
//
//  1. the file's PUD reservation, if it covers b; a new one if the file fills enough of that
//     range;
//  2. what continues the file in place, if a PMD folio can hold both or both are small;
//  3. a new PMD reservation, if the file fills enough of that range;
//  4. wherever small runs are.
//
// Called with io held (of a directory mu), within the plan m.
func (fs *FS) placeLocked(ctx *Caller, m *remap, b, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	in := m.in
	o := fs.alloc.Orders()
	goal, known := in.goal(m, b)
	off := b & (1<<o.PUD - 1)
	if off != 0 {
		want = min(want, 1<<o.PUD-off) // up to where the next PUD folio would begin
	}
	if in.isReg() && fs.fills(in, m, b, want, o.PUD, sharePUD) {
		base, ok := in.ext.reservation(b, o.PUD)
		switch {
		case ok:
		case known && off != 0 && hugepage.Congruence(goal, b) >= o.PUD: // begun before the inode was read
			base = hugepage.AlignDown(goal, o.PUD)
		default:
			if base, n, ok = fs.alloc.Reservation(o.PUD, off, want); !ok {
				base = noReservation
			}
		}
		in.ext.reservedFor, in.ext.reservedAt = b>>o.PUD+1, base
		if n == 0 && base != noReservation {
			n = fs.alloc.Extend(base+off, want, o.PUD)
		}
		if n > 0 {
			return base + off, n, true
		}
		if base != noReservation {
			want = min(want, 1<<o.PMD-b&(1<<o.PMD-1)) // what is behind may be free
		}
	}
	large := in.isReg() && fs.fills(in, m, b, want, o.PMD, sharePMD)
	if known && large && hugepage.Congruence(goal, b) >= o.PMD {
		if n = fs.alloc.Extend(goal, want, o.PMD); n > 0 {
			return goal, n, true
		}
	}
	if large {
		base, n, ok := fs.alloc.Reservation(o.PMD, b&(1<<o.PMD-1), want)
		if ok {
			return base + b&(1<<o.PMD-1), n, true
		}
	}
	return fs.alloc.AllocFrom(ctx.Lane, goal, want)
}

// noReservation: there was no reservation to be had for that range.
const noReservation = ^uint64(0)

// reservation returns where a file's reservation for the range around b begins, if that was
// decided.
func (x *extentSlots) reservation(b uint64, order uint8) (base uint64, ok bool) {
	return x.reservedAt, x.reservedFor == b>>order+1
}

// fills reports whether want blocks from b on fill, with what precedes them without a
// gap, a share of the range of an order that b lies in, or all of the one before that.
func (fs *FS) fills(in *inode, m *remap, b, want uint64, order, share uint8) bool {
	if p, ok := in.before(m, b); ok && p.End() == b {
		from := hugepage.AlignDown(b, order)
		if from > 0 && in.covers(from-1, p) {
			from -= 1 << order
		}
		if in.covers(from, p) {
			want += b - from
		}
	}
	return want >= max(1, uint64(1)<<order>>share)
}

// covers reports whether file block b is allocated, in extent e or otherwise.
func (in *inode) covers(b uint64, e pagecache.Extent) bool {
	if e.Logical <= b && b < e.End() {
		return true
	}
	_, ok := in.space.Lookup(b)
	return ok
}

// before is the extent that precedes file block b, in the plan m, if there is one, or in the file.
func (in *inode) before(m *remap, b uint64) (e pagecache.Extent, ok bool) {
	if m != nil && len(m.now) > 0 {
		if p := m.now[len(m.now)-1]; p.End() == b {
			return p, true
		}
	}
	return in.space.Prev(b)
}

// goal is the block that would continue what lies around file block b, if there is
// something: before it, or else behind it.
func (in *inode) goal(m *remap, b uint64) (block uint64, known bool) {
	if p, ok := in.before(m, b); ok {
		return p.Block + (b - p.Logical), true
	}
	if x, ok := in.space.Lookup(b); !ok && x.Logical <= maxBlock {
		if x, ok = in.space.Lookup(x.Logical); ok && x.Block > x.Logical-b {
			return x.Block - (x.Logical - b), true
		}
	}
	return 0, false
}
