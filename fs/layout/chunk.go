package layout

// ChunksPerLine is the number of chunks in one line of the chunk map. The payload of the line is a
// bitmap; bit i is set if chunk i of the line holds metadata.
const ChunksPerLine = PayloadSize * 8

// ChunkMapPos returns the line (counted from ChunkMapOff) and the bit of chunk c.
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

// The header block of a metadata chunk: line 0 identifies the chunk, and lines 1.. hold one byte
// (BlockType) for each block of the chunk. Only inode blocks are listed, because a mount scans
// them. Every other metadata block is found through an inode and has the type BlockOther.
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

// BlockType is the type of a block of a metadata chunk.
type BlockType uint8

// The block types. BlockOther covers free blocks, directory blocks, extent
// blocks and extended attributes.
const (
	BlockOther BlockType = 0
	BlockInode BlockType = 1
)

// TypePos returns the line (within the header block) and the byte of the payload for block i of a
// chunk.
func TypePos(i int) (line, b int) { return ChunkTypeLine0 + i/TypesPerLine, i % TypesPerLine }

// BlockType returns byte i of a type line.
func (l *Line) BlockType(i int) BlockType { return BlockType(l.u8(i)) }

// SetBlockType sets byte i of a type line.
func (l *Line) SetBlockType(i int, t BlockType) { l.put8(i, uint8(t)) }

// SetChunkHeader writes the identity of chunk c to l, line 0 of the header block.
func (l *Line) SetChunkHeader(c int64) {
	l.put32(0, ChunkMagic)
	l.put64(8, uint64(c))
}

// IsChunkHeader reports whether l identifies chunk c.
func (l *Line) IsChunkHeader(c int64) bool { return l.u32(0) == ChunkMagic && l.u64(8) == uint64(c) }
