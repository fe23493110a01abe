package fsck

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

const (
	// maxSize is the largest file in bytes: each of its blocks ends below 2^63.
	maxSize = math.MaxInt64 &^ (layout.BlockSize - 1)
	// maxLogical is the last file block that a file may have.
	maxLogical = maxSize>>layout.BlockShift - 1
)

// content checks and claims the extents of an inode. first is the inode's own extent line; k is
// what was read ahead of its extents, or nil.
func (p *pass) content(ino uint64, io int64, c *layout.Core, t *layout.Times, first *layout.Line, k *contentLook) {
	typ := c.Mode & syscall.S_IFMT
	isDir := typ == syscall.S_IFDIR
	trunc := c.Format&layout.FormatTruncating != 0
	if trunc && c.Nlink != 0 {
		p.count(&p.rep.Truncations)
		if p.clean {
			p.problem(Truncating, ino, io, p.finishTruncate(ino, io, t), "inode %d has an interrupted truncation, on a filesystem that was unmounted cleanly", ino)
		} else if p.silently(p.finishTruncate(ino, io, t)) {
			return
		}
	}
	if k == nil {
		k = p.lookContent(ino, io, c.Gen, t.ExtentRoot, first, p.o.Workers)
	}
	list, ok := p.chain(ino, io, c.Gen, k)
	eof := (c.Size + layout.BlockSize - 1) >> layout.BlockShift
	kept, end := list[:0], uint64(0)
	f := extentsOf{ino: ino, typ: typ, isDir: isDir, eof: eof, trunc: trunc}
	for _, e := range list {
		if p.extent(&f, e, end) {
			kept = append(kept, e)
			if !isDir && c.Nlink != 0 {
				p.lostData(ino, e.Extent, c.Size)
			}
			end = e.Logical + uint64(e.Len)
		} else if isDir {
			ok = false
		}
	}
	if typ == syscall.S_IFLNK && ok && len(kept) == len(list) {
		p.symlink(ino, io, c, kept)
	}
	if isDir {
		if !ok {
			p.namesLost = true
		}
		d := &dir{ino: ino, size: c.Size, ext: kept}
		p.dirs = append(p.dirs, d)
		p.byIno[ino] = d
	}
}

// extentsOf is the inode whose extents are checked.
type extentsOf struct {
	ino   uint64
	typ   uint16 // S_IFMT bits of the mode
	isDir bool
	eof   uint64 // file blocks of its size
	trunc bool   // its truncation was interrupted: blocks after eof are to be cut
}

// extent checks one extent and claims its blocks, and reports whether both succeeded. end is the
// file block after the previous extent.
func (p *pass) extent(f *extentsOf, e slotExtent, end uint64) bool {
	if !p.extentFits(f, e, end) || !p.claimExtent(f, e) {
		return false
	}
	p.extentEOF(f, e)
	return true
}

// extentFits checks that an extent is where the file and the region allow it.
func (p *pass) extentFits(f *extentsOf, e slotExtent, end uint64) bool {
	ino, typ, isDir := f.ino, f.typ, f.isDir
	clear := func() func() error {
		return p.edit(e.off, func(l *layout.Line) { l.PutExtent(e.i, layout.Extent{}) })
	}
	n, last := uint64(e.Len), e.Block+uint64(e.Len)-1
	if e.Dev != 0 || e.Flags&^(layout.ExtentUnwritten|layout.ExtentShared) != 0 || isDir && e.Flags != 0 || e.Block < uint64(p.sb.StaticEnd)>>layout.BlockShift ||
		e.Block >= p.sb.Blocks() || p.sb.Blocks()-e.Block < n || e.Logical > maxLogical || maxLogical+1-e.Logical < n {
		p.problem(ExtentRange, ino, e.off, clear(), "inode %d has the extent logical %d, block %d, length %d, device %d, flags %#x, which is out of range", ino, e.Logical, e.Block, e.Len, e.Dev, e.Flags)
		return false
	}
	if typ != syscall.S_IFREG && typ != syscall.S_IFDIR && typ != syscall.S_IFLNK {
		p.problem(ExtentRange, ino, e.off, clear(), "inode %d of mode type %#o has an extent at block %d, expected none", ino, typ, e.Block)
		return false
	}
	if e.Logical < end {
		p.unsure.setRun(e.Block, n)
		p.problem(ExtentOverlap, ino, e.off, nil, "inode %d has two extents for its block %d", ino, e.Logical)
		return false
	}
	if isDir {
		for b := e.Block; b <= last; b++ {
			if !p.metaBlock(b) {
				p.problem(ExtentDir, ino, e.off, nil, "directory %d has block %d, which is not an ordinary block of a metadata chunk", ino, b)
				return false
			}
		}
	} else {
		for chunk := p.chunkOf(e.Block); chunk <= p.chunkOf(last); chunk++ {
			if p.meta.has(chunk) {
				p.problem(ExtentMetadata, ino, e.off, clear(), "inode %d has blocks %d..%d, which overlap metadata chunk %d", ino, e.Block, last, chunk)
				return false
			}
		}
	}
	if end := uint64(p.sb.DataEnd()) >> layout.BlockShift; last >= end {
		p.problem(ExtentReserved, ino, e.off, clear(), "inode %d has blocks %d..%d, but from block %d on are the slots and the second superblock", ino, e.Block, last, end)
		return false
	}
	return true
}

// claimExtent claims the blocks of an extent. It returns false if one of them is claimed already
// and not shared by both owners.
func (p *pass) claimExtent(f *extentsOf, e slotExtent) bool {
	ino, n, last := f.ino, uint64(e.Len), e.Block+uint64(e.Len)-1
	if e.Flags&layout.ExtentShared != 0 {
		again, ok := p.shareRun(e.Block, n)
		if !ok {
			p.unsure.setRun(e.Block, n)
			p.problem(ExtentShared, ino, e.off, nil, "inode %d has blocks %d..%d, one of which another owner has without sharing it", ino, e.Block, last)
			return false
		}
		p.rep.DataBlocks -= again
		p.sharers = append(p.sharers, owners{block: e.Block, n: n})
	} else if p.used.hasAny(e.Block, n) {
		p.unsure.setRun(e.Block, n)
		p.problem(ExtentShared, ino, e.off, nil, "inode %d has blocks %d..%d, one of which another owner has", ino, e.Block, last)
		return false
	}
	p.used.setRun(e.Block, n)
	if f.isDir {
		p.rep.DirBlocks += n
	} else {
		p.rep.DataBlocks += n
	}
	return true
}

// extentEOF checks that no written block of an extent is after the end of the file.
func (p *pass) extentEOF(f *extentsOf, e slotExtent) {
	ino, eof := f.ino, f.eof
	if le := e.Logical + uint64(e.Len); le > eof && !f.trunc && (f.isDir || e.Flags&layout.ExtentUnwritten == 0) {
		fix := p.edit(e.off, func(l *layout.Line) {
			x := e.Extent
			if x.Len = 0; x.Logical < eof {
				x.Len = uint32(eof - x.Logical)
			}
			if x.Len == 0 {
				x = layout.Extent{}
			}
			l.PutExtent(e.i, x)
		})
		if f.isDir {
			// Extend the size rather than lose the blocks.
			io := p.sb.InodeOff(ino)
			fix = p.edit(io, func(l *layout.Line) {
				var c layout.Core
				c.Get(l)
				c.Size = le << layout.BlockShift
				c.Put(l)
			})
		}
		p.problem(ExtentEOF, ino, e.off, fix, "inode %d has written blocks up to its block %d, its size ends at block %d", ino, le, eof)
	}
}

// shareRun claims n blocks for an extent that may share them. again is the number of blocks that
// were claimed before. ok is false, and nothing is claimed, if one of them is claimed by an extent
// that does not share it.
func (p *pass) shareRun(block, n uint64) (again uint64, ok bool) {
	alone := uint64(0)
	forRun(block, n, func(w int, m uint64) {
		again += uint64(bits.OnesCount64(p.used[w] & m))
		alone |= p.used[w] &^ p.shared[w] & m
	})
	if alone != 0 {
		return 0, false
	}
	p.shared.setRun(block, n)
	return again, true
}

// metaBlock reports whether region block b is a block of a metadata chunk that may belong to an
// inode: not the chunk's header, and not an inode block.
func (p *pass) metaBlock(b uint64) bool {
	if b >= p.sb.Blocks() || !p.meta.has(p.chunkOf(b)) || p.inoB.has(b) {
		return false
	}
	first, end := p.bounds(int64(p.chunkOf(b)))
	return b >= first && b < end
}

// contentLook is the content of an inode's extent slots.
type contentLook struct {
	chain []chainBlock
	list  []slotExtent // sorted by file block
	ok    bool         // everything was read
}

// chainBlock is a block of a chain of extent blocks. A chain is not followed beyond a bad block.
type chainBlock struct {
	block uint64
	bad   string // the reason why it is bad; "" if it is good
	lines uint64 // bit i: line i has a wrong checksum
	slots []slotExtent
}

const (
	// longChain is the number of extent blocks from which on a chain is not read ahead, which
	// limits the memory for reading ahead.
	longChain = 8
	notMeta   = "is not an ordinary block of a metadata chunk"
)

// lookContent reads the extents of an inode, from the inode's own extent line (nil: damaged) and
// from the chain that begins at block root. It uses the given number of workers. With 0 workers it
// reads the chain itself, but returns nil if the chain is long. A chain is finite, since the index
// decreases by one with each block.
func (p *pass) lookContent(ino uint64, io int64, gen uint32, root uint64, first *layout.Line, workers int) *contentLook {
	k := &contentLook{ok: first != nil}
	for b, want := root, int64(-1); b != 0; {
		if workers == 0 && len(k.chain) == longChain {
			return nil
		}
		var l layout.Line
		var h layout.ExtentBlock
		c := chainBlock{block: b}
		if !p.metaBlock(b) {
			c.bad = notMeta
		} else if err := p.line(int64(b)<<layout.BlockShift, &l); err == errSum {
			c.bad = "has a header with a wrong checksum"
		} else if err != nil {
			c.bad = "cannot be read"
		} else if !h.Get(&l) || h.Owner != ino || h.Gen != gen || want >= 0 && int64(h.Index) != want || uint64(h.Index) > p.sb.Blocks() || (h.Index == 0) != (h.Next == 0) {
			c.bad = "is not the next block of its chain"
		}
		k.chain = append(k.chain, c)
		if c.bad != "" {
			k.ok = false
			break
		}
		want = int64(h.Index) - 1
		b = h.Next
	}
	batches(workers, len(k.chain), 16, func(lo, hi int) (n int) {
		var buf [layout.BlockSize]byte
		for i := lo; i < hi; i++ {
			p.lookChain(&k.chain[i], buf[:])
		}
		return
	}, func(int, int) {})
	n := 0
	for i := range k.chain {
		n += len(k.chain[i].slots)
		k.ok = k.ok && k.chain[i].bad == "" && k.chain[i].lines == 0
	}
	k.list = make([]slotExtent, 0, n+layout.ExtentsPerLine)
	if first != nil {
		k.list = slots(k.list, first, io+layout.InodeExtentOff)
	}
	for i := len(k.chain) - 1; i >= 0; i-- { // oldest first, which is mostly in order
		k.list = append(k.list, k.chain[i].slots...)
		k.chain[i].slots = nil
	}
	order := func(a, b slotExtent) int {
		return cmp.Or(cmp.Compare(a.Logical, b.Logical), cmp.Compare(a.off, b.off), cmp.Compare(a.i, b.i))
	}
	if !slices.IsSortedFunc(k.list, order) {
		slices.SortFunc(k.list, order)
	}
	return k
}

// lookChain reads the slots of one extent block.
func (p *pass) lookChain(c *chainBlock, buf []byte) {
	if c.bad != "" {
		return
	}
	if p.block(c.block, buf) != nil {
		c.bad = "cannot be read"
		return
	}
	off := int64(c.block) << layout.BlockShift
	c.slots = make([]slotExtent, 0, layout.ExtentsPerBlock)
	for i := 1; i < layout.LinesPerBlock; i++ {
		if l := p.at(buf, off, i); l != nil {
			c.slots = slots(c.slots, l, off+int64(i)*layout.LineSize)
		} else {
			c.lines |= 1 << i
		}
	}
}

// chain claims the extent blocks of an inode and reports those that are damaged. It returns the
// usable extents, and whether these are all of the inode's.
func (p *pass) chain(ino uint64, io int64, gen uint32, k *contentLook) ([]slotExtent, bool) {
	for i := range k.chain {
		c := &k.chain[i]
		off := int64(c.block) << layout.BlockShift
		if c.bad != notMeta && p.used.has(c.block) {
			c.bad = "has another owner"
		}
		if c.bad != "" {
			if !p.problem(ExtentChain, ino, off, p.mendChain(ino, io, gen, i == 0), "extent block %d of inode %d %s", c.block, ino, c.bad) {
				p.chainLost = true
			}
			lost := map[uint64]bool{}
			for _, c := range k.chain[i:] {
				lost[c.block] = true
			}
			return slices.DeleteFunc(k.list, func(e slotExtent) bool { return lost[uint64(e.off)>>layout.BlockShift] }), false
		}
		p.used.set(c.block)
		p.rep.ExtentBlocks++
		for m := c.lines; m != 0; m &= m - 1 {
			lo := off + int64(bits.TrailingZeros64(m))*layout.LineSize
			p.problem(InodeExtents, ino, lo, p.put1(lo, layout.Line{}), "the extent line of inode %d at offset %d has a wrong checksum", ino, lo)
		}
	}
	return k.list, k.ok
}

// slots appends the extents of the line at region offset off.
func slots(list []slotExtent, l *layout.Line, off int64) []slotExtent {
	for i := range layout.ExtentsPerLine {
		if e := l.Extent(i); e.Len != 0 {
			list = append(list, slotExtent{e, off, i})
		}
	}
	return list
}

// finishTruncate returns a fix that cuts the extents beyond the size and clears the truncation
// flag, in the order of recovery: slots first, the flag last.
func (p *pass) finishTruncate(ino uint64, io int64, t *layout.Times) func() error {
	return func() error {
		var l layout.Line
		if err := p.line(io, &l); err != nil {
			return err
		}
		var c layout.Core
		c.Get(&l)
		eof := (c.Size + layout.BlockSize - 1) >> layout.BlockShift
		var first layout.Line
		if err := p.line(io+layout.InodeExtentOff, &first); err != nil {
			return err
		}
		k := p.lookContent(ino, io, c.Gen, t.ExtentRoot, &first, p.o.Workers)
		var cut []change
		index := map[int64]int{} // index in cut, by the line's region offset
		for _, e := range k.list {
			if e.Logical+uint64(e.Len) <= eof {
				continue
			}
			rest := layout.Extent{}
			if e.Logical < eof {
				rest = e.Extent
				rest.Len = uint32(eof - e.Logical)
			}
			i, ok := index[e.off]
			if !ok {
				i = len(cut)
				index[e.off], cut = i, append(cut, change{off: e.off})
				if err := p.line(e.off, &cut[i].line); err != nil {
					return err
				}
			}
			cut[i].line.PutExtent(e.i, rest)
		}
		for batch := range slices.Chunk(cut, layout.MaxRecordLines(p.sb.LaneSlot)) {
			if err := p.commit(batch); err != nil {
				return err
			}
		}
		if !k.ok {
			return errSum
		}
		return p.edit(io, func(l *layout.Line) {
			c.Format &^= layout.FormatTruncating
			c.Put(l)
		})()
	}
}
