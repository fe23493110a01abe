package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// crafter changes an image like an attacker who knows the format: fields get values that mean
// something elsewhere, and each changed structure a right checksum. A script selects the changes:
// one byte for each step, followed by the step's operands.
type crafter struct {
	*target
	script []byte

	dentries []int64  // offsets of head lines
	inodes   []uint64 // used, free and impossible inode numbers
	slots    []int64  // offsets of lines of extent slots
	chains   []int64  // offsets of headers of extent blocks
	lists    []int64  // offsets of headers of attribute blocks
	blocks   []uint64 // blocks in use
	headers  []int64  // offsets of headers of metadata chunks
}

func newCrafter(t testing.TB) *crafter {
	w := build(t)
	w.mounted(w.furnish)
	c := &crafter{target: targetOf(w)}
	c.collect()
	return c
}

// furnish adds to build's files: long names, a directory of several blocks, a deep one, large and
// shared extents, a hole, unwritten blocks, an attribute list in several blocks.
func (w *world) furnish() {
	w.mkdir("/many")
	for i := range 100 {
		w.file("/many/"+strings.Repeat("n", i*2)+fmt.Sprint(i), 0)
	}
	path := ""
	for i := range 6 {
		path += fmt.Sprint("/deep", i)
		w.mkdir(path)
	}
	w.file(path+"/leaf", 10)
	w.file("/large", 300<<10)
	w.file("/copy", 1)
	w.Clone(w.ino["/large"], 0, w.ino["/copy"], 0, 200<<10)
	w.file("/holes", 4096)
	w.Fallocate(w.ino["/holes"], fs.FallocKeepSize, 1<<20, 64<<10)
	for i := range 8 {
		w.SetXattr(w.ino["/large"], fmt.Sprint("user.", i), bytes.Repeat([]byte{'x'}, 900))
	}
}

// collect finds the structures of the image.
func (c *crafter) collect() {
	for off := c.sb.StaticEnd; off < c.sb.BackupOff; off += layout.LineSize {
		var l layout.Line
		c.R.LoadLine(off, (*[layout.LineSize]byte)(&l))
		if !l.Valid(c.seed, off) {
			continue
		}
		var e layout.ExtentBlock
		var x layout.XattrBlock
		switch {
		case e.Get(&l):
			c.chains = append(c.chains, off)
			for i := int64(1); i < layout.LinesPerBlock; i++ {
				c.slots = append(c.slots, off+i*layout.LineSize)
			}
		case x.Get(&l):
			c.lists = append(c.lists, off)
		case l.IsChunkHeader(off >> c.sb.ChunkShift):
			c.headers = append(c.headers, off)
		}
	}
	c.inodes = []uint64{0, 200, uint64(size)/layout.InodeSize - 1, 1 << 40, math.MaxUint64}
	for _, path := range sortedKeys(c.ino) {
		ino := c.ino[path]
		c.inodes = append(c.inodes, ino)
		c.slots = append(c.slots, c.sb.InodeOff(ino)+layout.InodeExtentOff)
		c.blocks = append(c.blocks, c.owned[path]...)
		if off := c.sb.InodeOff(ino); len(c.owned[path]) > 0 {
			var l layout.Line
			var k layout.Core
			c.R.LoadLine(off, (*[layout.LineSize]byte)(&l))
			if k.Get(&l); k.Mode&syscall.S_IFMT == syscall.S_IFDIR {
				for _, b := range c.owned[path] {
					c.names(int64(b) << layout.BlockShift)
				}
			}
		}
	}
	c.blocks = append(c.blocks, 0, 1, uint64(c.sb.StaticEnd>>12), uint64(c.sb.InodeBase>>12), uint64(c.sb.BackupOff>>12), c.sb.Blocks(), c.sb.Blocks()/2, 1<<52)
}

// names collects the head lines of a directory block.
func (c *crafter) names(off int64) {
	for i := int64(0); i < layout.LinesPerBlock; i++ {
		var l layout.Line
		at := off + i*layout.LineSize
		if c.R.LoadLine(at, (*[layout.LineSize]byte)(&l)); l.Valid(c.seed, at) && l.DentryKind() == layout.DentryHead {
			c.dentries = append(c.dentries, at)
		}
	}
}

// byte returns the next byte of the script, 0 beyond its end.
func (c *crafter) byte() (b byte) {
	if len(c.script) > 0 {
		b, c.script = c.script[0], c.script[1:]
	}
	return b
}

func pick[T any](c *crafter, of []T) T { return of[(int(c.byte())<<8|int(c.byte()))%len(of)] }

// number returns a value for a field: one of the image, a limit, or a random one.
func (c *crafter) number() uint64 {
	switch k := c.byte(); k % 8 {
	case 0:
		return uint64(c.byte())
	case 1:
		return pick(c, c.blocks)
	case 2:
		return pick(c, c.inodes)
	case 3:
		return uint64(1) << (c.byte() % 64)
	case 4:
		return uint64(1)<<(c.byte()%64) - 1
	case 5:
		return -uint64(c.byte())
	case 6:
		return pick(c, c.blocks) + uint64(int8(c.byte()))
	}
	return uint64(binary.LittleEndian.Uint16([]byte{c.byte(), c.byte()})) << (c.byte() % 48)
}

// craft changes the image as the script says.
func (c *crafter) craft(script []byte) {
	c.script = script
	steps := []func(){c.name, c.core, c.core, c.times, c.slot1, c.slot1, c.chain, c.list, c.chunk, c.bad, c.super, c.state, c.freeMap, c.record, c.transplant}
	for n := 0; len(c.script) > 0 && n < 12; n++ {
		steps[int(c.byte())%len(steps)]()
	}
}

// name changes a directory entry.
func (c *crafter) name() {
	op, off := c.byte()%6, pick(c, c.dentries)
	c.edit(off, func(l *layout.Line) {
		switch p := l.Payload(); op {
		case 0, 1:
			ino := pick(c, c.inodes)
			l.SetDentryTarget(ino, [...]uint8{syscall.DT_DIR, syscall.DT_REG, syscall.DT_LNK, c.byte()}[c.byte()%4])
		case 2:
			p[2] = c.byte() // length
		case 3:
			p[0] = c.byte() % 4 // kind
		case 4:
			p[12+c.byte()%40] = [...]byte{0, '/', '.', '\n', 0x1b, 0xff, c.byte()}[c.byte()%7]
		case 5: // the name of another entry
			var from layout.Line
			c.R.LoadLine(pick(c, c.dentries), (*[layout.LineSize]byte)(&from))
			ino, typ := l.DentryIno(), l.DentryType()
			copy(p, from.Payload())
			l.SetDentryTarget(ino, typ)
		}
	})
}

// inodeOff returns the offset of a possible inode, or of the root.
func (c *crafter) inodeOff() int64 {
	if off := c.sb.InodeOff(pick(c, c.inodes)); off >= 0 && off < c.sb.BackupOff {
		return off
	}
	return c.sb.InodeBase
}

func (c *crafter) core() {
	op := c.byte() % 10
	c.edit(c.inodeOff(), func(l *layout.Line) {
		var k layout.Core
		k.Get(l)
		switch v := c.number(); op {
		case 0:
			k.Mode = k.Mode&0o7777 | uint16(v)<<12
		case 1:
			k.Format = uint16(v)
		case 2:
			k.Nlink = uint32(v)
		case 3, 4:
			k.Size = v
		case 5:
			k.Gen = uint32(v)
		case 6:
			k.Flags = uint32(v)
		case 7, 8:
			k.Parent = pick(c, c.inodes)
		case 9:
			k.Mode = uint16(v)
		}
		k.Put(l)
	})
}

func (c *crafter) times() {
	c.edit(c.inodeOff()+layout.InodeTimesOff, func(l *layout.Line) {
		var t layout.Times
		t.Get(l)
		switch op, v := c.byte()%4, c.number(); op {
		case 0, 1:
			t.ExtentRoot = v
		case 2:
			t.XattrRoot = v
		case 3:
			t.Mtime = int64(v)
		}
		t.Put(l)
	})
}

func (c *crafter) slot1() {
	off := pick(c, c.slots)
	if c.byte()%2 == 0 {
		off = c.inodeOff() + layout.InodeExtentOff
	}
	c.edit(off, func(l *layout.Line) {
		i := int(c.byte() % 2)
		e := l.Extent(i)
		switch op := c.byte() % 7; op {
		case 0:
			e.Logical = c.number()
		case 1:
			e.Block = c.number()
		case 2:
			e.Len = uint32(c.number())
		case 3:
			e.Flags = c.byte()
		case 4:
			e.Dev = c.byte()
		case 5: // another file's
			var from layout.Line
			c.R.LoadLine(pick(c, c.slots), (*[layout.LineSize]byte)(&from))
			e = from.Extent(int(c.byte() % 2))
		case 6: // the whole region, or a small piece of it
			e = layout.Extent{Logical: uint64(c.byte()), Block: pick(c, c.blocks), Len: uint32(c.byte()), Flags: c.byte() % 4}
		}
		l.PutExtent(i, e)
	})
}

func (c *crafter) chain() {
	c.edit(pick(c, c.chains), func(l *layout.Line) {
		var h layout.ExtentBlock
		h.Get(l)
		switch op, v := c.byte()%4, c.number(); op {
		case 0:
			h.Index = uint32(v)
		case 1:
			h.Owner = pick(c, c.inodes)
		case 2:
			h.Next = v
		case 3:
			h.Gen = uint32(v)
		}
		h.Put(l)
	})
}

func (c *crafter) list() {
	off, op := pick(c, c.lists), c.byte()%7
	if op >= 5 { // the content of the list
		line := off + int64(1+c.byte()%8)*layout.LineSize
		c.edit(line, func(l *layout.Line) { l.Payload()[c.byte()%layout.PayloadSize] = c.byte() })
		return
	}
	c.edit(off, func(l *layout.Line) {
		var h layout.XattrBlock
		h.Get(l)
		switch v := c.number(); op {
		case 0:
			h.Index = uint32(v)
		case 1:
			h.Owner = pick(c, c.inodes)
		case 2:
			h.Next = v
		case 3:
			h.Gen = uint32(v)
		case 4:
			h.Bytes = uint32(v)
		}
		h.Put(l)
	})
}

// chunk changes the chunk map, the headers of metadata chunks, and the types of their blocks.
func (c *crafter) chunk() {
	switch c.byte() % 3 {
	case 0:
		line, bit := layout.ChunkMapPos(int64(c.number() % uint64(c.sb.ChunkMapLines*layout.ChunksPerLine)))
		c.edit(c.sb.ChunkMapOff+line*layout.LineSize, func(l *layout.Line) { l.SetChunkBit(bit, !l.ChunkBit(bit)) })
	case 1:
		c.edit(pick(c, c.headers), func(l *layout.Line) { l.SetChunkHeader(int64(c.number())) })
	case 2:
		line, i := layout.TypePos(int(c.byte()) % c.sb.ChunkBlocks())
		c.edit(pick(c, c.headers)+int64(line)*layout.LineSize, func(l *layout.Line) { l.SetBlockType(i, layout.BlockType(c.byte()%3)) })
	}
}

func (c *crafter) bad() {
	c.edit(c.sb.BadOff+int64(c.byte()%layout.LinesPerBlock)*layout.LineSize, func(l *layout.Line) {
		b := layout.BadRange{Block: c.number(), Len: c.number()}
		if c.byte()%2 == 0 && c.sb.Blocks() > b.Block {
			b.Len %= c.sb.Blocks() - b.Block + 1
		}
		b.Put(l)
	})
}

// super changes both superblocks; most of the time the offsets are adapted.
func (c *crafter) super() {
	s := *c.sb
	op, v := c.byte()%14, c.number()
	switch op {
	case 0:
		s.Size = int64(v)
	case 1:
		s.ChunkShift = uint8(v)
	case 2:
		s.PUDShift = uint8(v)
	case 3:
		s.Lanes = uint16(v)
	case 4:
		s.LaneSlot = uint32(v)
	case 5:
		s.Granule = int64(v)
	case 6:
		s.RootBlocks = v
	case 7:
		s.Label = "\x1b[2J" + string([]byte{c.byte(), c.byte()})
	case 8:
		s.Incompat = v % 4
	case 9:
		s.Created = int64(v)
	case 10:
		s.StaticEnd = int64(v)
	case 11:
		s.ChunkMapLines = int64(v)
	case 12:
		s.BackupOff = int64(v)
	case 13:
		s.InodeBase = int64(v)
	}
	if op < 4 && s.Size > 0 && s.ChunkShift < 60 {
		s.Place()
	}
	b := s.Encode()
	c.Store(0, b)
	c.Store(c.sb.BackupOff, b)
}

// state changes the owner record.
func (c *crafter) state() {
	c.edit(c.sb.OwnerOff, func(l *layout.Line) {
		var o layout.Owner
		o.Get(l)
		switch op, v := c.byte()%5, c.number(); op {
		case 0, 1:
			o.State = uint32(v) % 4
		case 2:
			o.Map.Block = v
		case 3:
			o.Map.Len = v
		case 4:
			o.Mounts = uint32(v)
		}
		o.Put(l)
	})
}

// freeMap changes a byte or a number of the saved free map, and its checksum.
func (c *crafter) freeMap() {
	var l, seg layout.Line
	var o layout.Owner
	var h layout.FreeMapSegment
	c.R.LoadLine(c.sb.OwnerOff, (*[layout.LineSize]byte)(&l))
	if o.Get(&l); o.State != layout.OwnerSaved || o.Map.Block >= c.sb.Blocks() || o.Map.Len == 0 || o.Map.Len > 4000 {
		return
	}
	off := int64(o.Map.Block) << layout.BlockShift
	c.R.LoadLine(off, (*[layout.LineSize]byte)(&seg))
	if !h.Get(&seg) || h.Next != 0 {
		return
	}
	b := make([]byte, o.Map.Len)
	c.R.Load(off+layout.LineSize, b)
	for n := 1 + int(c.byte()%3); n > 0; n-- {
		i := int(c.number() % uint64(len(b)))
		switch c.byte() % 3 {
		case 0:
			b[i] ^= c.byte() | 1
		case 1:
			b[i]++
		case 2: // another number, of any length
			b = append(append(bytes.Clone(b[:i]), binary.AppendUvarint(nil, c.number())...), b[i+1:]...)
		}
	}
	b = b[:min(len(b), layout.BlockSize-layout.LineSize)]
	o.Map.Len, o.Map.CRC = uint64(len(b)), layout.Checksum(c.seed, b)
	c.Store(off+layout.LineSize, b)
	c.edit(c.sb.OwnerOff, func(l *layout.Line) { o.Put(l) })
}

// record writes a committed journal record, which changes a random line or data.
func (c *crafter) record() {
	slot := c.sb.LaneOff + int64(c.byte()%4)*int64(c.sb.LaneSlot)
	seq := c.number()
	n, pieces := 1+int(c.byte()%3), 0
	h := layout.RecordHeader{Seq: seq, N: uint32(n)}
	at := slot + layout.LineSize
	if c.byte()%4 == 0 {
		h.At = int64(pick(c, c.blocks) << layout.BlockShift)
		pieces = int(c.byte() % 3)
		at = h.At
	}
	h.Pieces = uint32(pieces)
	body := make([]byte, layout.TablesSize(n, pieces))
	for i := range n {
		off := int64(c.number())
		if c.byte()%2 == 0 {
			off = c.lines[int(c.byte())%len(c.lines)]
		}
		var l layout.Line
		if off >= 0 && off%layout.LineSize == 0 && off < size {
			c.R.LoadLine(off, (*[layout.LineSize]byte)(&l))
		}
		l[layout.PayloadOff+c.byte()%layout.PayloadSize] = c.byte()
		l.Seal(c.seed, off, seq)
		binary.LittleEndian.PutUint64(body[8*i:], uint64(off))
		copy(body[layout.OffsetsSize(n)+i*layout.LineSize:], l[:])
	}
	for i := range pieces {
		k := c.number() % 10000
		binary.LittleEndian.PutUint64(body[layout.TablesSize(n, 0)+16*i:], c.number())
		binary.LittleEndian.PutUint64(body[layout.TablesSize(n, 0)+16*i+8:], k)
		h.Data += uint32(k)
	}
	h.BodyCRC = layout.Checksum(c.seed, body)
	var l layout.Line
	h.Put(&l, c.seed, slot)
	c.Store(slot, l[:])
	if at >= 0 && at <= size-int64(len(body)) {
		c.Store(at, body)
	}
}

// transplant copies a line over another one.
func (c *crafter) transplant() {
	var from layout.Line
	c.R.LoadLine(c.lines[(int(c.byte())<<8|int(c.byte()))%len(c.lines)], (*[layout.LineSize]byte)(&from))
	to := c.lines[(int(c.byte())<<8|int(c.byte()))%len(c.lines)]
	if to < layout.BlockSize/2 {
		return // a superblock has no lines
	}
	c.edit(to, func(l *layout.Line) { copy(l.Payload(), from.Payload()) })
}
