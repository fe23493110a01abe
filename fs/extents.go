package fs

import (
	"math"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pagecache"
)

// extentSlots says which of a file's extent slots on media are free. Slots 0 and
// 1 are in the inode; the k-th linked extent block holds 126 more. Protected by
// the inode's io and mu, see inode.
type extentSlots struct {
	chain       []uint64 // extent blocks by index
	free        []uint32 // free slots below next, last freed first
	next        uint32   // slots from here on were never used
	reservedFor uint64   // 1 + number of the PUD range whose reservation was decided last, see place
	reservedAt  uint64   // where that reservation begins in the region, or noHome
}

// slotLine gives the line and half that hold slot s.
func (in *inode) slotLine(s uint32) (off int64, i int) {
	if s < layout.ExtentsPerLine {
		return in.off + layout.InodeExtentOff, int(s)
	}
	s -= layout.ExtentsPerLine
	k, s := s/layout.ExtentsPerBlock, s%layout.ExtentsPerBlock
	return int64(in.ext.chain[k])<<layout.BlockShift + int64(1+s/layout.ExtentsPerLine)*layout.LineSize, int(s % layout.ExtentsPerLine)
}

func (in *inode) slotCap() uint32 {
	return layout.ExtentsPerLine + uint32(len(in.ext.chain))*layout.ExtentsPerBlock
}

// stageSlot writes slot s. Free slots are staged with the zero Extent.
func (in *inode) stageSlot(t *journal.Tx, s uint32, e layout.Extent) {
	off, i := in.slotLine(s)
	t.At(off).PutExtent(i, e)
}

func mediaExtent(e pagecache.Extent) layout.Extent {
	return layout.Extent{Logical: e.Logical, Block: e.Block, Len: e.Len, Flags: e.Flags}
}

// freeSlots is how many slots can be taken.
func (in *inode) freeSlots() int { return len(in.ext.free) + int(in.slotCap()-in.ext.next) }

// needSlotsLocked makes sure that n slots can be taken, linking extent blocks as
// needed. Called with mu held and no lane.
//
// Persistence order, for each block:
//  1. NT-store the formatted block with its header (next: the present root), SFENCE
//  2. transaction: the inode's times line, root = the block
func (fs *FS) needSlotsLocked(ctx *Caller, in *inode, n int) error {
	for in.freeSlots() < n {
		block, err := fs.meta.Alloc(ctx.Lane, ctx.UID, 0)
		if err != nil {
			return err
		}
		off := int64(block) << layout.BlockShift
		h := layout.ExtentBlock{Index: uint32(len(in.ext.chain)), Owner: in.ino, Next: in.troot, Gen: in.core.Gen}
		err = fs.journal.FormatBlock(off, func(b []byte, seq uint64) {
			var l layout.Line
			h.Put(&l)
			layout.PutLine(b, 0, &l, fs.journal.Seed(), off, seq)
		})
		if err == nil {
			err = fs.rootExtentsLocked(ctx, in, block)
		}
		if err != nil {
			fs.meta.Free(ctx.Lane, block)
			return err
		}
		in.ext.chain = append(in.ext.chain, block)
		in.blocks.Add(1)
	}
	return nil
}

// rootExtentsLocked has the list of extent blocks begin with a block. Called with mu held and no
// lane.
func (fs *FS) rootExtentsLocked(ctx *Caller, in *inode, block uint64) error {
	c := fs.begin(ctx)
	u := c.update(in)
	u.ExtentRoot = block
	u.stamp(0, 0)
	return c.commit()
}

// dropChainLocked unlinks the extent blocks once no extent is left, and returns them. If it does
// not happen the inode is merely larger than it need be. Called with mu held and no lane.
//
// Persistence order:
//  1. transaction: the inode's times line, root = none
//  2. only then are the blocks free, which is left to the caller
func (fs *FS) dropChainLocked(ctx *Caller, in *inode) (gone []uint64) {
	if in.space.Len() > 0 || len(in.ext.chain) == 0 {
		return nil
	}
	if fs.rootExtentsLocked(ctx, in, 0) != nil {
		return nil
	}
	in.blocks.Add(-uint64(len(in.ext.chain)))
	gone = in.ext.chain
	in.ext.chain, in.ext.free, in.ext.next = nil, nil, 0
	return gone
}

// dropChain is dropChainLocked of a file, called with io held, and frees the blocks.
func (fs *FS) dropChain(ctx *Caller, in *inode) {
	in.mu.Lock()
	gone := fs.dropChainLocked(ctx, in)
	in.mu.Unlock()
	fs.freeChain(ctx, gone)
}

func (fs *FS) freeChain(ctx *Caller, gone []uint64) {
	for _, b := range gone {
		fs.meta.Free(ctx.Lane, b)
	}
}

// takeSlot returns a free slot. Precondition: needSlotsLocked said there is one.
func (in *inode) takeSlot() uint32 {
	if n := len(in.ext.free); n > 0 {
		s := in.ext.free[n-1]
		in.ext.free = in.ext.free[:n-1]
		return s
	}
	in.ext.next++
	return in.ext.next - 1
}

func (in *inode) giveSlot(s uint32) { in.ext.free = append(in.ext.free, s) }

// loadExtentsLocked brings an inode's extents, and a directory's index, to DRAM the
// first time they are needed. Called with io held, and not mu.
func (fs *FS) loadExtentsLocked(in *inode) (err error) {
	if in.loaded.Load() {
		return nil
	}
	c, root := in.lines()
	in.content = &content{}
	n := uint64(0)
	if c.Format&layout.FormatInline == 0 {
		err = fs.walkExtents(in.ino, in.off, root, c.Gen, &in.ext.chain, func(slot uint32, e layout.Extent) error {
			for in.ext.next <= slot {
				in.ext.next++
				if in.ext.next <= slot {
					in.giveSlot(in.ext.next - 1)
				}
			}
			if p, ok := in.space.Lookup(e.Logical); ok || p.Logical < e.Logical+uint64(e.Len) {
				return corruptf("inode %d has two extents at block %d", in.ino, e.Logical)
			}
			in.space.Insert(pagecache.Extent{Logical: e.Logical, Block: e.Block, Len: e.Len, Slot: slot, Flags: e.Flags})
			n += uint64(e.Len)
			return fs.taken(in.ino, e.Block, uint64(e.Len), in.isDir())
		})
		for _, b := range in.ext.chain {
			if err == nil {
				err = fs.taken(in.ino, b, 1, true)
			}
		}
		if err == nil && in.isDir() {
			err = fs.loadDir(in, c.Size)
		}
		if err != nil {
			in.space.Reset()
			return err
		}
		n += uint64(len(in.ext.chain))
	}
	return fs.setBlocksLocked(in, n, &in.loaded)
}

// lines returns what the inode's lines say of its content, for callers that hold io and not mu.
func (in *inode) lines() (c layout.Core, root uint64) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.core, in.troot
}

// setBlocksLocked notes how many blocks an inode has, of which n are for content, and that this is
// known. Called with io held.
func (fs *FS) setBlocksLocked(in *inode, n uint64, known *atomic.Bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	xs, err := fs.loadXattrsLocked(in)
	if err != nil {
		return err
	}
	in.blocks.Store(n + xs.blocks())
	known.Store(true)
	return nil
}

// countBlocksLocked finds out how many blocks an inode has, as loadExtentsLocked does, and keeps
// nothing else. Called with io held, and not mu.
func (fs *FS) countBlocksLocked(in *inode) error {
	c, root := in.lines()
	n := uint64(0)
	if c.Format&layout.FormatInline == 0 {
		var chain []uint64
		if err := fs.walkExtents(in.ino, in.off, root, c.Gen, &chain, func(_ uint32, e layout.Extent) error {
			n += uint64(e.Len)
			return nil
		}); err != nil {
			return err
		}
		n += uint64(len(chain))
	}
	return fs.setBlocksLocked(in, n, &in.counted)
}

// taken fails if the saved free map that the filesystem was mounted by has blocks of an inode
// free: who read the inodes knows what they have.
func (fs *FS) taken(ino, block, n uint64, meta bool) error {
	if !fs.mounted.fromFreeMap || !meta && fs.table.Owned(block, n) {
		return nil
	}
	for ; meta && n > 0 && fs.meta.InUse(block); n-- {
		block++
	}
	if n == 0 {
		return nil
	}
	return fs.contradiction(corruptf("inode %d has block %d, and the saved free map has it free", ino, block))
}

// walkExtents calls f for every extent in slot order, and stores the extent
// blocks by index in *chain. Everything it returns was checked to lie within the
// filesystem; a damaged chain is an error, never a loop.
func (fs *FS) walkExtents(ino uint64, off int64, root uint64, gen uint32, chain *[]uint64, f func(slot uint32, e layout.Extent) error) error {
	*chain = (*chain)[:0]
	for b, want := root, int64(-1); b != 0; {
		var l layout.Line
		var h layout.ExtentBlock
		if b >= fs.sb.Blocks() {
			return corruptf("extent block %d of inode %d is outside the filesystem", b, ino)
		}
		if err := fs.journal.ReadLine(int64(b)<<layout.BlockShift, &l); err != nil {
			return err
		}
		if !h.Get(&l) || h.Owner != ino || h.Gen != gen || want >= 0 && int64(h.Index) != want || uint64(h.Index) > fs.sb.Blocks() {
			return corruptf("block %d is not the extent block of inode %d that it should be", b, ino)
		}
		*chain = append(*chain, b)
		want = int64(h.Index) - 1
		if (want < 0) != (h.Next == 0) {
			return corruptf("chain of extent blocks of inode %d ends wrongly at block %d", ino, b)
		}
		b = h.Next
	}
	c := *chain
	for i, j := 0, len(c)-1; i < j; i, j = i+1, j-1 {
		c[i], c[j] = c[j], c[i]
	}
	line := func(lo int64, slot uint32) error {
		var l layout.Line
		if err := fs.journal.ReadLine(lo, &l); err != nil {
			return err
		}
		for i := 0; i < layout.ExtentsPerLine; i++ {
			e := l.Extent(i)
			if e.Len == 0 {
				continue
			}
			if e.Dev != 0 || e.Block >= fs.sb.Blocks() || fs.sb.Blocks()-e.Block < uint64(e.Len) || e.Logical > maxBlock || uint64(e.Len) > maxBlock+1-e.Logical || int64(e.Block)<<layout.BlockShift < fs.sb.StaticEnd {
				return corruptf("extent of inode %d in the line at offset %d is out of range", ino, lo)
			}
			if err := f(slot+uint32(i), e); err != nil {
				return err
			}
		}
		return nil
	}
	if err := line(off+layout.InodeExtentOff, 0); err != nil {
		return err
	}
	for k, b := range c {
		slot := uint32(layout.ExtentsPerLine + k*layout.ExtentsPerBlock)
		for i := 1; i < layout.LinesPerBlock; i++ {
			if err := line(int64(b)<<layout.BlockShift+int64(i)*layout.LineSize, slot+uint32(i-1)*layout.ExtentsPerLine); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxSize is the largest file in bytes: every block of it ends below 2^63.
const maxSize = math.MaxInt64 &^ (layout.BlockSize - 1)

// maxBlock is the last block a file may have.
const maxBlock = maxSize>>layout.BlockShift - 1

// ExtentInfo is an extent as Extents tells it, in blocks.
type ExtentInfo struct {
	Logical, Block, Len uint64 // of the file, of the region
	Unwritten, Shared   bool   // Shared: other files may have the same blocks
	Order               uint8  // Folios only: of the folios that it is in
}

// Extents calls f for each extent of a file or directory in order, from the one that covers file
// block from or follows it, until f says false: what FIEMAP tells. It holds no lock: a change that
// happens meanwhile is told in part.
func (fs *FS) Extents(ctx *Caller, ino, from uint64, f func(ExtentInfo) bool) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return errno(err)
	}
	in.space.Ascend(from, func(x pagecache.Extent) bool {
		return f(ExtentInfo{x.Logical, x.Block, uint64(x.Len), x.Flags&layout.ExtentUnwritten != 0, x.Flags&layout.ExtentShared != 0, 0})
	})
	return 0
}

// CountExtents is how many extents a file or directory has.
func (fs *FS) CountExtents(ctx *Caller, ino uint64) (n int, e syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return 0, e
	}
	defer fs.put(in, 1)
	if err := fs.extentsLoaded(ctx, in); err != nil {
		return 0, errno(err)
	}
	return in.space.Len(), 0
}

// folioSteps bounds how many folios Folios looks at for one call of f.
const folioSteps = 1 << 16

// Folios is Extents from file block from on, each cut where the order of its folios changes, and
// where more than folioSteps folios would be told as one.
func (fs *FS) Folios(ctx *Caller, ino, from uint64, f func(ExtentInfo) bool) syscall.Errno {
	return fs.Extents(ctx, ino, from, func(x ExtentInfo) bool {
		if from > x.Logical { // the first one
			x.Block, x.Len, x.Logical = x.Block+from-x.Logical, x.Len-(from-x.Logical), from
		}
		for end := x.Block + x.Len; x.Block < end; {
			x.Order = fs.table.Order(x.Block)
			next := x.Block
			for n := 0; n < folioSteps && next < end && fs.table.Order(next) == x.Order; n++ {
				next = (next>>x.Order + 1) << x.Order
			}
			x.Len = min(next, end) - x.Block
			if !f(x) {
				return false
			}
			x.Logical, x.Block = x.Logical+x.Len, x.Block+x.Len
		}
		return true
	})
}
