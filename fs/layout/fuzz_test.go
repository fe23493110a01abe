package layout

import (
	"bytes"
	"testing"
)

// FuzzXattrs: whatever a list of attributes is, reading it ends, and what is read says the same
// written again.
func FuzzXattrs(f *testing.F) {
	var list []byte
	for _, x := range []Xattr{
		{Name: "user.a", Value: []byte("value"), Len: 5},
		{Name: "trusted.b", Len: 5000, Runs: []XattrRun{{Block: 7, Len: 1}, {Block: 9, Len: 1}}},
	} {
		list = x.Append(list)
	}
	f.Add(list)
	f.Add(bytes.Repeat([]byte{1}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		for rest := b; len(rest) > 0; {
			x, next, ok := NextXattr(rest)
			if !ok {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no end")
			}
			again = x.Append(again)
			rest = next
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%x, read and written again: %x", b, again)
		}
	})
}
