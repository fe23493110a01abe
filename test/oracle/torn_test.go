package oracle

import (
	"bytes"
	"slices"
	"testing"
)

func TestTorn(t *testing.T) {
	old, data := bytes.Repeat([]byte("o"), 64), bytes.Repeat([]byte("N"), 64)
	// The call writes 64 bytes at 20: the last 4 bytes of a word, then words, then beyond the end.
	call := Op{Kind: "write", Off: 20, Len: 64}
	want := slices.Concat(old[:20], data)
	with := func(n int, value byte) []byte { content := slices.Clone(want); content[n] = value; return content }
	for _, row := range []struct {
		what string
		got  []byte
		ok   bool
	}{
		{"old", old, true},
		{"new", want, true},
		{"data old, size new", slices.Concat(old, data[:20]), true},
		{"data new, size old", want[:64], true},
		{"data new, a part of the size", want[:70], true},
		{"a word old", slices.Concat(want[:32], old[32:40], want[40:]), true},
		{"half a word old", slices.Concat(want[:32], old[32:36], want[36:]), false},
		{"a byte old where the call begins within a word", with(20, 'o'), true},
		{"a byte of neither", with(20, 'x'), false},
		{"a byte beside the call", with(19, 'N'), false},
		{"beyond the old end not yet written", with(80, 0), false},
		{"beyond the old end what was there", with(80, 'o'), false},
		{"too small", want[:63], false},
		{"too large", slices.Concat(want, data[:1]), false},
	} {
		if why := torn(call, old, want, row.got); (why == "") != row.ok {
			t.Errorf("%s: judged %q", row.what, why)
		}
	}
	// A call of two requests, which meet within a word: the buffer's data begins 3 bytes after a
	// page border, and the first request ends 1 MiB after that border.
	const mib = 1 << 20
	large := Op{Kind: "write", Off: 8, Len: mib + 64, Skip: 4096 + 3}
	old, want = bytes.Repeat([]byte("o"), mib+128), bytes.Repeat([]byte("o"), mib+128)
	copy(want[8:], bytes.Repeat([]byte("N"), mib+64))
	for end, ok := range map[int]bool{mib + 5: true, mib + 8: true, mib + 10: false, mib - 3: false, mib: true} {
		if why := torn(large, old, want, slices.Concat(want[:end], old[end:])); (why == "") != ok {
			t.Errorf("two requests, new up to %d: judged %q", end, why)
		}
	}
	old = old[:64]
	gap := Op{Kind: "write", Off: 100, Len: 8}
	whole := slices.Concat(old, make([]byte, 36), data[:8])
	if why := torn(gap, old, whole, whole[:80]); why == "" {
		t.Error("a size between the old end and the call is right")
	}
}
