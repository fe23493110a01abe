package fsck

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// lostFound is the name of the directory for inodes that have lost their names.
const lostFound = "lost+found"

// adopt returns a fix that gives a nameless inode the name "#ino" in lost+found.
func (p *pass) adopt(ino uint64, in *inodeInfo) func() error {
	return func() error {
		lf, err := p.lostFoundDir()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("#%d", ino)
		for n := 1; p.hasName(lf, name); n++ {
			name = fmt.Sprintf("#%d.%d", ino, n)
		}
		if err := p.addEntry(lf, name, ino, uint8(in.mode>>12&15)); err != nil {
			return err
		}
		if isDirMode(in.mode) {
			return p.editCore(ino, func(c *layout.Core) { c.Parent = lf.ino })()
		}
		return nil
	}
}

// hasName reports whether a directory has a name. The name must fit in one line.
func (p *pass) hasName(d *dir, name string) bool {
	lo, _ := p.findEntry(d, func(l *layout.Line) bool {
		return l.DentryNameLen() == len(name) && string(l.NamePart(0, len(name))) == name
	})
	return lo != 0
}

// lostFoundDir finds or makes lost+found in the root directory.
func (p *pass) lostFoundDir() (*dir, error) {
	root := p.byIno[layout.RootIno]
	if root == nil {
		return nil, errors.New("the root directory cannot be read")
	}
	var ino uint64
	p.findEntry(root, func(l *layout.Line) bool {
		if l.DentryNameLen() == len(lostFound) && string(l.NamePart(0, len(lostFound))) == lostFound {
			ino = l.DentryIno()
		}
		return ino != 0
	})
	if ino != 0 {
		if d := p.byIno[ino]; d != nil && p.info(ino).nlink != 0 {
			return d, nil
		}
		return nil, errors.New("/lost+found is not a directory: rename it and repair again")
	}
	return p.makeLostFound(root)
}

// makeLostFound creates lost+found in one transaction.
func (p *pass) makeLostFound(root *dir) (*dir, error) {
	ino, off, err := p.freeInode()
	if err != nil {
		return nil, err
	}
	place, err := p.placeEntry(root)
	if err != nil {
		return nil, err
	}
	var old, core, times, ext, rc, head layout.Line
	if err := p.line(off, &old); err != nil {
		return nil, err
	}
	if err := p.line(p.sb.InodeOff(layout.RootIno), &rc); err != nil {
		return nil, err
	}
	var was, rcore layout.Core
	was.Get(&old)
	rcore.Get(&rc)
	rcore.Nlink++
	rcore.Put(&rc)
	now := p.now()
	c := layout.Core{Mode: syscall.S_IFDIR | 0o700, UID: p.sb.UID, GID: p.sb.GID, Nlink: 2, Gen: was.Gen + 1, Parent: layout.RootIno}
	c.Put(&core)
	t := layout.Times{Atime: now, Mtime: now, Ctime: now, Btime: now}
	t.Put(&times)
	head.PutDentryHead([]byte(lostFound), ino, syscall.DT_DIR)
	err = p.commit([]change{{off, core}, {off + layout.InodeTimesOff, times}, {off + layout.InodeExtentOff, ext},
		{place, head}, {p.sb.InodeOff(layout.RootIno), rc}})
	if err != nil {
		return nil, err
	}
	p.fixes++
	in := p.info(ino)
	*in = inodeInfo{state: slotLive, seen: true, mode: c.Mode, nlink: 2, links: 1, gen: c.Gen, from: layout.RootIno, parent: layout.RootIno}
	d := &dir{ino: ino}
	p.dirs = append(p.dirs, d)
	p.byIno[ino] = d
	return d, nil
}

// now returns the time in ns for what a repair makes. It is the time of the root's last change,
// since the checker has no clock.
func (p *pass) now() int64 {
	var l layout.Line
	var t layout.Times
	if p.line(p.sb.InodeBase+layout.InodeTimesOff, &l) == nil {
		t.Get(&l)
	}
	return max(t.Ctime, p.sb.Created)
}

// freeInode finds a free inode slot, and makes an inode block if there is none.
func (p *pass) freeInode() (ino uint64, off int64, err error) {
	for _, b := range p.inodeBlocks {
		for i := range p.inodes[b] {
			if p.inodes[b][i].state == slotFree {
				off = int64(b)<<layout.BlockShift + int64(i)*layout.InodeSize
				return p.sb.InodeAt(off), off, nil
			}
		}
	}
	b, err := p.newInodeBlock()
	if err != nil {
		return 0, 0, err
	}
	off = int64(b) << layout.BlockShift
	return p.sb.InodeAt(off), off, nil
}

// newInodeBlock makes a free metadata block an inode block of 16 free slots.
//
// Persistence order:
//  1. NT-store the formatted block, SFENCE
//  2. transaction: its type in the chunk header
func (p *pass) newInodeBlock() (uint64, error) {
	b, err := p.freeMeta()
	if err != nil {
		return 0, err
	}
	err = p.formatBlock(b, func(buf []byte, seq uint64) {
		for s := 0; s < layout.InodesPerBlock; s++ {
			var l layout.Line
			(&layout.Core{Gen: uint32(seq) | 1}).Put(&l)
			layout.PutLine(buf, s*layout.InodeSize/layout.LineSize, &l, p.seed, int64(b)<<layout.BlockShift, seq)
		}
	})
	if err != nil {
		return 0, err
	}
	line, i := layout.TypePos(int(b & uint64(p.sb.ChunkBlocks()-1)))
	at := p.sb.ChunkHeader(int64(p.chunkOf(b))) + int64(line)*layout.LineSize
	if err := p.edit(at, func(l *layout.Line) { l.SetBlockType(i, layout.BlockInode) })(); err != nil {
		return 0, err
	}
	p.fixes++
	p.addInodeBlock(b)
	ib := new(inodeBlock)
	for i := range ib {
		ib[i].state = slotFree
	}
	p.inodes[b] = ib
	return b, nil
}

// addEntry writes a dentry of one line into a directory.
func (p *pass) addEntry(d *dir, name string, ino uint64, typ uint8) error {
	place, err := p.placeEntry(d)
	if err != nil {
		return err
	}
	var l layout.Line
	l.PutDentryHead([]byte(name), ino, typ)
	return p.commit([]change{{place, l}})
}

// placeEntry returns the region offset of a free line in a directory, and adds a block if there is
// none.
func (p *pass) placeEntry(d *dir) (int64, error) {
	for k := len(d.ext) - 1; k >= 0; k-- {
		e := d.ext[k]
		for b := e.Block; b < e.Block+uint64(e.Len); b++ {
			for i := int64(0); i < layout.LinesPerBlock; i++ {
				var l layout.Line
				off := int64(b)<<layout.BlockShift + i*layout.LineSize
				if p.line(off, &l) != nil {
					return 0, errSum
				}
				switch l.DentryKind() {
				case layout.DentryHead:
					i += int64(layout.DentryLines(l.DentryNameLen())) - 1
				case layout.DentryFree:
					return off, nil
				}
			}
		}
	}
	return p.growDir(d)
}

// growDir adds a block to a directory, and an extent block if no slot is free for it. It returns
// the region offset of the block's first line.
//
// Persistence order:
//  1. NT-store empty lines to the block, SFENCE; to the extent block, SFENCE
//  2. transaction: the slot and the size; with an extent block its header and the root
func (p *pass) growDir(d *dir) (int64, error) {
	block, err := p.freeMeta()
	if err != nil {
		return 0, err
	}
	p.used.set(block) // so that the extent block is another one
	io := p.sb.InodeOff(d.ino)
	var core layout.Line
	if err := p.line(io, &core); err != nil {
		return 0, err
	}
	var c layout.Core
	c.Get(&core)
	logical := c.Size >> layout.BlockShift
	c.Size += layout.BlockSize
	c.Put(&core)
	slot, err := p.freeSlotOf(d, io, c.Gen)
	if err != nil {
		return 0, err
	}
	if err := p.formatBlock(block, nil); err != nil {
		return 0, err
	}
	e := layout.Extent{Logical: logical, Block: block, Len: 1}
	slot.line.PutExtent(slot.i, e)
	if err := p.commit(append(slot.link, change{slot.off, slot.line}, change{io, core})); err != nil {
		return 0, err
	}
	p.fixes++
	d.size = c.Size
	d.ext = append(d.ext, slotExtent{e, slot.off, slot.i})
	return int64(block) << layout.BlockShift, nil
}

// emptySlot is a free extent slot and its line.
type emptySlot struct {
	off  int64
	i    int
	line layout.Line
	link []change // changes that link a new extent block; none for an old one
}

// freeSlotOf finds a free extent slot of a directory, or formats an extent block for it.
func (p *pass) freeSlotOf(d *dir, io int64, gen uint32) (emptySlot, error) {
	lines := []int64{io + layout.InodeExtentOff}
	var timesLine layout.Line
	if err := p.line(io+layout.InodeTimesOff, &timesLine); err != nil {
		return emptySlot{}, err
	}
	var t layout.Times
	t.Get(&timesLine)
	head := layout.ExtentBlock{Owner: d.ino, Gen: gen, Next: t.ExtentRoot}
	for b, n := t.ExtentRoot, uint64(0); b != 0 && n < p.sb.Blocks(); n++ {
		var l layout.Line
		var h layout.ExtentBlock
		if err := p.line(int64(b)<<layout.BlockShift, &l); err != nil || !h.Get(&l) {
			return emptySlot{}, errSum
		}
		if n == 0 {
			head.Index = h.Index + 1
		}
		for i := int64(1); i < layout.LinesPerBlock; i++ {
			lines = append(lines, int64(b)<<layout.BlockShift+i*layout.LineSize)
		}
		b = h.Next
	}
	slices.Sort(lines)
	for _, off := range lines {
		var l layout.Line
		if err := p.line(off, &l); err != nil {
			return emptySlot{}, err
		}
		for i := 0; i < layout.ExtentsPerLine; i++ {
			if l.Extent(i).Len == 0 {
				return emptySlot{off: off, i: i, line: l}, nil
			}
		}
	}
	block, err := p.freeMeta()
	if err != nil {
		return emptySlot{}, err
	}
	p.used.set(block)
	if err := p.formatBlock(block, nil); err != nil {
		return emptySlot{}, err
	}
	var headLine layout.Line
	head.Put(&headLine)
	t.ExtentRoot = block
	t.Put(&timesLine)
	off := int64(block) << layout.BlockShift
	return emptySlot{off: off + layout.LineSize, link: []change{{off, headLine}, {io + layout.InodeTimesOff, timesLine}}}, nil
}

// freeMeta returns a free block of the metadata chunks, and makes a metadata chunk if there is
// none. It fails if a chain of extent blocks is broken, since the rest of the chain may then seem
// free.
func (p *pass) freeMeta() (uint64, error) {
	if p.chainLost {
		return 0, errors.New("a chain of extent blocks is broken, so what is free is not known")
	}
	for no := int64(0); no < p.sb.Chunks(); no++ {
		if !p.meta.has(uint64(no)) {
			continue
		}
		first, end := p.bounds(no)
		for b := first; b < end; b++ {
			if !p.used.has(b) && !p.unsure.has(b) && !p.poison.has(b) {
				return b, nil
			}
		}
	}
	return p.addChunk()
}

// addChunk makes a metadata chunk from free space and returns its first usable block.
//
// Persistence order:
//  1. NT-store empty lines to its header block, SFENCE
//  2. transaction: its header, its bit in the chunk map
func (p *pass) addChunk() (uint64, error) {
	for no := p.sb.FirstChunk() + 1; no < p.sb.Chunks(); no++ {
		first, end := p.bounds(no)
		if first >= end || p.meta.has(uint64(no)) || p.used.hasAny(first-1, end-first+1) || p.unsure.hasAny(first-1, end-first+1) || p.poison.hasAny(first-1, end-first+1) {
			continue
		}
		header := p.sb.ChunkHeader(no)
		if err := p.formatBlock(first-1, nil); err != nil {
			return 0, err
		}
		var l layout.Line
		l.SetChunkHeader(no)
		line, bit := layout.ChunkMapPos(no)
		at := p.sb.ChunkMapOff + line*layout.LineSize
		var m layout.Line
		if err := p.line(at, &m); err != nil {
			return 0, err
		}
		m.SetChunkBit(bit, true)
		if err := p.commit([]change{{header, l}, {at, m}}); err != nil {
			return 0, err
		}
		p.fixes++
		p.meta.set(uint64(no))
		p.used.set(first - 1)
		return first, nil
	}
	return 0, errors.New("there is no free metadata block, nor 2 MiB of free space for more: delete a file and repair again")
}
