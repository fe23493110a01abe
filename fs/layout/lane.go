package layout

import "encoding/binary"

// A lane has two slots of LaneSlot bytes. A slot holds one redo record:
//
//	offset size field
//	0      8    seq of the transaction
//	8      4    number of lines n
//	12     4    crc32c of the tables and the lines
//	16     8    region offset of the body of a logged record; 0: it follows the header
//	24     4    number of pieces p
//	28     4    bytes of data in all pieces
//	32     24   reserved, zero
//	56     4    RecordMagic
//	60     4    crc32c of bytes 0..59, seeded as a line's
//	body:
//	0      8n   region offset of each line, then zeros to a multiple of 64
//	...    64n  the lines, sealed with seq, exactly as they will be in place
//	...    16p  region offset and length of each piece, then zeros to a multiple of 64
//	...         the data of the pieces, concatenated
//
// The record is committed when all of it is on media: both checksums match and every line is valid
// for its offset, with the record's seq. The data has no checksum. It is durable before the header
// is stored.
//
// A logged record carries file data, or more lines than fit a slot. Its body is in free blocks,
// never in a slot: there, data that a user writes could be taken for the lines of an older record.
// The record is checkpointed before anything it holds may change again and before its body's blocks
// are reused.
const RecordMagic = 0x5244454c // "LEDR"

// LoggedMax is the limit for the lines, and for the pieces, of a logged record. LoggedData is the
// limit for its data in bytes.
const (
	LoggedData = 1 << 20
	LoggedMax  = LoggedData/BlockSize + 8
)

// RecordHeader is the first line of a slot.
type RecordHeader struct {
	Seq     uint64 // of the transaction
	N       uint32 // lines
	BodyCRC uint32 // CRC-32C of the tables and the lines
	At      int64  // region offset of the body of a logged record; 0: the body follows the header
	Pieces  uint32 // pieces of file data
	Data    uint32 // bytes of data in all pieces
}

// Piece is a part of a file's data in a record: Len bytes that the record holds at region offset
// From and that belong at region offset Off.
type Piece struct{ Off, From, Len int64 }

// MaxRecordLines returns the largest number of lines whose record fits a slot of the given size in
// bytes.
func MaxRecordLines(slot uint32) int {
	n := (int(slot) - LineSize) / (LineSize + 8)
	for RecordSize(n) > int(slot) {
		n--
	}
	return n
}

// OffsetsSize returns the size in bytes of the offset table of a record of n lines.
func OffsetsSize(n int) int { return (8*n + LineSize - 1) &^ (LineSize - 1) }

// RecordSize returns the size in bytes of a record of n lines.
func RecordSize(n int) int { return LineSize + OffsetsSize(n) + LineSize*n }

// TablesSize returns the size in bytes of a body of n lines and p pieces, without the data.
func TablesSize(n, p int) int { return OffsetsSize(n) + LineSize*n + OffsetsSize(2*p) }

// RecordTables is the body of a record without the data: the offsets, the lines and the list of
// pieces. All code that writes or reads a record uses it. It is not safe for concurrent use.
type RecordTables struct {
	b []byte
	n int // lines
}

// Tables returns b, of TablesSize(h.N, h.Pieces) bytes, as the tables of a record with header h. It
// does not copy b.
func (h *RecordHeader) Tables(b []byte) RecordTables {
	return RecordTables{b[:TablesSize(int(h.N), int(h.Pieces))], int(h.N)}
}

// Line returns the i-th line, not copied, and the region offset where it belongs.
func (t RecordTables) Line(i int) (off int64, l *Line) {
	return int64(binary.LittleEndian.Uint64(t.b[8*i:])), (*Line)(t.b[OffsetsSize(t.n)+i*LineSize:])
}

// SetLine stores l, which is sealed, as the i-th line. off is the region offset where it belongs.
func (t RecordTables) SetLine(i int, off int64, l *Line) {
	binary.LittleEndian.PutUint64(t.b[8*i:], uint64(off))
	copy(t.b[OffsetsSize(t.n)+i*LineSize:], l[:])
}

// SetPiece stores the i-th piece: n bytes that belong at region offset off.
func (t RecordTables) SetPiece(i int, off, n int64) {
	p := t.b[TablesSize(t.n, 0)+16*i:]
	binary.LittleEndian.PutUint64(p, uint64(off))
	binary.LittleEndian.PutUint64(p[8:], uint64(n))
}

// piece returns the region offset and the length in bytes of the i-th piece.
func (t RecordTables) piece(i int) (off, n int64) {
	p := t.b[TablesSize(t.n, 0)+16*i:]
	return int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint64(p[8:]))
}

// Logged reports whether the record is a logged record.
func (h *RecordHeader) Logged() bool { return h.At != 0 }

// Body returns the region offset of the body of the record in the slot at region offset off. ok is
// false if the body of a logged record is misaligned or outside the data area.
func (h *RecordHeader) Body(s *Superblock, off int64) (at int64, ok bool) {
	if !h.Logged() {
		return off + LineSize, true
	}
	size := int64(TablesSize(int(h.N), int(h.Pieces))) + int64(h.Data)
	return h.At, h.At%LineSize == 0 && s.isData(h.At, size)
}

// ListPieces returns the pieces of a record whose body is at region offset body and begins with
// tables. ok is false if a piece lies outside the data area, or the pieces do not add up to h.Data.
func (h *RecordHeader) ListPieces(s *Superblock, body int64, tables []byte) (ps []Piece, ok bool) {
	t := h.Tables(tables)
	from, end := body+int64(len(t.b)), body+int64(len(t.b))+int64(h.Data)
	for i := 0; i < int(h.Pieces); i++ {
		off, n := t.piece(i)
		if n <= 0 || n > end-from || !s.isData(off, n) {
			return nil, false
		}
		ps = append(ps, Piece{off, from, n})
		from += n
	}
	return ps, from == end
}

// isData reports whether n bytes at region offset off lie behind the fixed area and before the
// slots.
func (s *Superblock) isData(off, n int64) bool {
	return off >= s.StaticEnd && off <= s.DataEnd() && n <= s.DataEnd()-off
}

// Put writes h into b, the first line of the slot at region offset off.
func (h *RecordHeader) Put(b *Line, seed uint32, off int64) {
	*b = Line{}
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.Seq)
	le.PutUint32(b[8:], h.N)
	le.PutUint32(b[12:], h.BodyCRC)
	le.PutUint64(b[16:], uint64(h.At))
	le.PutUint32(b[24:], h.Pieces)
	le.PutUint32(b[28:], h.Data)
	le.PutUint32(b[56:], RecordMagic)
	le.PutUint32(b[crcOff:], lineChecksum(seed, off, b))
}

// Get reads h from b and reports whether b is a valid header of the slot at region offset off,
// whose size is slot bytes.
func (h *RecordHeader) Get(b *Line, seed uint32, off int64, slot uint32) bool {
	le := binary.LittleEndian
	*h = RecordHeader{Seq: le.Uint64(b[0:]), N: le.Uint32(b[8:]), BodyCRC: le.Uint32(b[12:]),
		At: int64(le.Uint64(b[16:])), Pieces: le.Uint32(b[24:]), Data: le.Uint32(b[28:])}
	if le.Uint32(b[56:]) != RecordMagic || !b.Valid(seed, off) || h.N == 0 && h.Pieces == 0 {
		return false
	}
	if h.Logged() {
		return h.N <= LoggedMax && h.Pieces <= LoggedMax && h.Data <= LoggedData
	}
	return h.N <= uint32(MaxRecordLines(slot)) && h.Pieces == 0 && h.Data == 0
}
