package hugepage

import "math/bits"

// bitset is a set of numbers below a bound. It finds the lowest member at or above a number in as
// many steps as the bound has digits to base 64.
//
// level[0] has a bit for each number. A bit of level[k+1] is set if a word of level[k] is not zero.
// The last level is one word.
type bitset struct {
	level [][]uint64
}

func newBitset(n uint64) bitset {
	var b bitset
	for {
		n = (n + 63) / 64
		b.level = append(b.level, make([]uint64, max(n, 1)))
		if n <= 1 {
			return b
		}
	}
}

func (b *bitset) set(i uint64) {
	for _, l := range b.level {
		old := l[i>>6]
		l[i>>6] = old | 1<<(i&63)
		if old != 0 {
			return
		}
		i >>= 6
	}
}

func (b *bitset) clear(i uint64) {
	for _, l := range b.level {
		l[i>>6] &^= 1 << (i & 63)
		if l[i>>6] != 0 {
			return
		}
		i >>= 6
	}
}

func (b *bitset) empty() bool { return b.level[len(b.level)-1][0] == 0 }

// last returns the highest member.
func (b *bitset) last() (i uint64, ok bool) {
	if b.empty() {
		return 0, false
	}
	for k := len(b.level) - 1; k >= 0; k-- {
		i = i<<6 + uint64(bits.Len64(b.level[k][i])-1)
	}
	return i, true
}

func (b *bitset) has(i uint64) bool {
	w := i >> 6
	return w < uint64(len(b.level[0])) && b.level[0][w]>>(i&63)&1 != 0
}

// next returns the lowest member at or above i.
func (b *bitset) next(i uint64) (uint64, bool) {
	for k := 0; k < len(b.level); k++ {
		w := i >> 6
		if w >= uint64(len(b.level[k])) {
			return 0, false
		}
		if rest := b.level[k][w] >> (i & 63); rest != 0 {
			i += uint64(bits.TrailingZeros64(rest))
			for k > 0 { // go down to the lowest member under that bit
				k--
				i = i<<6 + uint64(bits.TrailingZeros64(b.level[k][i]))
			}
			return i, true
		}
		i = w + 1
	}
	return 0, false
}
