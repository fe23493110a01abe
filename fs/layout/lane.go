package layout

import "encoding/binary"

// A lane has two slots of LaneSlot bytes. A slot holds one redo record:
//
//	offset size field
//	0      8    seq of the transaction
//	8      4    number of lines n, 1..MaxRecordLines(slot)
//	12     4    crc32c of the body
//	16     40   reserved, zero
//	56     4    RecordMagic
//	60     4    crc32c of bytes 0..59, seeded as a line's
//	64     8n   region offset of each line, then zeros to a multiple of 64
//	...    64n  the lines, sealed with seq, complete as they will stand in place
//
// The record is committed when all of it is on media: both checksums are right.
const RecordMagic = 0x5244454c // "LEDR"

// RecordHeader is the first line of a slot.
type RecordHeader struct {
	Seq     uint64
	N       uint32
	BodyCRC uint32
}

// MaxRecordLines is how many lines one record of a slot of the given size holds.
func MaxRecordLines(slot uint32) int {
	n := (int(slot) - LineSize) / (LineSize + 8)
	for RecordSize(n) > int(slot) {
		n--
	}
	return n
}

// OffsetsSize is the size of the offset table of a record of n lines in bytes.
func OffsetsSize(n int) int { return (8*n + LineSize - 1) &^ (LineSize - 1) }

// RecordSize is the size of a record of n lines in bytes.
func RecordSize(n int) int { return LineSize + OffsetsSize(n) + LineSize*n }

// Put writes h into the first line of a slot at region offset off.
func (h *RecordHeader) Put(b *Line, seed uint32, off int64) {
	*b = Line{}
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.Seq)
	le.PutUint32(b[8:], h.N)
	le.PutUint32(b[12:], h.BodyCRC)
	le.PutUint32(b[56:], RecordMagic)
	le.PutUint32(b[crcOff:], lineChecksum(seed, off, b))
}

// Get reads h and reports whether b is a valid header for a slot of the given size.
func (h *RecordHeader) Get(b *Line, seed uint32, off int64, slot uint32) bool {
	le := binary.LittleEndian
	*h = RecordHeader{Seq: le.Uint64(b[0:]), N: le.Uint32(b[8:]), BodyCRC: le.Uint32(b[12:])}
	return le.Uint32(b[56:]) == RecordMagic && b.Valid(seed, off) && h.N > 0 && h.N <= uint32(MaxRecordLines(slot))
}
