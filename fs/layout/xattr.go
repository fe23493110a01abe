package layout

import "encoding/binary"

// Extended attributes of an inode are a list in a chain of metadata blocks from Times.XattrRoot.
// The chain is never changed in place: a change writes a new chain, then a transaction moves the
// root. Values longer than XattrInline bytes are in data blocks of their own.
//
// XattrBlock is the header line of a block of the chain. The payloads of the block's other 63
// lines, concatenated, are its part of the list.
//
//	offset size field
//	0      4    XattrBlockMagic
//	4      4    index of the block in the chain, from 0
//	8      8    owner's inode number
//	16     8    next block (block number, 0: none)
//	24     4    owner's generation
//	28     4    bytes of the list in this block, 1..XattrBlockBytes
type XattrBlock struct {
	Index uint32 // in the chain, from 0
	Owner uint64 // inode number
	Next  uint64 // block number; 0: none
	Gen   uint32 // generation of the owner
	Bytes uint32 // bytes of the list in this block
}

const (
	// XattrBlockMagic marks the header line of a block of attributes: "XATB".
	XattrBlockMagic = 0x42544158
	// XattrBlockBytes is the number of bytes of the list that fit one block.
	XattrBlockBytes = (LinesPerBlock - 1) * PayloadSize
	// XattrBlocksMax is the largest number of blocks in a chain.
	XattrBlocksMax = 128
	// XattrInline is the largest size in bytes of a value that is stored in the list.
	XattrInline = 1024
	// XattrValueMax is the largest size of a value in bytes, as XATTR_SIZE_MAX of linux/limits.h.
	XattrValueMax = 64 << 10
)

// Put writes h into l.
func (h *XattrBlock) Put(l *Line) {
	l.put32(0, XattrBlockMagic)
	l.put32(4, h.Index)
	l.put64(8, h.Owner)
	l.put64(16, h.Next)
	l.put32(24, h.Gen)
	l.put32(28, h.Bytes)
}

// Get reads h from l and reports whether l is the header line of a block of attributes.
func (h *XattrBlock) Get(l *Line) bool {
	*h = XattrBlock{Index: l.u32(4), Owner: l.u64(8), Next: l.u64(16), Gen: l.u32(24), Bytes: l.u32(28)}
	return l.u32(0) == XattrBlockMagic && h.Bytes > 0 && h.Bytes <= XattrBlockBytes
}

// Xattr is one entry of the list.
//
//	offset size field
//	0      1    length n of the name, 1..255
//	1      1    reserved, zero
//	2      2    number r of runs; 0: the value is in the entry
//	4      4    length of the value
//	8      4    crc32c of the value, continued from the filesystem's seed
//	12     n    name, with its namespace
//	12+n        the value, or r runs of 12 bytes: 8 first block, 4 length in blocks
type Xattr struct {
	Name  string
	Len   uint32 // of the value, in bytes
	CRC   uint32 // CRC-32C of the value, continued from the filesystem's seed
	Value []byte // nil if Runs hold the value
	Runs  []XattrRun
}

// XattrRun is a run of Len data blocks from Block on that holds a part of a value.
type XattrRun struct {
	Block uint64
	Len   uint32
}

const (
	xattrHead    = 12
	xattrRunSize = 12
)

// Append appends the entry to the list b.
func (x *Xattr) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, uint8(len(x.Name)), 0)
	b = le.AppendUint16(b, uint16(len(x.Runs)))
	b = le.AppendUint32(b, x.Len)
	b = le.AppendUint32(b, x.CRC)
	b = append(b, x.Name...)
	for _, r := range x.Runs {
		b = le.AppendUint64(b, r.Block)
		b = le.AppendUint32(b, r.Len)
	}
	return append(b, x.Value...)
}

// NextXattr decodes the first entry of the list b and returns the bytes that follow it; ok is false
// if the entry is malformed. The value aliases b.
func NextXattr(b []byte) (x Xattr, rest []byte, ok bool) {
	if len(b) < xattrHead {
		return x, nil, false
	}
	le := binary.LittleEndian
	n, r := int(b[0]), int(le.Uint16(b[2:]))
	x.Len, x.CRC = le.Uint32(b[4:]), le.Uint32(b[8:])
	size := int64(n) + int64(r)*xattrRunSize
	if r == 0 {
		size += int64(x.Len)
	}
	reserved := b[1]
	if b = b[xattrHead:]; n == 0 || reserved != 0 || size > int64(len(b)) || x.Len > XattrValueMax || r > XattrValueMax/BlockSize {
		return x, nil, false
	}
	x.Name = string(b[:n])
	if b = b[n:]; r == 0 {
		x.Value = b[:x.Len:x.Len]
		return x, b[x.Len:], true
	}
	blocks := uint64(0)
	for i := 0; i < r; i++ {
		u := XattrRun{le.Uint64(b[i*xattrRunSize:]), le.Uint32(b[i*xattrRunSize+8:])}
		x.Runs = append(x.Runs, u)
		blocks += uint64(u.Len)
	}
	return x, b[r*xattrRunSize:], blocks == (uint64(x.Len)+BlockSize-1)>>BlockShift
}

// Format writes the header and part, this block's part of the list, to b. b is the content of the
// block at region offset off, formatted already.
func (h *XattrBlock) Format(b, part []byte, seed uint32, off int64, seq uint64) {
	var l Line
	h.Put(&l)
	PutLine(b, 0, &l, seed, off, seq)
	for i := 1; len(part) > 0; i++ {
		l = Line{}
		part = part[copy(l.Payload(), part):]
		PutLine(b, i, &l, seed, off, seq)
	}
}

// XattrPart verifies b, the content of the block at region offset off, and returns its header and
// its part of the list.
func XattrPart(b []byte, seed uint32, off int64) (h XattrBlock, part []byte, ok bool) {
	for i := 0; i < LinesPerBlock; i++ {
		l := (*Line)(b[i*LineSize:])
		if !l.Valid(seed, off+int64(i)*LineSize) {
			return h, nil, false
		}
		if i == 0 {
			if !h.Get(l) {
				return h, nil, false
			}
			continue
		}
		part = append(part, l.Payload()...)
	}
	return h, part[:h.Bytes], true
}
