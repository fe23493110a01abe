package pmem

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// TestTwins compares the functions of this build with the portable ones, at random offsets and
// lengths, and checks that the bytes around do not change.
func TestTwins(t *testing.T) {
	t.Logf("write-back: %s", flushName())
	const size = 64 << 10
	aligned := func() []byte {
		buf := make([]byte, size+4096)
		return buf[-uintptr(unsafe.Pointer(&buf[0]))&4095:][:size]
	}
	rng := rand.New(rand.NewPCG(3, 4))
	native, portable, src := aligned(), aligned(), aligned()
	for i := range src {
		src[i] = byte(rng.Uint32())
	}
	check := func(name string, off, n int) {
		t.Helper()
		if !bytes.Equal(native, portable) {
			t.Fatalf("%s of %d bytes at %d differs from its twin", name, n, off)
		}
	}
	rounds := 4000
	if flushName() == "none" {
		rounds = 100 // this build runs the twins themselves
	}
	for range rounds {
		n := rng.IntN(1 << rng.IntN(14))
		off, from := rng.IntN(size-n), rng.IntN(size-n)
		copyWords(native[off:], src[from:from+n])
		portableCopyWords(portable[off:], src[from:from+n])
		check("copyWords", off, n)

		off, n = off&^63, n&^63
		ntCopyLines(native[off:], src[from:from+n])
		portableNTCopyLines(portable[off:], src[from:from+n])
		check("ntCopyLines", off, n)

		flushLines(native[off : off+n])
		portableFlushLines(portable[off : off+n])
		flushLinesFence(native[off : off+n])
		portableFence()
		check("flushLines", off, n)

		off = rng.IntN(size-n) &^ 63
		ntZeroLines(native[off : off+n])
		portableNTZeroLines(portable[off : off+n])
		check("ntZeroLines", off, n)

		off &^= 7
		word := rng.Uint64()
		store8(native[off:], word)
		portableStore8(portable[off:], word)
		check("store8", off, 8)
		fence()
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct{ off, n, head, lines, tail int64 }{
		{0, 0, 0, 0, 0}, {0, 64, 0, 64, 0}, {0, 63, 0, 0, 63}, {10, 20, 20, 0, 0}, {10, 54, 54, 0, 0},
		{10, 55, 54, 0, 1}, {10, 118, 54, 64, 0}, {63, 130, 1, 128, 1}, {64, 4096, 0, 4096, 0},
	} {
		if h, l, tl := split(c.off, c.n); h != c.head || l != c.lines || tl != c.tail {
			t.Errorf("split(%d, %d) = %d %d %d", c.off, c.n, h, l, tl)
		}
	}
}
