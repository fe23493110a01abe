package fs

import (
	"runtime"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/hugepage"
	"github.com/daxfs/daxfs/pagecache"
)

// This file moves files' blocks within the region: to where one large folio can hold
// them. It is the only place that does.
//
// A range of a file, aligned to the size of a large folio and allocated in full, is
// gathered when its blocks stand in one aligned block of the region in their order.
// A PMD range is gathered by the write that fills it. A PUD range is filled in its home
// mostly; what is missing, and what is in the way, is moved in the background (Compact).

// What is moved, in thousandths of what was allocated, and a 64th of the region more: by
// gathering PUD ranges, and in all.
const (
	compactShare = 95
	moveShare    = 98
)

// mayMove takes n blocks from what may be moved; false if that is used up.
func (fs *FS) mayMove(n, share uint64) bool {
	for {
		m := fs.moved.Load()
		if m+n > fs.placed.Load()*share/1000+fs.sb.Blocks()/64 {
			return false
		}
		if fs.moved.CompareAndSwap(m, m+n) {
			return true
		}
	}
}

// stand is how a range of a file, aligned to a large folio, stands in the region.
type stand struct {
	full  bool            // no block of it is missing
	best  uint64          // the aligned block where most of it stands already
	right uint64          // how many blocks of it do
	whole uint64          // of how many blocks it is
	at    [standMax]place // candidates for best
	n     int
}

type place struct{ base, blocks uint64 }

const standMax = 8

// stands looks at the range of an order around file block b. Called with io held, or as
// a hint without.
func (in *inode) stands(b uint64, order uint8) (s stand) {
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

func (s *stand) count(base, n uint64) {
	i := 0
	for i < s.n && s.at[i].base != base {
		i++
	}
	if i == standMax {
		return
	}
	if i == s.n {
		s.at[i] = place{base: base}
		s.n++
	}
	s.at[i].blocks += n
}

// gathered reports whether the range stands in one piece.
func (s *stand) gathered() bool { return s.full && s.right == s.whole }

// gatherFilled gathers the PMD ranges that a change of file blocks [lo, hi) filled, and
// leaves PUD ranges to Compact. Called with no lock held.
func (fs *FS) gatherFilled(ctx *Context, in *inode, lo, hi uint64) {
	o := fs.alloc.Orders()
	for b := hugepage.AlignDown(lo, o.PMD); b < hi; b += 1 << o.PMD {
		end := b + 1<<o.PMD
		if _, ok := in.space.Lookup(end - 1); !ok {
			continue
		}
		if e, ok := in.space.Lookup(b); !ok || e.End() >= end && hugepage.Congruence(b, e.BlockAt(b)) >= o.PMD {
			continue
		}
		if s := in.stands(b, o.PMD); s.full && !s.gathered() {
			fs.gatherPMD(ctx, in, b, &s)
		}
	}
	for b := hugepage.AlignDown(lo, o.PUD); b < hi && hi-b >= 1<<o.PUD; b += 1 << o.PUD {
		fs.compact.add(in.ino)
	}
	if hi&(1<<o.PUD-1) == 0 {
		fs.compact.add(in.ino)
	}
}

// gatherPMD gathers one PMD range, in the place where most of it is, or in a new one.
func (fs *FS) gatherPMD(ctx *Context, in *inode, b uint64, s *stand) {
	if s.right > 0 && fs.mayMove(s.whole-s.right, moveShare) {
		n, ok := fs.gather(ctx, in, b, s.best)
		fs.moved.Add(n - (s.whole - s.right))
		if ok {
			return
		}
	}
	o := fs.alloc.Orders()
	if fs.granted(s.whole) < s.whole || !fs.mayMove(s.whole, moveShare) {
		return
	}
	base, n, ok := fs.alloc.Home(o.PMD, 0, s.whole)
	if ok && n == s.whole {
		fs.alloc.Free(base, n) // gather takes it piece by piece
		n, _ = fs.gather(ctx, in, b, base)
	} else if ok {
		fs.alloc.Free(base, n)
		n = 0
	}
	fs.moved.Add(n - s.whole)
}

// gather moves what of the PMD range from file block b on does not stand at base to
// there. It returns how many blocks it moved, and whether the range is gathered
// afterwards; it moves nothing if a block there is somebody else's, a folio of the
// range is shared or referenced, or ctx may not wait and another caller has the range.
func (fs *FS) gather(ctx *Context, in *inode, b, base uint64) (n uint64, ok bool) {
	end := b + 1<<fs.alloc.Orders().PMD
	lock, err := in.lockRange(ctx, int64(b)<<layout.BlockShift, int64(end)<<layout.BlockShift, true)
	if err != nil {
		return 0, false
	}
	defer in.rl.Unlock(lock)
	if in.lockIO(ctx) != nil {
		return 0, false
	}
	defer in.io.Unlock()
	return fs.moveTo(ctx, in, b, end, base)
}

// moveTo moves what of the file blocks [lo, hi) does not stand at base, base+1, ... to
// there. Called with the range locked for writing, and io held.
func (fs *FS) moveTo(ctx *Context, in *inode, lo, hi, base uint64) (n uint64, ok bool) {
	// Everything there must be free, or the file's own block of that place.
	for b := lo; b < hi; {
		e, ok := in.space.Lookup(b)
		if !ok || !fs.movable(part(e, b, min(hi, e.End()))) {
			return n, false
		}
		x := part(e, b, min(hi, e.End()))
		if to := base + (b - lo); x.Block != to && !fs.alloc.IsFree(to, uint64(x.Len)) {
			return n, false
		}
		b = x.End()
	}
	for b := lo; b < hi; {
		e, _ := in.space.Lookup(b)
		x := part(e, b, min(hi, e.End()))
		to := base + (b - lo)
		if x.Block != to {
			if fs.granted(uint64(x.Len)) < uint64(x.Len) || !fs.alloc.Reserve(to, uint64(x.Len)) || fs.move(ctx, in, x, to) != nil {
				return n, false
			}
			n += uint64(x.Len)
		}
		b = x.End()
	}
	fs.mergeRange(in, lo, hi, base)
	return n, true
}

// movable reports whether every folio of an extent has one owner and no reference, and can be
// read: no other file shares it, and nobody has it mapped.
func (fs *FS) movable(x pagecache.Extent) bool {
	return x.Flags&layout.ExtentShared == 0 && !fs.bad.has(x.Block, uint64(x.Len)) && fs.table.Sole(x.Block, uint64(x.Len))
}

// move moves x, which is part of an extent of the file, to allocated blocks. After an
// error it has not happened, and the blocks are free.
//
// Persistence order:
//  1. NT-store the data where it goes, SFENCE
//  2. transaction: the slots
//  3. only then are the blocks it leaves free
func (fs *FS) move(ctx *Context, in *inode, x pagecache.Extent, to uint64) error {
	s := &in.ext.splice
	s.begin(in, x.Logical)
	e, _ := in.space.Lookup(x.Logical)
	s.take(e)
	if len(s.now) == 0 && e.Logical < x.Logical {
		s.put(part(e, e.Logical, x.Logical))
	}
	s.runs = append(s.runs, run{to, uint64(x.Len)})
	s.gone = append(s.gone, run{x.Block, uint64(x.Len)})
	y := x
	y.Block = to
	s.put(y)
	s.finish(in, x.End())
	err := fs.settle(ctx, in)
	if err == nil && x.Flags&layout.ExtentUnwritten == 0 {
		err = fs.copyBlocks(to, x.Block, uint64(x.Len))
	}
	if err == nil {
		err = fs.commitSplice(ctx, in, 0)
	}
	if err != nil {
		fs.storeFailed(in, err)
		fs.unowned(ctx, in)
	}
	return err
}

// copyBlocks copies n blocks within the region.
//
// Persistence order: NT-store, SFENCE.
func (fs *FS) copyBlocks(to, from, n uint64) error {
	if err := fs.checkRead(from, n); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	size := int64(n) << layout.BlockShift
	if err := fs.r.NTStore(int64(to)<<layout.BlockShift, fs.r.Bytes(int64(from)<<layout.BlockShift, size)); err != nil {
		return err
	}
	fs.r.Fence()
	return nil
}

// mergeRange makes large folios of the file blocks [lo, hi), which stand at base.
func (fs *FS) mergeRange(in *inode, lo, hi, base uint64) {
	o := fs.alloc.Orders()
	for _, order := range [2]uint8{o.PMD, o.PUD} {
		size := uint64(1) << order
		for b := hugepage.AlignUp(base, order); b+size <= base+hi-lo; b += size {
			if fs.table.Order(b) < order {
				fs.table.Merge(b, order)
			}
		}
	}
}

// Compaction is what a call of Compact did.
type Compaction struct {
	Gathered bool   // a PUD range of a file can be mapped as one page now that could not before
	Moved    uint64 // blocks
}

// Compact is one step of compaction in the background. It gathers the PUD range of a file
// that takes the fewest blocks to gather: moves away what is in the way, and there what is
// missing. And it empties PMD blocks of which little is used. It moves no more than a
// tenth of what was allocated since the mount. ctx.Cancel stops it between two folios;
// what it has moved by then stays, and is right.
//
// One call at a time does something; others return at once.
func (fs *FS) Compact(ctx *Context) (c Compaction, e syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return c, e
	}
	if !fs.compact.running.CompareAndSwap(false, true) {
		return c, 0
	}
	defer fs.compact.running.Store(false)
	c.Moved = fs.pack(ctx)
	best, ok := fs.compact.easiest(ctx, fs)
	if ok && fs.mayMove(best.cost, compactShare) {
		c.Gathered = fs.gatherPUD(ctx, &best)
		c.Moved += best.done
		if !c.Gathered && best.done == 0 {
			fs.compact.drop(best.ino) // until it grows again: others come next
		}
		fs.moved.Add(best.done - best.cost)
	}
	return c, 0
}
