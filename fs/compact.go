package fs

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/hugepage"
	"github.com/daxfs/daxfs/pagecache"
)

// compaction knows which files may have PUD ranges to gather.
type compaction struct {
	running atomic.Bool

	mu   sync.Mutex
	inos map[uint64]struct{} // protected by mu
}

// add notes a file that may have a PUD range that is full and not gathered.
func (c *compaction) add(ino uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inos == nil {
		c.inos = map[uint64]struct{}{}
	}
	c.inos[ino] = struct{}{}
}

func (c *compaction) drop(ino uint64) {
	c.mu.Lock()
	delete(c.inos, ino)
	c.mu.Unlock()
}

// list is the files in the order of their numbers.
func (c *compaction) list() (inos []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ino := range c.inos {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	return inos
}

// proposal is an aligned block of the region that is to be emptied: for a range of a file
// that is gathered there then, or to be whole.
type proposal struct {
	base, size uint64 // in blocks
	ino, lo    uint64 // the file and the first file block of the range; ino 0: none
	cost       uint64 // blocks to move
	done       uint64 // blocks moved
}

// easiest proposes the range that takes the fewest blocks to gather. It looks at what is
// allocated, however large the files say they are.
func (c *compaction) easiest(ctx *Context, fs *FS) (best proposal, ok bool) {
	order := fs.alloc.Orders().PUD
	for _, ino := range c.list() {
		if ctx.cancelled() {
			return best, false
		}
		in, e := fs.get(ino)
		if e != 0 {
			c.drop(ino)
			continue
		}
		left := false
		if fs.extentsLoaded(ctx, in) == nil {
			end := in.size.Load() >> layout.BlockShift
			for lo, next := uint64(0), uint64(1)<<order; next <= end; lo, next = next, next+1<<order {
				if e, ok := in.space.Lookup(lo); !ok && e.Logical >= next {
					next = hugepage.AlignDown(min(e.Logical, end), order)
					continue
				}
				s := in.stands(lo, order)
				if !s.full || s.gathered() {
					continue
				}
				left = true
				in.io.Lock()
				ps := fs.proposals(in, lo, &s)
				in.io.Unlock()
				for _, p := range ps {
					if !ok || p.cost < best.cost {
						best, ok = p, true
					}
				}
			}
		}
		fs.put(in, 1)
		if !left {
			c.drop(ino)
		}
	}
	return best, ok
}

// proposals are the places to gather a range in: where some of it stands, and the
// emptiest. Called with io held.
func (fs *FS) proposals(in *inode, lo uint64, s *stand) (ps []proposal) {
	order := fs.alloc.Orders().PUD
	places := s.at[:s.n]
	if base, ok := fs.alloc.Emptiest(order); ok {
		places = append(places, place{base: base})
	}
	for _, p := range places {
		free, kept := fs.alloc.FreeIn(order, p.base)
		if kept && p.base != in.ext.homeAt || fs.table.Order(p.base) == order || p.base+s.whole > fs.sb.Blocks() || !fs.onlyData(p.base, s.whole) {
			continue
		}
		others := s.whole - free - p.blocks
		if fs.alloc.FreeBlocks()-free < others+others/8+fs.chunksKept.Load()*uint64(fs.sb.ChunkBlocks()) {
			continue
		}
		ps = append(ps, proposal{base: p.base, size: s.whole, ino: in.ino, lo: lo, cost: others + s.whole - p.blocks})
	}
	return ps
}

// onlyData reports whether no metadata is in a range of blocks, and no bad block, which never
// becomes free.
func (fs *FS) onlyData(block, n uint64) bool {
	if block < uint64(fs.sb.StaticEnd)>>layout.BlockShift || fs.bad.has(block, n) {
		return false
	}
	if b := uint64(fs.sb.BackupOff) >> layout.BlockShift; block <= b && b < block+n {
		return false
	}
	m := &fs.meta
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, _ := m.find(int64(block >> fs.chunkShift()))
	return i == len(m.chunks) || uint64(m.chunks[i].no)<<fs.chunkShift() >= block+n
}

// gatherPUD carries a proposal out. It locks one PMD range of one file at a time.
func (fs *FS) gatherPUD(ctx *Context, p *proposal) bool {
	o := fs.alloc.Orders()
	fs.alloc.Keep(o.PUD, p.base)
	for _, ino := range fs.usersOf(ctx, []*proposal{p}) {
		if ctx.cancelled() || !fs.clear(ctx, p, ino) {
			return false
		}
	}
	in, e := fs.get(p.ino)
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
		if s := in.stands(p.lo+off, o.PMD); s.gathered() && s.best == p.base+off {
			continue
		}
		n, ok := fs.gather(ctx, in, p.lo+off, p.base+off)
		p.done += n
		if !ok {
			return false
		}
	}
	in.io.Lock()
	defer in.io.Unlock()
	if s := in.stands(p.lo, o.PUD); s.gathered() {
		fs.mergeRange(in, p.lo, p.lo+s.whole, s.best)
		return true
	}
	return false
}

// pack empties the PMD blocks of which least is used, into what is free in others: as far
// as that is at most half, and as long as more than a 32nd of the free space is in broken
// ones.
func (fs *FS) pack(ctx *Context) (moved uint64) {
	st := fs.alloc.Stats()
	if st.Free4K < st.Free/32 {
		return 0
	}
	o := fs.alloc.Orders()
	var ps []*proposal
	room := st.Free4K // in broken blocks that are not emptied, but for what is to go there
	for _, b := range fs.alloc.Sparse(1<<o.PMD/2, packMax) {
		used := 1<<o.PMD - b.Free
		if room < b.Free+used+1<<o.PMD {
			break
		}
		if fs.onlyData(b.Base, 1<<o.PMD) && fs.mayMove(used, moveShare) {
			room -= b.Free + used
			fs.alloc.Keep(o.PMD, b.Base)
			ps = append(ps, &proposal{base: b.Base, size: 1 << o.PMD, cost: used})
		}
	}
	if len(ps) == 0 {
		return 0
	}
	for _, ino := range fs.usersOf(ctx, ps) {
		for _, p := range ps {
			if ctx.cancelled() {
				break
			}
			fs.clear(ctx, p, ino)
		}
	}
	for _, p := range ps {
		moved += p.done
		fs.moved.Add(p.done - p.cost)
	}
	return moved
}

// packMax bounds how many PMD blocks are emptied at once.
const packMax = 64

// clear moves what a file has in the block of a proposal elsewhere, unless it stands
// there as proposed.
func (fs *FS) clear(ctx *Context, p *proposal, ino uint64) bool {
	in, e := fs.get(ino)
	if e != 0 {
		return true // gone meanwhile
	}
	defer fs.put(in, 1)
	if !in.isReg() || fs.extentsLoaded(ctx, in) != nil {
		return false
	}
	o := fs.alloc.Orders()
	for at := uint64(0); ; {
		x, ok := in.standsIn(at, p, ino, o)
		if !ok {
			return true
		}
		if ctx.cancelled() || !fs.moveAway(ctx, in, p, x) {
			return false
		}
		at = x.End()
	}
}

// standsIn finds the next part of the file, from file block at on and within one PMD
// range, that lies in the proposal's block and does not stand there as proposed.
func (in *inode) standsIn(at uint64, p *proposal, ino uint64, o hugepage.Orders) (x pagecache.Extent, ok bool) {
	end := p.base + p.size
	in.space.Ascend(at, func(e pagecache.Extent) bool {
		lo, hi := max(e.Block, p.base), min(e.Block+uint64(e.Len), end)
		if lo >= hi {
			return true
		}
		x = part(e, e.Logical+lo-e.Block, e.Logical+hi-e.Block)
		if x.End() <= at {
			return true
		}
		x = part(x, max(x.Logical, at), x.End())
		if ino == p.ino && x.Logical >= p.lo && x.Logical-p.lo == x.Block-p.base {
			return true
		}
		x = part(x, x.Logical, min(x.End(), hugepage.AlignDown(x.Logical, o.PMD)+1<<o.PMD))
		ok = true
		return false
	})
	return x, ok
}

// moveAway moves x out of the proposal's block.
func (fs *FS) moveAway(ctx *Context, in *inode, p *proposal, x pagecache.Extent) bool {
	lock := in.rl.Lock(int64(x.Logical)<<layout.BlockShift, int64(x.End())<<layout.BlockShift, true)
	in.io.Lock()
	defer in.rl.Unlock(lock)
	defer in.io.Unlock()
	o := fs.alloc.Orders()
	for b := x.Logical; b < x.End(); {
		e, ok := in.space.Lookup(b)
		if !ok || e.BlockAt(b) != x.BlockAt(b) {
			return true // changed meanwhile: usersOf finds it again, if it is still there
		}
		y := part(e, b, min(e.End(), x.End()))
		if !fs.movable(y) {
			return false
		}
		want := fs.granted(uint64(y.Len))
		if want == 0 {
			return false
		}
		off := y.Logical & (1<<o.PMD - 1)
		var to, n uint64
		if p.ino != 0 && fs.fills(in, y.Logical, uint64(y.Len), o.PMD, sharePMD) {
			goal, known := in.goal(y.Logical)
			if known && y.Logical > x.Logical && hugepage.Congruence(goal, y.Logical) >= o.PMD {
				to, n = goal, fs.alloc.Extend(goal, want, o.PMD)
			}
			if n == 0 {
				var ok bool
				if to, n, ok = fs.alloc.Home(o.PMD, off, want); ok {
					to += off
				}
			}
		}
		switch {
		case p.ino == 0:
			to, n = fs.alloc.Pack(want)
		case n == 0:
			to, n, _ = fs.alloc.Alloc(0, want)
		}
		switch {
		case n == 0:
			return false
		case to < p.base+p.size && to+n > p.base: // no space but in the way
			fs.alloc.Free(to, n)
			return false
		}
		y = part(y, y.Logical, y.Logical+n)
		if fs.move(ctx, in, y, to) != nil {
			return false
		}
		p.done += n
		b = y.End()
	}
	return true
}

// usersOf lists the files that have blocks where the proposals are. It looks at every
// inode, as a mount does: this is asked seldom, and nothing is kept to answer it faster.
func (fs *FS) usersOf(ctx *Context, ps []*proposal) (inos []uint64) {
	for _, b := range fs.inodeBlocks() {
		for i := int64(0); i < layout.InodesPerBlock && !ctx.cancelled(); i++ {
			in, e := fs.get(fs.sb.InodeAt(int64(b)<<layout.BlockShift + i*layout.InodeSize))
			if e != 0 {
				continue
			}
			if in.isReg() && fs.extentsLoaded(ctx, in) == nil && in.isIn(ps) {
				inos = append(inos, in.ino)
			}
			fs.put(in, 1)
		}
	}
	return inos
}

// isIn reports whether a file has blocks where one of the proposals is.
func (in *inode) isIn(ps []*proposal) (found bool) {
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		for _, p := range ps {
			found = found || e.Block < p.base+p.size && p.base < e.Block+uint64(e.Len)
		}
		return !found
	})
	return found
}

// inodeBlocks lists the blocks that hold inodes.
func (fs *FS) inodeBlocks() (blocks []uint64) {
	m := &fs.meta
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, c := range m.chunks {
		for i := c.first; i < c.end; i++ {
			if c.ino[i/64]&(1<<(i%64)) != 0 {
				blocks = append(blocks, uint64(c.no)<<fs.chunkShift()+uint64(i))
			}
		}
	}
	return blocks
}
