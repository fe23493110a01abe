package fsck

import (
	"math"
	"sort"
	"syscall"

	"github.com/daxfs/daxfs/fs/layout"
)

// allInodes reads every inode and claims its blocks.
func (p *pass) allInodes() {
	buf := make([]byte, layout.BlockSize)
	for i, b := range p.inodeBlocks {
		if i%256 == 0 {
			p.progress("checking inodes", int64(i), int64(len(p.inodeBlocks)))
		}
		ib := new(inodeBlock)
		p.inodes[b] = ib
		off := int64(b) << layout.BlockShift
		if err := p.block(b, buf); err != nil {
			p.unreadable(Media, 0, off, err, nil, "an inode block")
			p.namesLost = true
			continue
		}
		for s := 0; s < layout.InodesPerBlock; s++ {
			p.inode(&ib[s], buf, off, s)
		}
	}
	root := p.info(layout.RootIno)
	if root == nil || root.state == slotDamaged || root.state == slotUnknown {
		p.namesLost = true
		if root == nil {
			p.problem(InodeRoot, layout.RootIno, p.sb.InodeBase, nil, "the block of the root directory at offset %d is not an inode block", p.sb.InodeBase)
		}
	} else if !root.isDir() {
		p.namesLost = true
		p.problem(InodeRoot, layout.RootIno, p.sb.InodeBase, nil, "inode 1 has mode %#o, expected a directory", root.mode)
	}
}

// inode checks slot s of the inode block in buf at region offset off.
func (p *pass) inode(in *inodeInfo, buf []byte, off int64, s int) {
	const lines = layout.InodeSize / layout.LineSize
	at := func(o int) *layout.Line { return p.at(buf, off, s*lines+o/layout.LineSize) }
	io := off + int64(s)*layout.InodeSize
	ino := p.sb.InodeAt(io)
	core := at(layout.InodeCoreOff)
	if core == nil {
		in.state = slotDamaged // judged by rebuild, when it is known who names it
		p.damaged++
		if ino == layout.RootIno {
			in.from, in.typ = layout.RootIno, syscall.DT_DIR
			p.namesLost = true
		}
		return
	}
	var c layout.Core
	if c.Get(core); c.Mode == 0 {
		in.state = slotFree
		for _, o := range []int{layout.InodeTimesOff, layout.InodeExtentOff} { // its next user reads them
			if lo := io + int64(o); at(o) == nil {
				p.problem(InodeFree, ino, lo, p.put1(lo, layout.Line{}), "the line of the free inode slot %d at offset %d has a wrong checksum", ino, lo)
			}
		}
		return
	}
	in.state, in.mode, in.nlink, in.gen, in.parent, in.format = slotLive, c.Mode, c.Nlink, c.Gen, c.Parent, c.Format
	typ := c.Mode & syscall.S_IFMT
	in.typ = uint8(typ >> 12)

	if !knownType(c.Mode) {
		in.state = slotDamaged
		in.typ = 0
		p.damaged++
		return
	}
	switch {
	case c.Nlink == 0 && p.clean:
		p.problem(Orphan, ino, io, p.freeSlot(ino), "inode %d has no links, on a filesystem that was unmounted cleanly", ino)
		p.count(&p.rep.Orphans)
	case c.Nlink == 0:
		if p.o.Repair && p.freeSlot(ino)() == nil {
			p.fixes++
			in.state = slotFree
		}
		p.count(&p.rep.Orphans)
	case typ == syscall.S_IFREG:
		p.rep.Files++
	case typ == syscall.S_IFDIR:
		p.rep.Dirs++
	case typ == syscall.S_IFLNK:
		p.rep.Symlinks++
	default:
		p.rep.Special++
	}
	if in.state == slotFree {
		return
	}

	var t layout.Times
	if l := at(layout.InodeTimesOff); l != nil {
		t.Get(l)
		p.xattrs(ino, io, c.Gen, t.XattrRoot)
	} else {
		var made bool
		t, made = p.lostTimes(ino, c.Gen, at(layout.InodeLiveOff))
		var l layout.Line
		t.Put(&l)
		to := io + layout.InodeTimesOff
		fix := p.put1(to, l)
		if !made {
			fix = nil
		}
		p.problem(InodeTimes, ino, to, fix, "the times line of inode %d at offset %d has a wrong checksum", ino, to)
	}
	ext := at(layout.InodeExtentOff)
	if ext == nil {
		eo := io + layout.InodeExtentOff
		if typ == syscall.S_IFDIR {
			p.namesLost = true
		}
		fix := p.put1(eo, layout.Line{})
		if c.Format&layout.FormatInline != 0 {
			fix = p.freeSlot(ino) // what the link said is gone
		}
		p.problem(InodeExtents, ino, eo, fix, "the extent line of inode %d at offset %d has a wrong checksum", ino, eo)
		if c.Format&layout.FormatInline != 0 {
			return
		}
	}
	p.format(ino, io, &c)
	if c.Format&layout.FormatInline != 0 {
		return
	}
	p.content(ino, io, &c, &t, ext)
}

// count counts what the first pass finds: later ones look at what it mended.
func (p *pass) count(n *int) {
	if p.first {
		*n++
	}
}

// freeSlot makes ino's slot free; what it claimed is then free too.
func (p *pass) freeSlot(ino uint64) func() error {
	off := p.sb.InodeOff(ino)
	return func() error {
		var l layout.Line
		c := layout.Core{Gen: uint32(p.seq) | 1}
		if p.line(off, &l) == nil {
			var old layout.Core
			old.Get(&l)
			c.Gen = old.Gen
		}
		l = layout.Line{}
		c.Put(&l)
		return p.commit([]change{{off, l}})
	}
}

// format checks what the core line says of itself.
func (p *pass) format(ino uint64, io int64, c *layout.Core) {
	typ := c.Mode & syscall.S_IFMT
	if un := c.Format &^ (layout.FormatInline | layout.FormatTruncating); un != 0 ||
		c.Format&layout.FormatInline != 0 && typ != syscall.S_IFLNK || c.Format&layout.FormatTruncating != 0 && typ != syscall.S_IFREG {
		p.problem(InodeFormat, ino, io, p.edit(io, func(l *layout.Line) {
			k := *c
			if k.Format &^= un; typ != syscall.S_IFLNK {
				k.Format &^= layout.FormatInline
			}
			if typ != syscall.S_IFREG {
				k.Format &^= layout.FormatTruncating
			}
			k.Put(l)
		}), "inode %d of mode %#o has the format flags %#x", ino, c.Mode, c.Format)
	}
	bad := ""
	switch typ {
	case syscall.S_IFDIR:
		if n := c.Size >> layout.BlockShift; c.Size%layout.BlockSize != 0 || n > 1<<32/layout.LinesPerBlock || n > p.sb.Blocks() {
			bad = "a multiple of 4096 that the filesystem can hold"
		}
	case syscall.S_IFLNK:
		if c.Size == 0 || c.Size >= layout.BlockSize || c.Format&layout.FormatInline != 0 && c.Size > layout.InlineSize {
			bad = "the length of a symbolic link's target"
		}
	case syscall.S_IFREG:
		if c.Size > math.MaxInt64 {
			bad = "at most 2^63-1"
		}
	default:
		if c.Size != 0 {
			bad = "0"
		}
	}
	if bad != "" {
		fix := p.edit(io, func(l *layout.Line) {
			k := *c
			switch typ {
			case syscall.S_IFREG:
				k.Size = math.MaxInt64
			case syscall.S_IFDIR:
				k.Size = c.Size &^ (layout.BlockSize - 1)
			default:
				k.Size = 0
			}
			k.Put(l)
		})
		if typ == syscall.S_IFLNK || typ == syscall.S_IFDIR && c.Size>>layout.BlockShift > p.sb.Blocks() {
			fix = nil
		}
		p.problem(InodeSizeBad, ino, io, fix, "inode %d of mode %#o has size %d, expected %s", ino, c.Mode, c.Size, bad)
	}
}

// maxLogical is the last block a file may have: offsets stay below 2^63.
const maxLogical = 1<<(63-layout.BlockShift) - 1

// content checks and claims the extents of an inode.
func (p *pass) content(ino uint64, io int64, c *layout.Core, t *layout.Times, first *layout.Line) {
	typ := c.Mode & syscall.S_IFMT
	isDir := typ == syscall.S_IFDIR
	trunc := c.Format&layout.FormatTruncating != 0
	if trunc && c.Nlink != 0 {
		p.count(&p.rep.Truncations)
		if p.clean {
			p.problem(Truncating, ino, io, p.finishTruncate(ino, io, t), "inode %d has an interrupted truncation, on a filesystem that was unmounted cleanly", ino)
		} else if p.o.Repair && p.finishTruncate(ino, io, t)() == nil {
			p.fixes++
			return
		}
	}
	var list []slotExtent
	ok := p.walk(ino, io, c.Gen, t.ExtentRoot, first, true, func(e slotExtent) { list = append(list, e) })
	sort.Slice(list, func(i, j int) bool { return list[i].Logical < list[j].Logical })
	eof := (c.Size + layout.BlockSize - 1) >> layout.BlockShift
	kept, end := list[:0], uint64(0)
	for _, e := range list {
		if p.extent(ino, e, isDir, typ, end, eof, trunc) {
			kept = append(kept, e)
			end = e.Logical + uint64(e.Len)
		} else if isDir {
			ok = false
		}
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

// extent checks one extent and claims its blocks; false if it was not fit for that.
func (p *pass) extent(ino uint64, e slotExtent, isDir bool, typ uint16, end, eof uint64, trunc bool) bool {
	clear := p.edit(e.off, func(l *layout.Line) { l.PutExtent(e.i, layout.Extent{}) })
	n, last := uint64(e.Len), e.Block+uint64(e.Len)-1
	if e.Dev != 0 || e.Flags&^(layout.ExtentUnwritten|layout.ExtentShared) != 0 || isDir && e.Flags != 0 || e.Block < uint64(p.sb.StaticEnd)>>layout.BlockShift ||
		e.Block >= p.sb.Blocks() || p.sb.Blocks()-e.Block < n || e.Logical > maxLogical || maxLogical+1-e.Logical < n {
		p.problem(ExtentRange, ino, e.off, clear, "inode %d has the extent logical %d, block %d, length %d, device %d, flags %#x, which is out of range", ino, e.Logical, e.Block, e.Len, e.Dev, e.Flags)
		return false
	}
	if typ != syscall.S_IFREG && typ != syscall.S_IFDIR && typ != syscall.S_IFLNK {
		p.problem(ExtentRange, ino, e.off, clear, "inode %d of mode type %#o has an extent at block %d, expected none", ino, typ, e.Block)
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
		for ch := p.chunkOf(e.Block); ch <= p.chunkOf(last); ch++ {
			if p.meta.has(ch) {
				p.problem(ExtentMetadata, ino, e.off, clear, "inode %d has blocks %d..%d, which reach into metadata chunk %d", ino, e.Block, last, ch)
				return false
			}
		}
	}
	if b := uint64(p.sb.BackupOff) >> layout.BlockShift; b >= e.Block && b <= last {
		p.problem(ExtentReserved, ino, e.off, clear, "inode %d has block %d, where the second superblock stands", ino, b)
		return false
	}
	if e.Flags&layout.ExtentShared != 0 {
		again, ok := p.shareRun(e.Block, n)
		if !ok {
			p.unsure.setRun(e.Block, n)
			p.problem(ExtentShared, ino, e.off, nil, "inode %d has blocks %d..%d, of which one belongs to somebody who does not share it", ino, e.Block, last)
			return false
		}
		p.rep.DataBlocks -= again
	} else if p.used.hasAny(e.Block, n) {
		p.unsure.setRun(e.Block, n)
		p.problem(ExtentShared, ino, e.off, nil, "inode %d has blocks %d..%d, of which one belongs to somebody else", ino, e.Block, last)
		return false
	}
	p.used.setRun(e.Block, n)
	if isDir {
		p.rep.DirBlocks += n
	} else {
		p.rep.DataBlocks += n
	}
	if le := e.Logical + n; le > eof && !trunc && (isDir || e.Flags&layout.ExtentUnwritten == 0) {
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
		if isDir {
			// The size is lost rather than the blocks.
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
	return true
}

// shareRun claims blocks for an extent that may share them, unless one of them belongs to
// somebody who does not. again is how many were claimed before.
func (p *pass) shareRun(block, n uint64) (again uint64, ok bool) {
	for b := block; b < block+n; b++ {
		if p.used.has(b) {
			if !p.shared.has(b) {
				return 0, false
			}
			again++
		}
	}
	p.shared.setRun(block, n)
	return again, true
}

// metaBlock reports whether b is a block of a metadata chunk that may belong to an
// inode: neither header nor inode block.
func (p *pass) metaBlock(b uint64) bool {
	if b >= p.sb.Blocks() || !p.meta.has(p.chunkOf(b)) || p.inoB.has(b) {
		return false
	}
	first, end := p.bounds(int64(p.chunkOf(b)))
	return b >= first && b < end
}

// walk calls f for each extent of an inode and reports whether all could be read. With
// claim set it claims the extent blocks and reports what is wrong with them; a block
// is claimed once, so a chain that loops ends.
func (p *pass) walk(ino uint64, io int64, gen uint32, root uint64, first *layout.Line, claim bool, f func(slotExtent)) bool {
	ok := first != nil
	if first != nil {
		slots(first, io+layout.InodeExtentOff, f)
	}
	var buf []byte
	if root != 0 {
		buf = make([]byte, layout.BlockSize)
	}
	seen := 0
	for b, want := root, int64(-1); b != 0; {
		var h layout.ExtentBlock
		bad := ""
		off := int64(b) << layout.BlockShift
		var err error
		if !p.metaBlock(b) {
			bad = "is not an ordinary block of a metadata chunk"
		} else if claim && p.used.hasAny(b, 1) {
			bad = "belongs to somebody else, or stands in the chain twice"
		} else if err = p.block(b, buf); err != nil {
			bad = "cannot be read"
		} else if l := p.at(buf, off, 0); l == nil {
			bad = "has a header with a wrong checksum"
		} else if !h.Get(l) || h.Owner != ino || h.Gen != gen || want >= 0 && int64(h.Index) != want || uint64(h.Index) > p.sb.Blocks() || (h.Index == 0) != (h.Next == 0) {
			bad = "is not the one that should stand there"
		}
		if seen++; bad == "" && uint64(seen) > p.sb.Blocks() {
			bad = "stands in a chain without end"
		}
		if bad != "" {
			if claim {
				if !p.problem(ExtentChain, ino, off, p.mendChain(ino, io, gen, b == root), "extent block %d of inode %d %s", b, ino, bad) {
					p.chainLost = true
				}
			}
			return false
		}
		if claim {
			p.used.set(b)
			p.rep.ExtentBlocks++
		}
		for i := 1; i < layout.LinesPerBlock; i++ {
			lo := off + int64(i)*layout.LineSize
			l := p.at(buf, off, i)
			if l == nil {
				ok = false
				if claim {
					p.problem(InodeExtents, ino, lo, p.put1(lo, layout.Line{}), "the extent line of inode %d at offset %d has a wrong checksum", ino, lo)
				}
				continue
			}
			slots(l, lo, f)
		}
		want = int64(h.Index) - 1
		b = h.Next
	}
	return ok
}

func slots(l *layout.Line, off int64, f func(slotExtent)) {
	for i := 0; i < layout.ExtentsPerLine; i++ {
		if e := l.Extent(i); e.Len != 0 {
			f(slotExtent{e, off, i})
		}
	}
}

// finishTruncate cuts what lies beyond the size and takes the mark off, as recovery
// does: slots first, the mark last.
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
		var err error
		ok := p.walk(ino, io, c.Gen, t.ExtentRoot, &first, false, func(e slotExtent) {
			if err != nil || e.Logical+uint64(e.Len) <= eof {
				return
			}
			x := layout.Extent{}
			if e.Logical < eof {
				x = e.Extent
				x.Len = uint32(eof - e.Logical)
			}
			err = p.edit(e.off, func(l *layout.Line) { l.PutExtent(e.i, x) })()
		})
		if err != nil {
			return err
		}
		if !ok {
			return errSum
		}
		return p.edit(io, func(l *layout.Line) {
			c.Format &^= layout.FormatTruncating
			c.Put(l)
		})()
	}
}
