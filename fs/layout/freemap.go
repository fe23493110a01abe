package layout

import "encoding/binary"

// The saved free map records the owners of data blocks, and which metadata blocks and inode slots
// are free. Without it a mount reads every inode to find that out. The map is stored in free
// blocks, from a clean unmount to the next mount. The owner record refers to it (FreeMapRef).
//
// The map is stored in segments: runs of blocks that each begin with a header line, FreeMapSegment.
// The bytes behind these lines, concatenated, are a sequence of unsigned varints as in
// encoding/binary:
//
//	runs of folios       gap, n<<3 | many<<2 | kind, and count if many is set (else 1)
//	                     kind 0, 1, 2: n blocks in folios of 4 KiB, the chunk size or PUD size.
//	                     The run begins gap blocks behind the end of the previous run, and each of
//	                     its folios has count owners.
//	                     kind 3: n blocks of the preceding large folio that count of its owners
//	                     do not own. They begin gap blocks behind the start of the folio, or
//	                     behind the end of the previous run of kind 3.
//	end of the runs      0, 0
//	metadata chunks      for each, by number: a bitmap (no varint), one bit a block: in use
//	inode blocks with    gap to the previous block number, mask of free slots
//	free slots
//	end of the blocks    0, 0
//	inodes that          gap to the previous inode number
//	compaction looks at
//	end of the inodes    0

// FreeMapRef locates a saved free map.
type FreeMapRef struct {
	Block uint64 // first block of the first segment
	Len   uint64 // length in bytes, without the header lines of the segments
	CRC   uint32 // CRC-32C of these bytes, continued from the filesystem's seed
}

// FreeMapMax is the largest size in bytes of a free map that is saved.
const FreeMapMax = 256 << 20

// FreeMapMagic marks the header line of a segment: "FMAP".
const FreeMapMagic = 0x50414d46

// FreeMapSegment is the header line of a segment.
//
//	offset size field
//	0      4    FreeMapMagic
//	4      4    index, from 0
//	8      8    next segment (block number, 0: none)
//	16     8    length in blocks
//	24     4    mount count of the owner record
type FreeMapSegment struct {
	Index  uint32 // from 0
	Next   uint64 // first block of the next segment; 0: this is the last one
	Blocks uint64 // length in blocks
	Mounts uint32 // mount count of the owner record
}

// Put writes s into l.
func (s *FreeMapSegment) Put(l *Line) {
	l.put32(0, FreeMapMagic)
	l.put32(4, s.Index)
	l.put64(8, s.Next)
	l.put64(16, s.Blocks)
	l.put32(24, s.Mounts)
}

// Get reads s from l and reports whether l is the header line of a segment.
func (s *FreeMapSegment) Get(l *Line) bool {
	*s = FreeMapSegment{Index: l.u32(4), Next: l.u64(8), Blocks: l.u64(16), Mounts: l.u32(24)}
	return l.u32(0) == FreeMapMagic
}

// FreeMapRun is one run of the first part of the map: N blocks from Block on. Count is the number
// of owners of each folio. For FreeMapMissing, Count is the number of owners that do not own the
// blocks.
type FreeMapRun struct {
	Block, N, Count uint64
	Kind            uint8 // 0, 1, 2: the size of the folios; or FreeMapMissing
}

// FreeMapMissing is the kind of a run of blocks that some owners of a large folio do not own.
const FreeMapMissing = 3

// FreeMapWriter builds a free map in B. The elements of each part are added in ascending order, and
// each part but the bitmaps is finished by End.
type FreeMapWriter struct {
	B       []byte
	at      uint64 // block or inode number from which the next gap is counted
	missing uint64 // block from which the next gap of a FreeMapMissing run is counted
}

func (w *FreeMapWriter) put(v uint64) { w.B = binary.AppendUvarint(w.B, v) }

// Run appends a run of blocks.
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

// Bits appends the bitmap of the blocks in use of a metadata chunk.
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

// End finishes a part with n zeros: n is the number of varints of each of its elements.
func (w *FreeMapWriter) End(n int) {
	w.B = append(w.B, make([]byte, n)...)
	w.at = 0
}

// FreeMapReader reads what a FreeMapWriter wrote. It trusts none of the bytes: at the first
// malformed element it stops, and Done returns false.
type FreeMapReader struct {
	b           []byte
	blocks      uint64 // size of the filesystem in blocks
	at, missing uint64 // as in FreeMapWriter
	bad         bool
}

// NewFreeMapReader returns a reader of b, the free map of a filesystem of the given size in blocks.
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

// Run returns the next run; ok is false at the end of the part.
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

// Bits returns the next n bytes, or nil if fewer are left.
func (r *FreeMapReader) Bits(n int) (b []byte) {
	if len(r.b) < n {
		r.bad, r.b = true, nil
		return nil
	}
	b, r.b = r.b[:n], r.b[n:]
	return b
}

// Slots returns the next inode block and the mask of its free slots; ok is false at the end of the
// part.
func (r *FreeMapReader) Slots() (block uint64, mask uint16, ok bool) {
	block, ok = r.number(r.blocks)
	v := r.get()
	if ok && (v == 0 || v >= 1<<InodesPerBlock) {
		r.bad = true
	}
	return block, uint16(v), ok && !r.bad
}

// Ino returns the next inode number; ok is false at the end of the part.
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

// Done reports whether all bytes were read and were well-formed.
func (r *FreeMapReader) Done() bool { return !r.bad && len(r.b) == 0 }
