package fs

import (
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pagecache"
)

// sharePMD and sharePUD say how much of a large folio's range a file must fill, from its beginning
// on, to get a reservation for the rest: the order's size >> share. Blocks that the file had before
// are moved there when the rest is full (collapse), so this is a bet: a later reservation moves
// more data, and an earlier one is more often in vain. Few files that have a megabyte stay below
// two. Most files of 64 MiB never reach a gigabyte, but to move half a gigabyte costs too much.
const (
	sharePMD = 1
	sharePUD = 4
)

// placeLocked allocates up to want blocks for a file's blocks from file block logical on, where a
// large folio can hold them together with the file's blocks around them. It returns the first
// region block and the number of blocks. In this order it uses:
//
//  1. the file's PUD reservation, if it covers logical; a new one if the file fills enough of that
//     range, or PUD folios are wanted (wantedOrder);
//  2. the blocks that continue the file in place, if a PMD folio can hold both or both are small;
//  3. a new PMD reservation, if the file fills enough of that range, or large folios are wanted;
//  4. any small runs.
//
// Called with io held (for a directory, mu), within the plan.
func (fs *FS) placeLocked(ctx *Caller, plan *remap, logical, want uint64) (block, n uint64, ok bool) {
	if want == 0 {
		return 0, 0, false
	}
	in := plan.in
	orders, wanted := fs.alloc.Orders(), fs.wantedOrder(ctx, in)
	goal, known := in.goal(plan, logical)
	if in.isReg() && wanted == orders.PMD && known && hugepage.Congruence(goal, logical) >= orders.PMD {
		if rest := hugepage.AlignUp(logical, orders.PMD) - logical; rest > 0 { // of a PMD range that has begun
			if n = fs.alloc.Extend(goal, min(want, rest), orders.PMD); n > 0 {
				return goal, n, true
			}
		}
	}
	off := logical & (1<<orders.PUD - 1)
	if off != 0 {
		want = min(want, 1<<orders.PUD-off) // up to where the next PUD folio would begin
	}
	if in.isReg() && (wanted >= orders.PUD || fs.fills(in, plan, logical, want, orders.PUD, sharePUD)) {
		base, ok := in.ext.reservation(logical, orders.PUD)
		switch {
		case ok:
		case known && off != 0 && hugepage.Congruence(goal, logical) >= orders.PUD: // reserved before the inode was read
			base = hugepage.AlignDown(goal, orders.PUD)
		default:
			if base, n, ok = fs.alloc.Reservation(orders.PUD, off, want); !ok {
				base = noReservation
			}
		}
		in.ext.reservedFor, in.ext.reservedAt = logical>>orders.PUD+1, base
		if n == 0 && base != noReservation {
			n = fs.alloc.Extend(base+off, want, orders.PUD)
		}
		if n > 0 {
			return base + off, n, true
		}
		if base != noReservation {
			want = min(want, 1<<orders.PMD-logical&(1<<orders.PMD-1)) // the blocks behind these may be free
		}
	}
	large := in.isReg() && (wanted >= orders.PMD || fs.fills(in, plan, logical, want, orders.PMD, sharePMD))
	if known && large && hugepage.Congruence(goal, logical) >= orders.PMD {
		if n = fs.alloc.Extend(goal, want, orders.PMD); n > 0 {
			return goal, n, true
		}
	}
	if large {
		base, n, ok := fs.alloc.Reservation(orders.PMD, logical&(1<<orders.PMD-1), want)
		if ok {
			return base + logical&(1<<orders.PMD-1), n, true
		}
	}
	return fs.alloc.AllocFrom(ctx.Lane, goal, want)
}

// noReservation is the beginning of a reservation for a range that could not get one.
const noReservation = ^uint64(0)

// reservation returns the first region block of a file's reservation for the range of an order that
// file block b is in, or noReservation. ok is false if that was not decided yet.
func (x *extentSlots) reservation(b uint64, order uint8) (base uint64, ok bool) {
	return x.reservedAt, x.reservedFor == b>>order+1
}

// fills reports whether a file fills enough of the range of an order that file block b is in: with
// want blocks from b on, and the blocks that precede them without a gap, at least the order's size
// >> share blocks. It is also enough that the file has the first and the last block of the range
// before.
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

// covers reports whether file block b is allocated, in extent e or in another one.
func (in *inode) covers(b uint64, e pagecache.Extent) bool {
	if e.Logical <= b && b < e.End() {
		return true
	}
	_, ok := in.space.Lookup(b)
	return ok
}

// before returns the extent that precedes file block b: the last one of plan m, if m is not nil and
// ends at b, or else that of the file.
func (in *inode) before(m *remap, b uint64) (e pagecache.Extent, ok bool) {
	if m != nil && len(m.now) > 0 {
		if p := m.now[len(m.now)-1]; p.End() == b {
			return p, true
		}
	}
	return in.space.Prev(b)
}

// goal returns the region block with which file block b would continue the extent before it, or
// else precede the next extent. known is false if there is neither.
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
