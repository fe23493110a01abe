package layout

// ChunksPerLine is how many chunks one line of the chunk map speaks for: its
// payload is a bitmap, bit i set when chunk i of the line holds metadata.
const ChunksPerLine = PayloadSize * 8

// ChunkMapPos gives the line (counted from ChunkMapOff) and bit of chunk c.
func ChunkMapPos(c int64) (line int64, bit int) { return c / ChunksPerLine, int(c % ChunksPerLine) }

// ChunkBit reports bit i of a chunk-map line.
func (l *Line) ChunkBit(i int) bool { return l[PayloadOff+i/8]&(1<<(i%8)) != 0 }

// SetChunkBit sets or clears bit i of a chunk-map line.
func (l *Line) SetChunkBit(i int, on bool) {
	if on {
		l[PayloadOff+i/8] |= 1 << (i % 8)
	} else {
		l[PayloadOff+i/8] &^= 1 << (i % 8)
	}
}

// The header block of a metadata chunk: line 0 identifies it, lines 1.. carry one
// byte per block of the chunk: its BlockType. Only inode blocks must be listed
// (they are what a mount scans); every other metadata block is found through an
// inode and is BlockOther.
//
// Header line payload:
//
//	offset size field
//	0      4    ChunkMagic
//	4      4    reserved
//	8      8    chunk number
const (
	ChunkMagic     = 0x4b4e4843 // "CHNK"
	TypesPerLine   = PayloadSize
	ChunkTypeLine0 = 1
)

// BlockType is what a block of a metadata chunk holds.
type BlockType uint8

// The block types. BlockOther covers free blocks, directory blocks, extent
// blocks and extended attributes.
const (
	BlockOther BlockType = 0
	BlockInode BlockType = 1
)

// TypePos gives the line (within the header block) and byte of block i of a chunk.
func TypePos(i int) (line, b int) { return ChunkTypeLine0 + i/TypesPerLine, i % TypesPerLine }

// BlockType returns byte i of a type line.
func (l *Line) BlockType(i int) BlockType { return BlockType(l.u8(i)) }

// SetBlockType sets byte i of a type line.
func (l *Line) SetBlockType(i int, t BlockType) { l.put8(i, uint8(t)) }

// SetChunkHeader makes l the identifying line of chunk c.
func (l *Line) SetChunkHeader(c int64) {
	l.put32(0, ChunkMagic)
	l.put64(8, uint64(c))
}

// IsChunkHeader reports whether l identifies chunk c.
func (l *Line) IsChunkHeader(c int64) bool { return l.u32(0) == ChunkMagic && l.u64(8) == uint64(c) }
