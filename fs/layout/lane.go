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
//	...    64n  the lines, sealed with seq, complete as they will stand in place
//	...    16p  region offset and length of each piece, then zeros to a multiple of 64
//	...         the data of the pieces, one behind the other
//
// The record is committed when all of it is on media: both checksums are right. The data
// has none, and is on media before the header can be.
//
// A logged record carries data of files, or more lines than a slot has room for. Its body
// stands in space that is free, never in a slot, where what a user writes could pass for
// lines of an older record. It is retired before anybody else may change what it holds, or
// use its body's place.
const RecordMagic = 0x5244454c // "LEDR"

// LoggedMax bounds the lines, and the pieces, of a logged record; LoggedData its bytes of
// data.
const (
	LoggedData = 1 << 20
	LoggedMax  = LoggedData/BlockSize + 8
)

// RecordHeader is the first line of a slot.
type RecordHeader struct {
	Seq     uint64
	N       uint32
	BodyCRC uint32
	At      int64
	Pieces  uint32
	Data    uint32
}

// Piece is a part of a file's data in a record: where it goes, and where the record has it.
type Piece struct{ Off, From, Len int64 }

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

// TablesSize is the size of the body without the data in bytes, for n lines and p pieces.
func TablesSize(n, p int) int { return OffsetsSize(n) + LineSize*n + OffsetsSize(2*p) }

// RecordTables is the body of a record without the data: the offsets, the lines and the list of
// pieces. Everybody who writes or reads a record does so through it. Not for concurrent use.
type RecordTables struct {
	b []byte
	n int // lines
}

// Tables is a view of b, TablesSize(h.N, h.Pieces) bytes, as the tables of a record with header h.
func (h *RecordHeader) Tables(b []byte) RecordTables {
	return RecordTables{b[:TablesSize(int(h.N), int(h.Pieces))], int(h.N)}
}

// Line is the i-th line, in place, and the region offset that it belongs to.
func (t RecordTables) Line(i int) (off int64, l *Line) {
	return int64(binary.LittleEndian.Uint64(t.b[8*i:])), (*Line)(t.b[OffsetsSize(t.n)+i*LineSize:])
}

// SetLine makes l, sealed, the i-th line, which belongs to region offset off.
func (t RecordTables) SetLine(i int, off int64, l *Line) {
	binary.LittleEndian.PutUint64(t.b[8*i:], uint64(off))
	copy(t.b[OffsetsSize(t.n)+i*LineSize:], l[:])
}

// SetPiece makes n bytes at region offset off the i-th piece.
func (t RecordTables) SetPiece(i int, off, n int64) {
	p := t.b[TablesSize(t.n, 0)+16*i:]
	binary.LittleEndian.PutUint64(p, uint64(off))
	binary.LittleEndian.PutUint64(p[8:], uint64(n))
}

// piece is the i-th piece.
func (t RecordTables) piece(i int) (off, n int64) {
	p := t.b[TablesSize(t.n, 0)+16*i:]
	return int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint64(p[8:]))
}

// Logged reports whether the record is a logged one.
func (h *RecordHeader) Logged() bool { return h.At != 0 }

// Body is where the body of the record in the slot at region offset off stands; ok is
// false if that cannot be.
func (h *RecordHeader) Body(s *Superblock, off int64) (at int64, ok bool) {
	if !h.Logged() {
		return off + LineSize, true
	}
	size := int64(TablesSize(int(h.N), int(h.Pieces))) + int64(h.Data)
	return h.At, h.At%LineSize == 0 && s.isData(h.At, size)
}

// ListPieces lists the pieces of a record whose body lies at region offset body and
// begins with tables; ok is false if one lies where no file's data can be.
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

// isData reports whether n bytes at off lie behind the fixed area and before the second
// superblock.
func (s *Superblock) isData(off, n int64) bool {
	return off >= s.StaticEnd && off <= s.BackupOff && n <= s.BackupOff-off
}

// Put writes h into the first line of a slot at region offset off.
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

// Get reads h and reports whether b is a valid header for a slot of the given size.
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
