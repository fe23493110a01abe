package fs

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/hugepage"
	"github.com/daxfsd/daxfsd/pagecache"
)

// defrag moves files' blocks within the region, to places where one large folio can hold them. No
// other code does that.
//
// A range of a file, aligned to the size of a large folio and allocated in full, is collapsed when
// its blocks lie in one aligned block of the region in their order (as khugepaged collapses base
// pages). A PMD range is collapsed by the write that fills it (collapse.go). A PUD range is mostly
// filled in its reservation. Its missing blocks, and blocks of other files in the way, are moved in
// the background (compact.go).
//
// Its methods take the locks of inodes, from the range lock on. Unless their comments say otherwise
// they are called with no lock held.
type defrag struct {
	fs      *FS           // immutable
	placed  atomic.Uint64 // blocks allocated for files since the mount
	moved   atomic.Uint64 // blocks moved since the mount, or about to be by moves under way
	running atomic.Bool   // a Compact is under way
	// requested counts blocks moved for promotions since the mount, which no budget bounds.
	requested atomic.Uint64
	turn      chan struct{} // immutable; holds a token while a promotion moves blocks

	mu    sync.Mutex            // a leaf
	inos  map[uint64]struct{}   // files that may have a full PUD range to collapse; protected by mu
	ended map[uint64]blockRange // files whose leases have ended; protected by mu
}

// Budgets for moved blocks, in thousandths of placed: compactShare for collapsing PUD ranges,
// moveShare for all moves. A 64th of the region's blocks comes on top (see mayMove).
const (
	compactShare = 95
	moveShare    = 98
	onRequest    = math.MaxUint64 // no bound: a program asks for it
)

// mayMove takes n blocks from the budget of share thousandths. It returns false if the budget does
// not suffice.
func (d *defrag) mayMove(n, share uint64) bool {
	for share != onRequest {
		m := d.moved.Load()
		if m+n > d.placed.Load()*share/1000+d.fs.sb.Blocks()/64 {
			return false
		}
		if d.moved.CompareAndSwap(m, m+n) {
			return true
		}
	}
	return true
}

// movedOf is called when of cost blocks that mayMove allowed n were moved.
func (d *defrag) movedOf(cost, n, share uint64) {
	if share == onRequest {
		d.requested.Add(n)
		return
	}
	d.moved.Add(n - cost)
}

// add notes a file that may have a PUD range that is full and not collapsed.
func (d *defrag) add(ino uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inos == nil {
		d.inos = map[uint64]struct{}{}
	}
	d.inos[ino] = struct{}{}
}

// drop forgets a file.
func (d *defrag) drop(ino uint64) {
	d.mu.Lock()
	delete(d.inos, ino)
	d.mu.Unlock()
}

// forget forgets all files.
func (d *defrag) forget() {
	d.mu.Lock()
	d.inos = nil
	d.mu.Unlock()
}

// list returns the noted files by ascending inode number.
func (d *defrag) list() (inos []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ino := range d.inos {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	return inos
}

// Compaction is the result of a call of Compact.
type Compaction struct {
	Collapsed bool   // a PUD range of a file was collapsed, so it can be mapped as one page
	Moved     uint64 // blocks
}

// Compact is one step of compaction in the background. It collapses the PUD range of a file that
// takes the fewest moved blocks: it moves other blocks out of the way, and the missing blocks of
// the range into place. It also empties PMD blocks that are little used. It moves at most about a
// tenth of the blocks that were allocated since the mount (see mayMove). ctx.Cancel stops it
// between two folios; blocks moved by then stay moved.
//
// If another call is under way it returns at once.
func (fs *FS) Compact(ctx *Caller) (Compaction, syscall.Errno) {
	if e := fs.mayChange(); e != 0 {
		return Compaction{}, e
	}
	return fs.defrag.step(ctx), 0
}

// step is Compact after the check that changes are allowed.
func (d *defrag) step(ctx *Caller) (c Compaction) {
	if !d.running.CompareAndSwap(false, true) {
		return c
	}
	defer d.running.Store(false)
	c.Moved = d.pack(ctx, moveShare)
	best, ok := d.easiest(ctx)
	if ok && d.mayMove(best.cost, compactShare) {
		c.Collapsed = d.collapsePUD(ctx, &best)
		c.Moved += best.done
		if !c.Collapsed && best.done == 0 {
			d.drop(best.ino) // until the file grows again, so that other files come next
		}
		d.moved.Add(best.done - best.cost)
	}
	return c
}

// moveToLocked moves file blocks from lo on to the region blocks base, base+1, ... unless they are
// there already, as many of those up to hi as one transaction moves: up to stop. It returns how
// many blocks it moved. It moves nothing if it cannot move all up to hi: ok is false. Called with
// the range locked for writing, and io held.
func (d *defrag) moveToLocked(ctx *Caller, in *inode, lo, hi, base uint64) (n, stop uint64, ok bool) {
	fs := d.fs
	// Each target block must be free, or be the right block of the file already.
	for b := lo; b < hi; {
		e, ok := in.space.Lookup(b)
		if !ok || !d.movable(part(e, b, min(hi, e.End()))) {
			return 0, lo, false
		}
		x := part(e, b, min(hi, e.End()))
		if to := base + (b - lo); x.Block != to && !fs.alloc.IsFree(to, uint64(x.Len)) {
			return 0, lo, false
		}
		b = x.End()
	}
	stop, ok = lo, true
	for parts := 0; stop < hi && parts < moveMax; parts++ {
		e, _ := in.space.Lookup(stop)
		x := part(e, stop, min(hi, e.End()))
		if to := base + (stop - lo); x.Block != to {
			if fs.reserve.limitAlloc(uint64(x.Len)) < uint64(x.Len) || !fs.alloc.Reserve(to, uint64(x.Len)) {
				ok = false
				break
			}
			n += uint64(x.Len)
		}
		stop = x.End()
	}
	if n > 0 && d.move(ctx, in, lo, stop, base) != nil {
		return 0, lo, false
	}
	return n, stop, ok
}

// moveMax bounds the extents that one transaction moves: the two beside them take part.
const moveMax = remapMax - 2

// movable reports whether the blocks of an extent may be moved: no other file shares them, no
// reader references their folios, no program maps them, and all can be read.
func (d *defrag) movable(x pagecache.Extent) bool {
	fs := d.fs
	return x.Flags&layout.ExtentShared == 0 && !fs.bad.Has(x.Block, uint64(x.Len)) && fs.table.Sole(x.Block, uint64(x.Len)) &&
		!fs.direct.leased(x.Block, uint64(x.Len))
}

// move moves the file blocks [lo, hi), of at most moveMax extents, to the region blocks to, to+1,
// ... which are allocated, or hold these file blocks already. After an error the file has not
// changed, and the allocated blocks are free. Called with the range locked for writing, and io
// held.
//
// Persistence order:
//  1. NT-store the data to the new blocks, SFENCE
//  2. transaction: the slots
//  3. only then are the old blocks free
func (d *defrag) move(ctx *Caller, in *inode, lo, hi, to uint64) error {
	m := d.fs.newRemapLocked(in, lo)
	for b := lo; b < hi; {
		e, _ := in.space.Lookup(b)
		m.take(e)
		x := part(e, b, min(hi, e.End()))
		y := x
		if y.Block = to + (b - lo); y.Block != x.Block {
			m.runs = append(m.runs, run{y.Block, uint64(y.Len)})
			m.gone = append(m.gone, run{x.Block, uint64(x.Len)})
			m.parts = append(m.parts, piece{y, dataBlock(x)})
		}
		m.put(y)
		b = x.End()
	}
	m.finish(hi)
	parts := m.parts
	m.parts = m.parts[:0] // the blocks in runs are all that is stored to
	err := m.reserveSlots(ctx)
	if err == nil {
		err = m.copyParts(parts)
	}
	if err != nil {
		return m.abort(ctx, err)
	}
	return m.commit(ctx, 0)
}

// mergeFolios merges folios of the file blocks [lo, hi), which lie at region block base, into large
// ones. Called with io held.
func (d *defrag) mergeFolios(in *inode, lo, hi, base uint64) {
	fs := d.fs
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
