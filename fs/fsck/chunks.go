package fsck

import (
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// bounds returns the usable blocks of metadata chunk no, as region blocks [first, end): after the
// chunk's header, and before the slots.
func (p *pass) bounds(no int64) (first, end uint64) {
	first = uint64(p.sb.ChunkHeader(no))>>layout.BlockShift + 1
	end = min(uint64(no+1)<<(p.sb.ChunkShift-layout.BlockShift), uint64(p.sb.DataEnd())>>layout.BlockShift)
	return first, max(first, end)
}

// chunkOf returns the number of the chunk that contains a region block.
func (p *pass) chunkOf(block uint64) uint64 { return block >> (p.sb.ChunkShift - layout.BlockShift) }

// isHeader reports whether the media have a valid header of metadata chunk no.
func (p *pass) isHeader(no int64) bool {
	var l layout.Line
	return p.line(p.sb.ChunkHeader(no), &l) == nil && l.IsChunkHeader(no)
}

// chunks finds the metadata chunks and the inode blocks in them.
func (p *pass) chunks() {
	chunks := p.sb.Chunks()
	for i := int64(0); i < p.sb.ChunkMapLines; i++ {
		off := p.sb.ChunkMapOff + i*layout.LineSize
		var l layout.Line
		if err := p.line(off, &l); err != nil {
			// Use the headers instead. A header may be left over from a metadata chunk that is a
			// data chunk now: decideGuesses then ignores it.
			l = layout.Line{}
			for b := 0; b < layout.ChunksPerLine && i*layout.ChunksPerLine+int64(b) < chunks; b++ {
				no := i*layout.ChunksPerLine + int64(b)
				is := no >= p.sb.FirstChunk() && p.isHeader(no)
				if l.SetChunkBit(b, is); is && no > p.sb.FirstChunk() {
					p.maybe.set(uint64(no))
				}
			}
			p.unreadable(ChunkMap, 0, off, err, p.put1(off, l), "the chunk map's line")
		}
		for b := 0; b < layout.ChunksPerLine; b++ {
			no := i*layout.ChunksPerLine + int64(b)
			set := l.ChunkBit(b)
			if set && (no >= chunks || no < p.sb.FirstChunk()) {
				p.problem(ChunkMapBit, 0, off, p.edit(off, func(l *layout.Line) { l.SetChunkBit(b, false) }),
					"the chunk map has chunk %d as a metadata chunk, expected chunks %d to %d only", no, p.sb.FirstChunk(), chunks-1)
				continue
			}
			if !set && no == p.sb.FirstChunk() {
				p.problem(ChunkMapBit, 0, off, p.edit(off, func(l *layout.Line) { l.SetChunkBit(b, true) }),
					"the chunk map does not have the first metadata chunk %d", no)
				set = true
			}
			if set {
				p.chunk(no)
			}
		}
	}
}

// chunk reads the header and the block types of metadata chunk no.
func (p *pass) chunk(no int64) {
	off := p.sb.ChunkHeader(no)
	p.rep.MetaChunks++
	p.meta.set(uint64(no))
	first, end := p.bounds(no)
	if p.bad.has(first - 1) {
		p.problem(ExtentReserved, 0, off, nil, "the header of metadata chunk %d is in a bad range, at block %d", no, first-1)
	}
	p.used.set(first - 1)
	var l layout.Line
	if err := p.line(off, &l); err != nil || !l.IsChunkHeader(no) {
		l = layout.Line{}
		l.SetChunkHeader(no)
		if fix := p.put1(off, l); err != nil {
			p.unreadable(ChunkHeader, 0, off, err, fix, "the header of a metadata chunk")
		} else {
			p.problem(ChunkHeader, 0, off, fix, "the line at offset %d is not the header of metadata chunk %d", off, no)
		}
	}
	start := uint64(no) << (p.sb.ChunkShift - layout.BlockShift)
	for b := first; b < end; {
		line, _ := layout.TypePos(int(b - start))
		lineOff := off + int64(line)*layout.LineSize
		last := min(end, start+uint64((line-layout.ChunkTypeLine0+1)*layout.TypesPerLine))
		if err := p.line(lineOff, &l); err != nil {
			l = layout.Line{}
			for k := b; k < last; k++ {
				if _, i := layout.TypePos(int(k - start)); p.looksLikeInodes(k) {
					l.SetBlockType(i, layout.BlockInode)
				} else {
					p.unsure.set(k)
				}
			}
			if !p.unreadable(ChunkTypes, 0, lineOff, err, p.put1(lineOff, l), "a line of block types") {
				p.namesLost = true
			}
		}
		for ; b < last; b++ {
			_, i := layout.TypePos(int(b - start))
			switch t := l.BlockType(i); t {
			case layout.BlockOther:
			case layout.BlockInode:
				p.addInodeBlock(b)
			default:
				ok := p.looksLikeInodes(b)
				if !ok {
					p.unsure.set(b)
				}
				p.problem(ChunkType, 0, lineOff, p.edit(lineOff, func(l *layout.Line) {
					if l.SetBlockType(i, layout.BlockOther); ok {
						l.SetBlockType(i, layout.BlockInode)
					}
				}), "block %d has the unknown type %d", b, t)
				if ok {
					p.addInodeBlock(b)
				}
			}
		}
	}
}

// decideGuesses drops the metadata chunks that were only guessed from their header, if they hold no
// inode and some file has data in them.
func (p *pass) decideGuesses() {
	for _, b := range p.inodeBlocks {
		p.maybe.unset(p.chunkOf(b))
	}
	if !slices.ContainsFunc(p.maybe, func(w uint64) bool { return w != 0 }) {
		return
	}
	data := map[uint64]bool{}
	batches(p.o.Workers, len(p.inodeBlocks), lookBlocks, func(lo, hi int) (list []slotExtent) {
		for _, b := range p.inodeBlocks[lo:hi] {
			list = append(list, p.fileExtents(b)...)
		}
		return list
	}, func(_ int, list []slotExtent) {
		for _, e := range list {
			for ch := p.chunkOf(e.Block); ch <= p.chunkOf(e.Block+uint64(e.Len)-1); ch++ {
				if p.maybe.has(ch) {
					data[ch] = true
				}
			}
		}
	})
	for ch := range data {
		p.meta.unset(ch)
		first, _ := p.bounds(int64(ch))
		p.used.unset(first - 1)
		p.rep.MetaChunks--
		line, bit := layout.ChunkMapPos(int64(ch))
		p.silently(p.edit(p.sb.ChunkMapOff+line*layout.LineSize, func(l *layout.Line) { l.SetChunkBit(bit, false) }))
	}
}

// fileExtents returns the extents of the regular files in an inode block, as far as they lie within
// the filesystem.
func (p *pass) fileExtents(b uint64) (list []slotExtent) {
	k := p.look(b)
	for s := range k.in {
		core, times := k.line(4*s), k.line(4*s+layout.InodeTimesOff/layout.LineSize)
		var c layout.Core
		if k.err != nil || core == nil || times == nil {
			continue
		}
		if c.Get(core); c.Mode&syscall.S_IFMT != syscall.S_IFREG || c.Nlink == 0 {
			continue
		}
		x := k.in[s].content
		if x == nil {
			var t layout.Times
			t.Get(times)
			io := int64(b)<<layout.BlockShift + int64(s)*layout.InodeSize
			x = p.lookContent(p.sb.InodeAt(io), io, c.Gen, t.ExtentRoot, k.line(4*s+layout.InodeExtentOff/layout.LineSize), 1)
		}
		for _, e := range x.list {
			if e.Block < p.sb.Blocks() && uint64(e.Len) <= p.sb.Blocks()-e.Block {
				list = append(list, e)
			}
		}
	}
	return list
}

// addInodeBlock claims an inode block and adds it to those to check.
func (p *pass) addInodeBlock(b uint64) {
	if p.bad.has(b) {
		p.problem(ExtentReserved, 0, int64(b)<<layout.BlockShift, nil, "inode block %d is in a bad range", b)
	}
	p.used.set(b)
	p.inoB.set(b)
	p.inodeBlocks = append(p.inodeBlocks, b)
	p.rep.InodeBlocks++
}

// looksLikeInodes reports whether a block of unknown type is an inode block: at least half of the
// slots verify, and all that verify are inodes or free slots with a generation. Dentries and
// extents cannot look like that. The lines after the header of an attribute block can, since users
// choose their content, so such blocks are excluded.
func (p *pass) looksLikeInodes(b uint64) bool {
	off := int64(b) << layout.BlockShift
	n := 0
	var first layout.Line
	var x layout.XattrBlock
	var e layout.ExtentBlock
	if p.line(off, &first) != nil || x.Get(&first) || e.Get(&first) {
		return false
	}
	for i := int64(0); i < layout.InodesPerBlock; i++ {
		var l layout.Line
		if p.line(off+i*layout.InodeSize, &l) != nil {
			continue
		}
		n++
		var c layout.Core
		if c.Get(&l); c.Gen == 0 || c.Mode == 0 && c.Nlink != 0 || c.Mode != 0 && !knownType(c.Mode) || c.Format&^(layout.FormatInline|layout.FormatTruncating) != 0 {
			return false
		}
	}
	return n >= layout.InodesPerBlock/2
}

// knownType reports whether mode has a valid file type.
func knownType(mode uint16) bool {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
		return true
	}
	return false
}
