package layout

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzSuper checks that a superblock that decodes has a geometry within its size, and reads back
// unchanged.
func FuzzSuper(f *testing.F) {
	s := Superblock{Version: Version, Label: "pool", Size: 16 << 20, ChunkShift: 15, PUDShift: 18, Lanes: 2, Granule: BlockSize}
	s.Place()
	if _, err := DecodeSuper(s.Encode(), 0); err != nil {
		f.Fatal(err)
	}
	f.Add(s.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < SuperSize {
			return
		}
		b = bytes.Clone(b[:SuperSize])
		binary.LittleEndian.PutUint32(b[508:], Checksum(0, b[:508]))
		s, err := DecodeSuper(b, 0)
		if err != nil {
			return
		}
		again, err := DecodeSuper(s.Encode(), 0)
		if err != nil || *again != *s {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
		for _, off := range []int64{s.LaneOff, s.ChunkMapOff, s.OwnerOff, s.BadOff, s.StaticEnd, s.InodeBase, s.BackupOff,
			s.ChunkMapOff + s.ChunkMapLines*LineSize, s.LaneOff + 2*int64(s.Lanes)*int64(s.LaneSlot), s.ChunkHeader(s.FirstChunk())} {
			if off < 0 || off > s.Size {
				t.Errorf("offset %d of %+v is outside", off, s)
			}
		}
		if line, _ := ChunkMapPos(s.Chunks() - 1); line >= s.ChunkMapLines {
			t.Errorf("%d chunks do not fit the chunk map", s.Chunks())
		}
		for _, ino := range []uint64{0, RootIno, s.Blocks(), 1 << 63, ^uint64(0)} {
			if off := s.InodeOff(ino); off >= 0 && (off+InodeSize > s.Size || s.InodeAt(off) != ino) {
				t.Errorf("inode %d is at %d", ino, off)
			}
		}
	})
}

// FuzzLine checks that any line decodes as any structure without a panic, that what is decoded
// survives being encoded again, and that the parts of a name add up to its length.
func FuzzLine(fuzz *testing.F) {
	var line Line
	(&Core{Mode: 0o100644, Nlink: 1, Size: 9}).Put(&line)
	fuzz.Add(line[:])
	line.PutExtent(1, Extent{Logical: 7, Block: 9, Len: 3, Flags: ExtentShared})
	fuzz.Add(line[:])
	line.PutDentryHead([]byte("name"), 3, 8)
	fuzz.Add(line[:])
	header := RecordHeader{Seq: 1, N: 3}
	header.Put(&line, 1, 64)
	fuzz.Add(line[:])
	fuzz.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) < LineSize {
			return
		}
		line := Line(buf)
		var header RecordHeader
		binary.LittleEndian.PutUint32(line[crcOff:], lineChecksum(1, 64, &line))
		if header.Get(&line, 1, 64, 8192) && (header.N > LoggedMax || !header.Logged() && RecordSize(int(header.N)) > 8192) {
			t.Errorf("a record of %d lines does not fit its slot, or the space for its body", header.N)
		}
		same(t, &line, func(c *Core, line *Line) { c.Get(line) }, (*Core).Put)
		same(t, &line, func(c *Times, line *Line) { c.Get(line) }, (*Times).Put)
		same(t, &line, func(c *Live, line *Line) { c.Get(line) }, (*Live).Put)
		same(t, &line, func(c *Owner, line *Line) { c.Get(line) }, (*Owner).Put)
		same(t, &line, func(c *BadRange, line *Line) { c.Get(line) }, (*BadRange).Put)
		same(t, &line, func(c *ExtentBlock, line *Line) { c.Get(line) }, (*ExtentBlock).Put)
		same(t, &line, func(c *XattrBlock, line *Line) { c.Get(line) }, (*XattrBlock).Put)
		for i := range ExtentsPerLine {
			same(t, &line, func(e *Extent, line *Line) { *e = line.Extent(i) }, func(e *Extent, line *Line) { line.PutExtent(i, *e) })
		}
		n := line.DentryNameLen()
		lines := DentryLines(n)
		if lines > MaxDentryLines {
			t.Fatalf("a name of %d bytes takes %d lines", n, lines)
		}
		got := 0
		for i := range lines {
			got += len(line.NamePart(i, n))
		}
		if got != n {
			t.Errorf("the parts of a name of %d bytes have %d", n, got)
		}
	})
}

// same checks that a structure decoded from l does not change when it is encoded and decoded again.
func same[T comparable](t *testing.T, l *Line, get func(*T, *Line), put func(*T, *Line)) {
	var a, b T
	var m Line
	get(&a, l)
	put(&a, &m)
	if get(&b, &m); a != b {
		t.Errorf("%+v became %+v", a, b)
	}
}

// FuzzXattr checks that a list that decodes encodes to the same bytes, and that the list part of a
// block fits the block.
func FuzzXattr(f *testing.F) {
	b := (&Xattr{Name: "user.a", Len: 3, CRC: 1, Value: []byte("abc")}).Append(nil)
	b = (&Xattr{Name: "security.b", Len: 5000, CRC: 2, Runs: []XattrRun{{Block: 1 << 40, Len: 1}, {Block: 7, Len: 1}}}).Append(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		rest := b
		for len(rest) > 0 {
			x, r, ok := NextXattr(rest)
			if !ok {
				break
			}
			again = x.Append(again)
			rest = r
		}
		if !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Errorf("%x became %x", b, again)
		}
		if len(b) < LineSize {
			return
		}
		block := make([]byte, BlockSize)
		FormatBlock(block, 1, 0, 1)
		l := Line(b)
		PutLine(block, 0, &l, 1, 0, 1)
		if _, part, ok := XattrPart(block, 1, 0); ok && len(part) > XattrBlockBytes {
			t.Errorf("a part has %d bytes", len(part))
		}
	})
}
