package fsck

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// extentHeader is the header of an extent block found by a scan of all metadata blocks.
type extentHeader struct {
	block uint64
	layout.ExtentBlock
}

// extentBlocksOf returns the extent blocks whose owner is ino.
func (p *pass) extentBlocksOf(ino uint64) []extentHeader {
	if p.exts == nil {
		p.exts = map[uint64][]extentHeader{}
		p.metaBlocks(func(b uint64) {
			var l layout.Line
			var h layout.ExtentBlock
			if p.line(int64(b)<<layout.BlockShift, &l) == nil && h.Get(&l) {
				p.exts[h.Owner] = append(p.exts[h.Owner], extentHeader{b, h})
			}
		})
	}
	return p.exts[ino]
}

// chainRoot finds the root of an inode's chain of extent blocks on the media: the block with the
// highest index from which the chain leads down to index 0. ok is false if blocks were found but no
// complete chain.
func (p *pass) chainRoot(ino uint64, gen uint32) (root uint64, ok bool) {
	list := p.extentBlocksOf(ino)
	byBlock := map[uint64]layout.ExtentBlock{}
	for _, h := range list {
		if h.Gen == gen {
			byBlock[h.block] = h.ExtentBlock
		}
	}
	best := int64(-1)
	for _, h := range list { // in order, so that the choice between equal roots is always the same
		if h.Gen != gen {
			continue
		}
		at, whole := h.ExtentBlock, true
		for at.Index > 0 && whole {
			n, found := byBlock[at.Next]
			whole = found && n.Index == at.Index-1
			at = n
		}
		if whole && at.Next == 0 && int64(h.Index) > best {
			root, best = h.block, int64(h.Index)
		}
	}
	return root, best >= 0 || len(byBlock) == 0
}

// lostTimes makes a times line for an inode whose times line is damaged. It takes the roots from
// the blocks found on the media, and the times from the live line if that is valid.
func (p *pass) lostTimes(ino uint64, gen uint32, live *layout.Line) (t layout.Times, ok bool) {
	if live != nil {
		var v layout.Live
		if v.Get(live); v.Gen == gen {
			t.Atime, t.Mtime, t.Ctime, t.Btime = v.Atime, v.Mtime, v.Ctime, v.Ctime
		}
	}
	t.ExtentRoot, ok = p.chainRoot(ino, gen)
	t.XattrRoot = p.newestXattrs(ino, gen)
	return t, ok
}

// xattrHeader reads the header of the attribute block b.
func (p *pass) xattrHeader(b uint64) (h layout.XattrBlock, ok bool) {
	var l layout.Line
	ok = b != 0 && p.metaBlock(b) && p.line(int64(b)<<layout.BlockShift, &l) == nil && h.Get(&l)
	return h, ok
}

// newestXattrs finds the newest complete attribute list of an inode on the media, and returns its
// first block, or 0. Old lists persist until their blocks are reused, so a removed attribute may
// reappear, which is better than losing all attributes.
func (p *pass) newestXattrs(ino uint64, gen uint32) (root uint64) {
	if p.lists == nil {
		p.lists = map[uint64][]uint64{}
		p.metaBlocks(func(b uint64) {
			if h, ok := p.xattrHeader(b); ok && h.Index == 0 {
				p.lists[h.Owner] = append(p.lists[h.Owner], b)
			}
		})
	}
	best := uint64(0)
	for _, b := range p.lists[ino] {
		var l layout.Line
		if p.line(int64(b)<<layout.BlockShift, &l) == nil && l.Seq() >= best && p.lookXattrs(ino, gen, b).bad == "" {
			root, best = b, l.Seq()
		}
	}
	return root
}

// metaBlocks calls f for each block of the metadata chunks except headers and inode blocks.
func (p *pass) metaBlocks(f func(b uint64)) {
	for no := int64(0); no < p.sb.Chunks(); no++ {
		if !p.meta.has(uint64(no)) {
			continue
		}
		for b, end := p.bounds(no); b < end; b++ {
			if !p.inoB.has(b) {
				f(b)
			}
		}
	}
}

// mendChain returns a fix that sets the inode's root to the best chain on the media. It only does
// so if the root itself is wrong: a chain that is broken further down still has slots that would be
// lost, so the user has to decide.
func (p *pass) mendChain(ino uint64, io int64, gen uint32, atRoot bool) func() error {
	return func() error {
		if !atRoot {
			return errors.New("the chain is broken after its first block")
		}
		root, ok := p.chainRoot(ino, gen)
		if !ok || root == 0 {
			return errors.New("no whole chain was found")
		}
		return p.edit(io+layout.InodeTimesOff, func(l *layout.Line) {
			var t layout.Times
			t.Get(l)
			t.ExtentRoot = root
			t.Put(l)
		})()
	}
}

// rebuild judges the inodes with a damaged core line, now that all names are known. An inode with a
// name gets a core line from its dentry and its extents, without its owner and permissions. An
// inode without a name becomes a free slot, as most slots are.
func (p *pass) rebuild() {
	for _, b := range p.inodeBlocks {
		for _, in := range p.inodes[b] {
			if in.state == slotDamaged && in.links > 0 && (in.typ == syscall.DT_DIR || in.typ == 0) {
				p.namesLost = true // its names are unknown, so other inodes may seem nameless
			}
		}
	}
	for _, b := range p.inodeBlocks {
		for i := range p.inodes[b] {
			in := &p.inodes[b][i]
			if in.state != slotDamaged {
				continue
			}
			io := int64(b)<<layout.BlockShift + int64(i)*layout.InodeSize
			ino := p.sb.InodeAt(io)
			if knownType(in.mode) || in.mode == 0 {
				lost := ""
				if in.links > 0 || ino == layout.RootIno {
					uid, gid, mode := p.madeOwner(ino)
					if isDir := in.typ == syscall.DT_DIR; isDir {
						mode |= 0o100
					}
					lost = fmt.Sprintf("; a repair loses its owner, permissions, flags and project: it becomes user %d's and group %d's with mode %#o (symbolic links: 0777)", uid, gid, mode)
				}
				p.problem(InodeCore, ino, io, p.makeCore(ino, io, in), "the core line of inode %d at offset %d has a wrong checksum%s", ino, io, lost)
			} else {
				p.problem(InodeMode, ino, io, p.makeCore(ino, io, in), "inode %d at offset %d has mode %#o, which has no valid file type", ino, io, in.mode)
			}
		}
	}
}

// madeOwner returns the owner and permissions for an inode whose own are lost. No other user may
// get access to it, so it becomes root's, except that the root directory goes to the user that made
// the filesystem.
func (p *pass) madeOwner(ino uint64) (uid, gid uint32, mode uint16) {
	if ino == layout.RootIno {
		return p.sb.UID, p.sb.GID, 0o600
	}
	return 0, 0, 0o600
}

// makeCore returns a fix that writes a new core line for a damaged inode.
func (p *pass) makeCore(ino uint64, io int64, in *inodeInfo) func() error {
	return func() error {
		var first, times, core layout.Line
		haveFirst := p.line(io+layout.InodeExtentOff, &first) == nil
		haveTimes := p.line(io+layout.InodeTimesOff, &times) == nil
		var t layout.Times
		t.Get(&times)
		c := layout.Core{Gen: p.guessGen(ino, io, t.ExtentRoot, t.XattrRoot), Nlink: max(in.links, 1), Parent: in.from}
		c.UID, c.GID, _ = p.madeOwner(ino)
		end := uint64(0)
		if haveFirst {
			for _, e := range slots(nil, &first, io+layout.InodeExtentOff) {
				end = max(end, e.Logical+uint64(e.Len))
			}
		}
		if haveTimes && t.ExtentRoot != 0 {
			for _, e := range p.lookContent(ino, io, c.Gen, t.ExtentRoot, nil, p.o.Workers).list {
				end = max(end, e.Logical+uint64(e.Len))
			}
		}
		c.Size = min(end, p.sb.Blocks()) << layout.BlockShift
		if p.line(io, &core) == nil && in.typ != 0 { // everything but the type is right
			c.Get(&core)
			c.Mode = c.Mode&^syscall.S_IFMT | uint16(in.typ)<<12
			c.Put(&core)
			return p.commit([]change{{io, core}})
		}
		switch in.typ {
		case syscall.DT_DIR:
			c.Mode, c.Nlink = syscall.S_IFDIR|0o700, 2
		case syscall.DT_REG:
			c.Mode = syscall.S_IFREG | 0o600
		case syscall.DT_LNK:
			c.Mode = syscall.S_IFLNK | 0o777
			if n := bytes.IndexByte(first.Payload(), 0); haveFirst && n != 0 { // an extent begins with zeros, since it is of file block 0
				if n < 0 {
					n = layout.InlineSize
				}
				c.Format, c.Size = layout.FormatInline, uint64(n)
			} else {
				return errors.New("the target of the symbolic link is not known for sure")
			}
		case syscall.DT_FIFO, syscall.DT_SOCK, syscall.DT_CHR, syscall.DT_BLK:
			c.Mode, c.Size = uint16(in.typ)<<12|0o600, 0
		default:
			if in.links > 0 {
				return errors.New("its type is not known")
			}
			if p.namesLost {
				return errors.New("a directory that cannot be read may contain its name")
			}
			c = layout.Core{Gen: c.Gen} // all names were read, and none leads to it
		}
		var l layout.Line
		c.Put(&l)
		return p.commit([]change{{io, l}})
	}
}

// guessGen returns the generation of a damaged inode, as far as the media still have it: from its
// extent blocks, its attributes or its live line.
func (p *pass) guessGen(ino uint64, io int64, root, xattrs uint64) uint32 {
	if root != 0 {
		for _, h := range p.extentBlocksOf(ino) {
			if h.block == root {
				return h.Gen
			}
		}
	}
	if h, ok := p.xattrHeader(xattrs); ok && h.Owner == ino {
		return h.Gen
	}
	var l layout.Line
	var v layout.Live
	if p.line(io+layout.InodeLiveOff, &l) == nil {
		if v.Get(&l); v.Gen != 0 {
			return v.Gen
		}
	}
	return uint32(p.seq.Load()) | 1
}
