package layout

import "encoding/binary"

// The saved free map is what a mount otherwise finds out by reading every inode: who owns
// which data blocks, which metadata blocks and inode slots are free. It stands in free
// blocks, from a clean unmount to the next mount, and the owner record says where.
//
// It is cut into segments, runs of blocks that each begin with a line, FreeMapSegment. What
// is behind these lines, one after the other, is a row of unsigned varints as
// encoding/binary has them:
//
//	runs of folios       gap, n<<3 | many<<2 | kind, and if many is set count
//	                     kind 0, 1, 2: n blocks in folios of 4 KiB, the chunk's size, the pud
//	                     size, gap blocks behind the run before; owners: count, else 1
//	                     kind 3: of the one large folio before, count (else 1) owners lack n
//	                     blocks, gap blocks behind its begin or the lack before
//	end of these         0, 0
//	metadata chunks      for each, in order: a bitmap of one bit a block, not a varint: taken
//	inode blocks with    gap to the one before, mask of free slots
//	free slots
//	end of these         0, 0
//	inodes that          gap to the one before
//	compaction looks at
//	end of these         0

// FreeMapRef says where a saved free map is.
type FreeMapRef struct {
	Block uint64 // the first segment's first
	Len   uint64 // bytes, without the segments' lines
	CRC   uint32 // of these bytes, from the filesystem's seed
}

// FreeMapMax is the longest free map that is saved, in bytes.
const FreeMapMax = 256 << 20

// FreeMapMagic marks the line of a segment: "FMAP".
const FreeMapMagic = 0x50414d46

// FreeMapSegment is the line that a segment begins with.
//
//	offset size field
//	0      4    FreeMapMagic
//	4      4    index, from 0
//	8      8    next segment (block number, 0: none)
//	16     8    length in blocks
//	24     4    mount count of the owner record
type FreeMapSegment struct {
	Index  uint32
	Next   uint64
	Blocks uint64
	Mounts uint32
}

// Put writes s into l.
func (s *FreeMapSegment) Put(l *Line) {
	l.put32(0, FreeMapMagic)
	l.put32(4, s.Index)
	l.put64(8, s.Next)
	l.put64(16, s.Blocks)
	l.put32(24, s.Mounts)
}

// Get reads s from l and reports whether l is the line of a segment.
func (s *FreeMapSegment) Get(l *Line) bool {
	*s = FreeMapSegment{Index: l.u32(4), Next: l.u64(8), Blocks: l.u64(16), Mounts: l.u32(24)}
	return l.u32(0) == FreeMapMagic
}

// FreeMapRun is one of the runs of folios.
type FreeMapRun struct {
	Block, N, Count uint64
	Kind            uint8 // 0, 1, 2; FreeMapLack
}

// FreeMapMissing is the kind of a run of blocks that owners lack.
const FreeMapMissing = 3

// FreeMapWriter builds a free map in B. What it is given must be in ascending order, and
// each part is ended by End.
type FreeMapWriter struct {
	B       []byte
	at      uint64 // where the gap of the next one begins
	missing uint64 // and of the next lack
}

func (w *FreeMapWriter) put(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Run appends a run.
func (w *FreeMapWriter) Run(r FreeMapRun) {
	from := &w.at
	if r.Kind == FreeMapMissing {
		from = &w.missing
	} else {
		w.missing = r.Block
	}
	w.put(r.Block - *from)
	*from = r.Block + r.N
	v := r.N<<3 | uint64(r.Kind)
	if r.Count == 1 {
		w.put(v)
		return
	}
	w.put(v | 1<<2)
	w.put(r.Count)
}

// Bits appends the bitmap of a metadata chunk.
func (w *FreeMapWriter) Bits(b []byte) { w.B = append(w.B, b...) }

// Slots appends an inode block and the mask of its free slots.
func (w *FreeMapWriter) Slots(block uint64, mask uint16) {
	w.Ino(block)
	w.put(uint64(mask))
}

// Ino appends an inode number.
func (w *FreeMapWriter) Ino(n uint64) {
	w.put(n - w.at)
	w.at = n
}

// End ends a part whose elements are n varints.
func (w *FreeMapWriter) End(n int) {
	w.B = append(w.B, make([]byte, n)...)
	w.at = 0
}

// FreeMapReader reads what a FreeMapWriter wrote. It believes nothing: where the bytes are
// not a free map it ends, and Done is false.
type FreeMapReader struct {
	b           []byte
	blocks      uint64
	at, missing uint64
	bad         bool
}

// NewFreeMapReader reads b, the free map of a filesystem of that many blocks.
func NewFreeMapReader(b []byte, blocks uint64) *FreeMapReader {
	return &FreeMapReader{b: b, blocks: blocks}
}

func (r *FreeMapReader) get() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Run is the next run; false: there are no more.
func (r *FreeMapReader) Run() (x FreeMapRun, ok bool) {
	gap, v := r.get(), r.get()
	x = FreeMapRun{N: v >> 3, Count: 1, Kind: uint8(v & 3)}
	if v&(1<<2) != 0 {
		x.Count = r.get()
	}
	from := &r.at
	if x.Kind == FreeMapMissing {
		from = &r.missing
	}
	if gap == 0 && v == 0 {
		r.at = 0
		return x, false
	}
	if gap > r.blocks-*from || x.N > r.blocks-*from-gap || x.N == 0 || x.Count == 0 {
		r.bad = true
	}
	if r.bad {
		return x, false
	}
	x.Block = *from + gap
	if x.Kind != FreeMapMissing {
		r.missing = x.Block
	}
	*from = x.Block + x.N
	return x, true
}

// Bits is the next n bytes; nil: there are not as many.
func (r *FreeMapReader) Bits(n int) (b []byte) {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	b, r.b = r.b[:n], r.b[n:]
	return b
}

// Slots is the next inode block and its mask; false: there are no more.
func (r *FreeMapReader) Slots() (block uint64, mask uint16, ok bool) {
	block, ok = r.number(r.blocks)
	v := r.get()
	if ok && (v == 0 || v >= 1<<InodesPerBlock) {
		r.bad = true
	}
	return block, uint16(v), ok && !r.bad
}

// Ino is the next inode number; false: there are no more.
func (r *FreeMapReader) Ino() (ino uint64, ok bool) { return r.number(r.blocks * InodesPerBlock) }

func (r *FreeMapReader) number(limit uint64) (n uint64, ok bool) {
	gap := r.get()
	if gap >= limit-r.at {
		r.bad = true
	}
	if gap == 0 || r.bad {
		r.at = 0
		return 0, false
	}
	r.at += gap
	return r.at, true
}

// Done reports whether all of it was a free map.
func (r *FreeMapReader) Done() bool { return !r.bad && len(r.b) == 0 }
