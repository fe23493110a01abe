package fsck

import (
	"bytes"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// lookBlocks is the number of inode blocks in a worker's unit of work.
const lookBlocks = 8

// blockLook is an inode block as a worker read it.
type blockLook struct {
	err   error
	buf   [layout.BlockSize]byte
	valid uint64 // bit i: line i has a right checksum
	in    [layout.InodesPerBlock]inodeLook
}

// inodeLook is the extents and attributes of an inode as a worker read them.
type inodeLook struct {
	content *contentLook // nil: it has none, or too many to read ahead
	xattrs  *xattrLook
}

// line returns line i, or nil if its checksum is wrong.
func (k *blockLook) line(i int) *layout.Line {
	if k.valid&(1<<i) == 0 {
		return nil
	}
	return (*layout.Line)(k.buf[i*layout.LineSize:])
}

// look reads an inode block, and the extents and attributes of its inodes. It runs on several
// goroutines at once, and claims and reports nothing.
func (p *pass) look(b uint64) *blockLook {
	k := new(blockLook)
	if k.err = p.block(b, k.buf[:]); k.err != nil {
		return k
	}
	off := int64(b) << layout.BlockShift
	for i := range layout.LinesPerBlock {
		if i%4 != layout.InodeLiveOff/layout.LineSize && p.at(k.buf[:], off, i) != nil {
			k.valid |= 1 << i
		}
	}
	for s := range layout.InodesPerBlock {
		core, times, ext := k.line(4*s), k.line(4*s+layout.InodeTimesOff/layout.LineSize), k.line(4*s+layout.InodeExtentOff/layout.LineSize)
		var c layout.Core
		if core == nil || times == nil {
			continue
		}
		if c.Get(core); c.Mode == 0 || !knownType(c.Mode) {
			continue
		}
		io := off + int64(s)*layout.InodeSize
		ino := p.sb.InodeAt(io)
		var t layout.Times
		if t.Get(times); t.XattrRoot != 0 {
			k.in[s].xattrs = p.lookXattrs(ino, c.Gen, t.XattrRoot)
		}
		if c.Format&layout.FormatInline == 0 {
			k.in[s].content = p.lookContent(ino, io, c.Gen, t.ExtentRoot, ext, 0)
		}
	}
	return k
}

// allInodes reads every inode and claims its blocks.
func (p *pass) allInodes() {
	batches(p.o.Workers, len(p.inodeBlocks), lookBlocks, func(lo, hi int) (out []*blockLook) {
		for _, b := range p.inodeBlocks[lo:hi] {
			out = append(out, p.look(b))
		}
		return out
	}, func(lo int, looks []*blockLook) {
		if lo%(32*lookBlocks) == 0 {
			p.progress("checking inodes", int64(lo), int64(len(p.inodeBlocks)))
		}
		for i, k := range looks {
			b := p.inodeBlocks[lo+i]
			off := int64(b) << layout.BlockShift
			ib := new(inodeBlock)
			p.inodes[b] = ib
			if k.err != nil {
				p.unreadable(Media, 0, off, k.err, nil, "an inode block")
				p.namesLost = true
				continue
			}
			for s := range ib {
				p.inode(&ib[s], k, off, s)
			}
		}
	})
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

// inode checks slot s of the inode block at region offset off.
func (p *pass) inode(in *inodeInfo, k *blockLook, off int64, s int) {
	const lines = layout.InodeSize / layout.LineSize
	at := func(o int) *layout.Line { return k.line(s*lines + o/layout.LineSize) }
	io := off + int64(s)*layout.InodeSize
	ino := p.sb.InodeAt(io)
	core := at(layout.InodeCoreOff)
	if core == nil {
		in.state = slotDamaged // rebuild judges it, once all names are known
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
		for _, o := range []int{layout.InodeTimesOff, layout.InodeExtentOff} { // the slot's next user reads them
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
	p.countInode(ino, &c)

	var t layout.Times
	if l := at(layout.InodeTimesOff); l != nil {
		t.Get(l)
		p.xattrs(ino, io, k.in[s].xattrs)
	} else {
		var made bool
		t, made = p.lostTimes(ino, c.Gen, p.at(k.buf[:], off, s*lines+layout.InodeLiveOff/layout.LineSize))
		var l layout.Line
		t.Put(&l)
		timesOff := io + layout.InodeTimesOff
		fix := p.put1(timesOff, l)
		if !made {
			fix = nil
		}
		if t.XattrRoot != 0 {
			p.claimXattrs(p.lookXattrs(ino, c.Gen, t.XattrRoot))
		}
		p.problem(InodeTimes, ino, timesOff, fix, "the times line of inode %d at offset %d has a wrong checksum", ino, timesOff)
	}
	ext := at(layout.InodeExtentOff)
	if ext == nil {
		extOff := io + layout.InodeExtentOff
		if typ == syscall.S_IFDIR {
			p.namesLost = true
		}
		fix := p.put1(extOff, layout.Line{})
		if c.Format&layout.FormatInline != 0 {
			fix = p.freeSlot(ino) // the link's target is lost
		}
		p.problem(InodeExtents, ino, extOff, fix, "the extent line of inode %d at offset %d has a wrong checksum", ino, extOff)
		if c.Format&layout.FormatInline != 0 {
			return
		}
	}
	p.format(ino, io, &c)
	if c.Format&layout.FormatInline != 0 {
		p.inline(ino, io, &c, &t, ext)
		return
	}
	p.content(ino, io, &c, &t, ext, k.in[s].content)
}

// countInode counts an inode by its type.
func (p *pass) countInode(ino uint64, c *layout.Core) {
	switch typ := c.Mode & syscall.S_IFMT; {
	case c.Nlink == 0 && ino != layout.RootIno: // orphans frees it or not, once all names are known
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
}

// count increments n in the first pass only: later passes see what the first one repaired.
func (p *pass) count(n *int) {
	if p.first {
		*n++
	}
}

// freeSlot returns a fix that frees ino's slot. The next pass finds its blocks free.
func (p *pass) freeSlot(ino uint64) func() error {
	off := p.sb.InodeOff(ino)
	return func() error {
		var l layout.Line
		c := layout.Core{Gen: uint32(p.seq.Load()) | 1}
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

// inline checks a symbolic link whose target is in its inode.
func (p *pass) inline(ino uint64, io int64, c *layout.Core, t *layout.Times, ext *layout.Line) {
	if t.ExtentRoot != 0 {
		p.problem(ExtentChain, ino, io+layout.InodeTimesOff, p.edit(io+layout.InodeTimesOff, func(l *layout.Line) {
			var t layout.Times
			t.Get(l)
			t.ExtentRoot = 0
			t.Put(l)
		}), "the symbolic link %d, whose target is in its inode, has extent block %d, expected none", ino, t.ExtentRoot)
	}
	if n := bytes.IndexByte(ext.Payload()[:min(c.Size, layout.InlineSize)], 0); n >= 0 {
		fix := p.editCore(ino, func(c *layout.Core) { c.Size = uint64(n) })
		if n == 0 {
			fix = p.freeSlot(ino)
		}
		p.problem(Symlink, ino, io, fix, "the target of the symbolic link %d has %d bytes, expected no NUL; byte %d is NUL", ino, c.Size, n)
	}
}

// symlink checks a symbolic link whose target is in a block: extent slot 0, and no other extent.
// Otherwise the target is lost.
func (p *pass) symlink(ino uint64, io int64, c *layout.Core, list []slotExtent) {
	bad := ""
	var buf [layout.BlockSize]byte
	switch {
	case len(list) != 1 || list[0].Logical != 0 || list[0].off != io+layout.InodeExtentOff || list[0].i != 0 || list[0].Flags&layout.ExtentUnwritten != 0:
		bad = "is not in exactly one block"
	case p.block(list[0].Block, buf[:]) != nil:
		return // a media error, which a reader of the link gets
	case c.Size < layout.BlockSize && bytes.IndexByte(buf[:c.Size], 0) >= 0:
		bad = "contains a NUL"
	}
	if bad != "" {
		p.problem(Symlink, ino, io, p.freeSlot(ino), "the target of the symbolic link %d %s", ino, bad)
	}
}

// format checks that the core line is consistent: format flags and size against the file type.
func (p *pass) format(ino uint64, io int64, c *layout.Core) {
	typ := c.Mode & syscall.S_IFMT
	if unknown := c.Format &^ (layout.FormatInline | layout.FormatTruncating); unknown != 0 ||
		c.Format&layout.FormatInline != 0 && typ != syscall.S_IFLNK || c.Format&layout.FormatTruncating != 0 && typ != syscall.S_IFREG {
		p.problem(InodeFormat, ino, io, p.edit(io, func(l *layout.Line) {
			core := *c
			if core.Format &^= unknown; typ != syscall.S_IFLNK {
				core.Format &^= layout.FormatInline
			}
			if typ != syscall.S_IFREG {
				core.Format &^= layout.FormatTruncating
			}
			core.Put(l)
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
		if c.Size > maxSize {
			bad = "at most 2^63-4096"
		}
	default:
		if c.Size != 0 {
			bad = "0"
		}
	}
	if bad != "" {
		fix := p.edit(io, func(l *layout.Line) {
			core := *c
			switch typ {
			case syscall.S_IFREG:
				core.Size = maxSize
			case syscall.S_IFDIR:
				core.Size = c.Size &^ (layout.BlockSize - 1)
			default:
				core.Size = 0
			}
			core.Put(l)
		})
		if typ == syscall.S_IFLNK || typ == syscall.S_IFDIR && c.Size>>layout.BlockShift > p.sb.Blocks() {
			fix = nil
		}
		p.problem(InodeSizeBad, ino, io, fix, "inode %d of mode %#o has size %d, expected %s", ino, c.Mode, c.Size, bad)
	}
}
