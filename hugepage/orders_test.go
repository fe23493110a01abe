package hugepage

import (
	"testing"

	"pgregory.net/rapid"
)

func TestAlign(t *testing.T) {
	for _, c := range []struct {
		x        uint64
		order    uint8
		down, up uint64
	}{
		{0, 9, 0, 0}, {1, 9, 0, 512}, {511, 9, 0, 512}, {512, 9, 512, 512},
		{513, 9, 512, 1024}, {7, 0, 7, 7}, {1<<63 + 1, 62, 1 << 63, 1<<63 + 1<<62},
	} {
		if got := AlignDown(c.x, c.order); got != c.down {
			t.Errorf("AlignDown(%d, %d) = %d", c.x, c.order, got)
		}
		if got := AlignUp(c.x, c.order); got != c.up {
			t.Errorf("AlignUp(%d, %d) = %d", c.x, c.order, got)
		}
		if got := Aligned(c.x, c.order); got != (c.down == c.x) {
			t.Errorf("Aligned(%d, %d) = %t", c.x, c.order, got)
		}
	}
}

func TestFolioOrders(t *testing.T) {
	for _, c := range []struct {
		offset, block, n       uint64
		at, within, congruence uint8
	}{
		{0, 0, 7, 0, 0, 63},
		{0, 0, 8, 3, 3, 63},
		{0, 64, 64, 6, 6, 6},
		{0, 32, 64, 3, 3, 5},
		{64, 128, 63, 3, 3, 6},
		{4, 12, 8, 0, 0, 3},
		{4, 12, 12, 0, 3, 3},
		{1, 65, 127, 0, 6, 6},
		{1, 65, 126, 0, 3, 6},
		{1, 66, 1000, 0, 0, 0},
	} {
		if got := tiny.At(c.offset, c.block, c.n); got != c.at {
			t.Errorf("At(%d, %d, %d) = %d, want %d", c.offset, c.block, c.n, got, c.at)
		}
		if got := tiny.Within(c.offset, c.block, c.n); got != c.within {
			t.Errorf("Within(%d, %d, %d) = %d, want %d", c.offset, c.block, c.n, got, c.within)
		}
		if got := Congruence(c.offset, c.block); got != c.congruence {
			t.Errorf("Congruence(%d, %d) = %d, want %d", c.offset, c.block, got, c.congruence)
		}
	}
}

// TestWithinIsSomeAt checks that a folio fits within an extent if it can start at some block there.
func TestWithinIsSomeAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.Uint64Range(0, 200).Draw(t, "offset")
		block := rapid.Uint64Range(0, 200).Draw(t, "block")
		n := rapid.Uint64Range(1, 200).Draw(t, "n")
		best := uint8(0)
		for i := range n {
			best = max(best, tiny.At(offset+i, block+i, n-i))
		}
		if got := tiny.Within(offset, block, n); got != best {
			t.Fatalf("Within(%d, %d, %d) = %d, want %d", offset, block, n, got, best)
		}
	})
}
