package hugepage

import "math/bits"

// A group is the bits of the children of one PMD or PUD block, in whole words. 1 means free; bits
// beyond the children are 0. The functions below use nothing else about a group.

// mask returns the bits of word i that are in [from, from+n).
func mask(i, from, n uint64) uint64 {
	lo, hi := i*64, i*64+64
	if from >= hi || from+n <= lo {
		return 0
	}
	m := ^uint64(0)
	if from > lo {
		m <<= from - lo
	}
	if from+n < hi {
		m &= ^uint64(0) >> (hi - from - n)
	}
	return m
}

func setRun(group []uint64, from, n uint64) {
	for i := from / 64; i*64 < from+n; i++ {
		group[i] |= mask(i, from, n)
	}
}

func clearRun(group []uint64, from, n uint64) {
	for i := from / 64; i*64 < from+n; i++ {
		group[i] &^= mask(i, from, n)
	}
}

func anySet(group []uint64, from, n uint64) bool {
	for i := from / 64; i*64 < from+n; i++ {
		if group[i]&mask(i, from, n) != 0 {
			return true
		}
	}
	return false
}

func allSet(group []uint64, from, n uint64) bool {
	for i := from / 64; i*64 < from+n; i++ {
		if m := mask(i, from, n); group[i]&m != m {
			return false
		}
	}
	return true
}

// runFrom returns how many bits from bit from on are set in a row, at most limit.
func runFrom(group []uint64, from, limit uint64) uint64 {
	n := uint64(0)
	for n < limit {
		at := from + n
		if at/64 >= uint64(len(group)) {
			break
		}
		room := 64 - at%64
		ones := uint64(bits.TrailingZeros64(^(group[at/64] >> (at % 64))))
		n += min(ones, room)
		if ones < room {
			break
		}
	}
	return min(n, limit)
}

// runBefore returns how many bits before bit at are set in a row.
func runBefore(group []uint64, at uint64) uint64 {
	n := uint64(0)
	for n < at {
		end := at - n // look at the word that holds bit end-1
		room := (end-1)%64 + 1
		ones := uint64(bits.LeadingZeros64(^(group[(end-1)/64] << (64 - room))))
		n += min(ones, room)
		if ones < room {
			break
		}
	}
	return n
}

// andShifted keeps the bits of x whose neighbour shift places higher is set too. It reports whether
// any bit is left.
func andShifted(x []uint64, shift uint64) bool {
	var left uint64
	words, bit := int(shift/64), shift%64
	if words == 0 {
		last := len(x) - 1
		for i := range last {
			x[i] &= x[i]>>(bit&63) | x[i+1]<<(-bit&63)
			left |= x[i]
		}
		x[last] &= x[last] >> (bit & 63)
		return left|x[last] != 0
	}
	kept := max(len(x)-words, 0)
	for i := range kept {
		up := x[i+words] >> bit
		if i+1 < kept {
			up |= x[i+words+1] << (64 - bit) // 0 if bit is 0
		}
		x[i] &= up
		left |= x[i]
	}
	clear(x[kept:])
	return left != 0
}

// log2 returns the floor of log2 of n, none for 0.
func log2(n uint64) int8 { return int8(bits.Len64(n)) - 1 }

// classOf returns the class of a group: the floor of log2 of its longest run, none if no bit is
// set. scratch is as long as the group.
//
// After round k, the bits that are left each start a run of 2^k.
func classOf(group, scratch []uint64) int8 {
	var any uint64
	for i, w := range group {
		scratch[i] = w
		any |= w
	}
	if any == 0 {
		return none
	}
	class := int8(0)
	for andShifted(scratch, 1<<class) {
		class++
	}
	return class
}

// grown returns the class of a group that had class old before [from, from+n) was set.
func grown(group []uint64, old int8, from, n uint64) int8 {
	rest := uint64(len(group))*64 - from - n
	return max(old, log2(runBefore(group, from)+n+runFrom(group, from+n, rest)))
}

// shrunk returns the class of a group that had class old before [from, from+n) was cleared. The
// class is old, unless the longest run was cut.
func shrunk(group, scratch []uint64, old int8, from, n uint64) int8 {
	before := runBefore(group, from)
	after := runFrom(group, from+n, uint64(len(group))*64-from-n)
	if log2(before+n+after) < old || log2(max(before, after)) == old {
		return old
	}
	return classOf(group, scratch)
}

// findRun returns the start of the lowest run of n bits. scratch is as long as the group.
func findRun(group, scratch []uint64, n uint64) (uint64, bool) {
	copy(scratch, group)
	for have := uint64(1); have < n; {
		step := min(have, n-have)
		andShifted(scratch, step)
		have += step
	}
	for i, w := range scratch {
		if w != 0 {
			return uint64(i)*64 + uint64(bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}
