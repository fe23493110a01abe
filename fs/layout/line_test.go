package layout

import (
	"encoding/binary"
	"testing"
)

// TestMovedLine checks that a line does not verify at another place, even with another sequence. A
// torn store of another line over it in the journal can produce such a line.
func TestMovedLine(t *testing.T) {
	const seed = 0x12345678
	var l Line
	c := Core{Mode: 0o100644, Nlink: 1, Size: 1032208, Gen: 2}
	c.Put(&l)
	for _, from := range []int64{0, 0xcb00, 1 << 30, 1 << 42} {
		l.Seal(seed, from, 251)
		for k := int64(0); k < 1<<12; k++ {
			to := k * LineSize
			if to == from {
				continue
			}
			for seq := uint64(1); seq < 1<<9; seq++ {
				m := l
				binary.LittleEndian.PutUint64(m[:], seq)
				if m.Valid(seed, to) {
					t.Fatalf("the line of sequence 251 at %#x is valid at %#x with sequence %d", from, to, seq)
				}
			}
		}
	}
}

func TestLine(t *testing.T) {
	var l Line
	for i := range l.Payload() {
		l.Payload()[i] = byte(i)
	}
	l.Seal(7, 640, 9)
	if !l.Valid(7, 640) || l.Valid(8, 640) || l.Valid(7, 704) || l.Seq() != 9 {
		t.Fatal("a sealed line does not verify, or verifies elsewhere")
	}
	for i := range l {
		m := l
		m[i] ^= 1
		if m.Valid(7, 640) {
			t.Errorf("a changed byte %d goes unnoticed", i)
		}
	}
}

// TestXattrList checks that a list reads back as it was written, and that no truncated or damaged
// list causes a panic.
func TestXattrList(t *testing.T) {
	want := []Xattr{
		{Name: "user.a", Len: 3, CRC: 1, Value: []byte("abc")},
		{Name: "user.empty", Value: []byte{}},
		{Name: "security.b", Len: 5000, CRC: 2, Runs: []XattrRun{{Block: 1 << 40, Len: 1}, {Block: 7, Len: 1}}},
	}
	var b []byte
	for i := range want {
		b = want[i].Append(b)
	}
	rest := b
	for _, w := range want {
		var x Xattr
		var ok bool
		if x, rest, ok = NextXattr(rest); !ok || x.Name != w.Name || x.Len != w.Len || x.CRC != w.CRC || string(x.Value) != string(w.Value) || len(x.Runs) != len(w.Runs) {
			t.Fatalf("%+v became %+v", w, x)
		}
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes are left", len(rest))
	}
	for n := range b {
		for list, ok := b[:n:n], true; ok && len(list) > 0; {
			_, list, ok = NextXattr(list)
		}
		m := append([]byte(nil), b...)
		m[n] ^= 0xff
		for list, ok := m, true; ok && len(list) > 0; {
			_, list, ok = NextXattr(list)
		}
	}
}
