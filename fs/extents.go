package fs

import (
	"math"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pagecache"
)

// extentSlots records which of a file's extent slots on media are free. Slots 0 and 1 are in the
// inode; each linked extent block holds 126 more. Protected by the inode's io and mu, see inode.
type extentSlots struct {
	chain       []uint64 // region block of each extent block, by index
	free        []uint32 // free slots below next, last freed first
	next        uint32   // slots from here on were never used
	reservedFor uint64   // 1 + the last PUD range with a decided reservation, see placeLocked
	reservedAt  uint64   // region block where that reservation begins, or noReservation
}

// slotLine returns the region offset in bytes of the line that holds slot s, and the slot's index
// in the line.
func (in *inode) slotLine(s uint32) (off int64, i int) {
	if s < layout.ExtentsPerLine {
		return in.off + layout.InodeExtentOff, int(s)
	}
	s -= layout.ExtentsPerLine
	k, s := s/layout.ExtentsPerBlock, s%layout.ExtentsPerBlock
	return int64(in.ext.chain[k])<<layout.BlockShift + int64(1+s/layout.ExtentsPerLine)*layout.LineSize, int(s % layout.ExtentsPerLine)
}

// slotCap returns the number of slots, free or not.
func (in *inode) slotCap() uint32 {
	return layout.ExtentsPerLine + uint32(len(in.ext.chain))*layout.ExtentsPerBlock
}

// stageSlot stages extent e in slot s; the zero Extent marks the slot as free.
func (in *inode) stageSlot(t *journal.Tx, s uint32, e layout.Extent) {
	off, i := in.slotLine(s)
	t.At(off).PutExtent(i, e)
}

func mediaExtent(e pagecache.Extent) layout.Extent {
	return layout.Extent{Logical: e.Logical, Block: e.Block, Len: e.Len, Flags: e.Flags}
}

// freeSlots returns the number of free slots.
func (in *inode) freeSlots() int { return len(in.ext.free) + int(in.slotCap()-in.ext.next) }

// needSlotsLocked makes sure that n slots are free, and links extent blocks if necessary. Called
// with in.mu held and no lane.
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

// rootExtentsLocked makes the chain of extent blocks begin with a block; 0: there is no chain.
// Called with in.mu held and no lane.
func (fs *FS) rootExtentsLocked(ctx *Caller, in *inode, block uint64) error {
	c := fs.begin(ctx)
	u := c.update(in)
	u.ExtentRoot = block
	u.stamp(0, 0)
	return c.commit()
}

// dropChainLocked unlinks the extent blocks if no extent is left, and returns them. If that fails,
// the inode is merely larger than necessary. Called with in.mu held and no lane.
//
// Persistence order:
//  1. transaction: the inode's times line, root = 0
//  2. only then are the blocks free; the caller frees them
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

// dropChain is dropChainLocked for a file, and frees the blocks. Called with io held, and not mu.
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

// takeSlot takes a free slot. Precondition: needSlotsLocked found that there is one.
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

// loadExtentsLocked reads an inode's extents, and a directory's index, into DRAM when they are
// first needed. Called with io held, and not mu.
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

// lines returns the inode's core line and the root of its extent blocks. Called with io held, and
// not mu.
func (in *inode) lines() (c layout.Core, root uint64) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	return in.core, in.troot
}

// setBlocksLocked sets the number of blocks that an inode owns: n for its content, and those of its
// attributes. It also sets known, one of counted and loaded. Called with io held, and not mu.
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

// countBlocksLocked counts the blocks of an inode, as loadExtentsLocked does, and keeps nothing
// else. Called with io held, and not mu.
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

// taken returns an error if n blocks of an inode, as its lines on media show, are free in the saved
// free map that the filesystem was mounted by. meta: they are metadata blocks.
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
	return fs.contradiction(corruptf("block %d belongs to inode %d, but is free in the saved free map", block, ino))
}

// walkExtents calls visit for every extent of an inode in slot order, and stores the extent blocks
// by index in *chain. off is the inode's region offset in bytes, root its first extent block. It
// checks that all results lie within the filesystem. A damaged chain is an error, never an endless
// loop.
func (fs *FS) walkExtents(ino uint64, off int64, root uint64, gen uint32, chain *[]uint64, visit func(slot uint32, extent layout.Extent) error) error {
	*chain = (*chain)[:0]
	for block, want := root, int64(-1); block != 0; {
		var line layout.Line
		var header layout.ExtentBlock
		if block >= fs.sb.Blocks() {
			return corruptf("extent block %d of inode %d is outside the filesystem", block, ino)
		}
		if err := fs.journal.ReadLine(int64(block)<<layout.BlockShift, &line); err != nil {
			return err
		}
		if !header.Get(&line) || header.Owner != ino || header.Gen != gen || want >= 0 && int64(header.Index) != want || uint64(header.Index) > fs.sb.Blocks() {
			return corruptf("block %d is not the expected extent block of inode %d", block, ino)
		}
		*chain = append(*chain, block)
		want = int64(header.Index) - 1
		if (want < 0) != (header.Next == 0) {
			return corruptf("extent block %d of inode %d has index %d and next block %d: the chain must end at index 0", block, ino, header.Index, header.Next)
		}
		block = header.Next
	}
	blocks := *chain
	for i, j := 0, len(blocks)-1; i < j; i, j = i+1, j-1 {
		blocks[i], blocks[j] = blocks[j], blocks[i]
	}
	readLine := func(lineOff int64, slot uint32) error {
		var line layout.Line
		if err := fs.journal.ReadLine(lineOff, &line); err != nil {
			return err
		}
		for i := 0; i < layout.ExtentsPerLine; i++ {
			extent := line.Extent(i)
			if extent.Len == 0 {
				continue
			}
			if extent.Dev != 0 || extent.Block >= fs.sb.Blocks() || fs.sb.Blocks()-extent.Block < uint64(extent.Len) || extent.Logical > maxBlock || uint64(extent.Len) > maxBlock+1-extent.Logical || int64(extent.Block)<<layout.BlockShift < fs.sb.StaticEnd {
				return corruptf("an extent of inode %d in the line at offset %d is out of range", ino, lineOff)
			}
			if err := visit(slot+uint32(i), extent); err != nil {
				return err
			}
		}
		return nil
	}
	if err := readLine(off+layout.InodeExtentOff, 0); err != nil {
		return err
	}
	for index, block := range blocks {
		slot := uint32(layout.ExtentsPerLine + index*layout.ExtentsPerBlock)
		for i := 1; i < layout.LinesPerBlock; i++ {
			if err := readLine(int64(block)<<layout.BlockShift+int64(i)*layout.LineSize, slot+uint32(i-1)*layout.ExtentsPerLine); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxSize is the size of the largest file in bytes: every block of a file ends below 2^63.
const maxSize = math.MaxInt64 &^ (layout.BlockSize - 1)

// maxBlock is the last file block that a file may have.
const maxBlock = maxSize>>layout.BlockShift - 1

// ExtentInfo describes an extent, in blocks.
type ExtentInfo struct {
	Logical, Block, Len uint64 // file block, region block, and number of blocks
	Unwritten, Shared   bool   // Shared: other files may have the same blocks
	Order               uint8  // of the folios that hold it; set by Folios only
}

// Extents calls f for each extent of a file or directory in order, as FIEMAP does, until f returns
// false. It begins with the extent that covers or follows file block from. It holds no lock: of a
// concurrent change f may see a part.
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

// CountExtents returns the number of extents of a file or directory.
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

// folioSteps bounds the folios that Folios examines for one call of f.
const folioSteps = 1 << 16

// Folios is Extents, with each extent cut where the order of its folios changes, and after at most
// folioSteps folios.
func (fs *FS) Folios(ctx *Caller, ino, from uint64, f func(ExtentInfo) bool) syscall.Errno {
	return fs.Extents(ctx, ino, from, func(x ExtentInfo) bool {
		if from > x.Logical { // the first extent
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
