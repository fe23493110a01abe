package layout

import (
	"encoding/binary"
)

// Sizes, in bytes.
const (
	LineSize      = 64
	BlockSize     = 4096
	BlockShift    = 12
	LinesPerBlock = BlockSize / LineSize
)

// Line is one 64-byte metadata line.
//
//	offset size field
//	0      8    seq   sequence of the last transaction that changed the line
//	8      52   payload
//	60     4    crc   crc32c over the line's region offset and bytes 0..59,
//	                  seeded by the filesystem's UUID
type Line [LineSize]byte

const (
	// PayloadOff and PayloadSize are the offset and size in bytes of the payload of a line.
	PayloadOff  = 8
	PayloadSize = 52
	crcOff      = 60
)

// Seed returns the checksum seed of a filesystem, derived from its UUID. Lines left behind by an
// earlier filesystem on the same region therefore never verify.
func Seed(uuid [16]byte) uint32 { return Checksum(0, uuid[:]) }

// lineChecksum computes the checksum of a line at region offset off. It mixes the offset into the
// seed, so that a line copied to another place does not verify there. The mixing must not be
// linear: XORing a value into the seed of a CRC has the same effect as XORing it into the first
// bytes, which are the sequence. A line of sequence s at place A would then verify with sequence s'
// at place B whenever s^s' is A^B. Multiplying the place by 2^64/phi prevents this: the XOR of the
// results for two nearby places is never the XOR of two sequences in use.
func lineChecksum(seed uint32, off int64, l *Line) uint32 {
	place := uint64(off) / LineSize * 0x9e3779b97f4a7c15 >> 32
	return Checksum(seed^uint32(place), l[:crcOff])
}

// Seq returns the sequence of the last transaction that changed the line.
func (l *Line) Seq() uint64 { return binary.LittleEndian.Uint64(l[0:]) }

// Payload returns the part of the line that the owning structure defines.
func (l *Line) Payload() []byte { return l[PayloadOff : PayloadOff+PayloadSize] }

// Seal stores the sequence seq and the checksum for region offset off in the line.
func (l *Line) Seal(seed uint32, off int64, seq uint64) {
	binary.LittleEndian.PutUint64(l[0:], seq)
	binary.LittleEndian.PutUint32(l[crcOff:], lineChecksum(seed, off, l))
}

// Valid reports whether the line's checksum is right for the region offset off.
func (l *Line) Valid(seed uint32, off int64) bool {
	return binary.LittleEndian.Uint32(l[crcOff:]) == lineChecksum(seed, off, l)
}

func (l *Line) u8(i int) uint8        { return l[PayloadOff+i] }
func (l *Line) u16(i int) uint16      { return binary.LittleEndian.Uint16(l[PayloadOff+i:]) }
func (l *Line) u32(i int) uint32      { return binary.LittleEndian.Uint32(l[PayloadOff+i:]) }
func (l *Line) u64(i int) uint64      { return binary.LittleEndian.Uint64(l[PayloadOff+i:]) }
func (l *Line) put8(i int, v uint8)   { l[PayloadOff+i] = v }
func (l *Line) put16(i int, v uint16) { binary.LittleEndian.PutUint16(l[PayloadOff+i:], v) }
func (l *Line) put32(i int, v uint32) { binary.LittleEndian.PutUint32(l[PayloadOff+i:], v) }
func (l *Line) put64(i int, v uint64) { binary.LittleEndian.PutUint64(l[PayloadOff+i:], v) }

// FormatBlock fills b (BlockSize bytes, for region offset off) with 64 valid empty lines of
// sequence seq.
func FormatBlock(b []byte, seed uint32, off int64, seq uint64) {
	var l Line
	for i := 0; i < LinesPerBlock; i++ {
		l.Seal(seed, off+int64(i)*LineSize, seq)
		copy(b[i*LineSize:], l[:])
	}
}

// PutLine seals l as line i of the block at region offset off, and copies it into b, that block's
// content.
func PutLine(b []byte, i int, l *Line, seed uint32, off int64, seq uint64) {
	l.Seal(seed, off+int64(i)*LineSize, seq)
	copy(b[i*LineSize:(i+1)*LineSize], l[:])
}
