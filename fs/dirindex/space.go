package dirindex

import (
	"math/bits"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// roomTries is the number of blocks in which Room looks for free lines. It is bounded because the
// free lines of many blocks may not be adjacent.
const roomTries = 8

// Room returns the first position of n adjacent free lines in one block. ok is false if it found
// none; then a new block is needed (NextBlock).
func (x *Index) Room(n int) (pos uint32, ok bool) {
	for i := len(x.avail) - 1; i >= 0 && i >= len(x.avail)-roomTries; i-- {
		b := x.avail[i]
		if l := freeLines(x.used[b], n); l >= 0 {
			return b*layout.LinesPerBlock + uint32(l), true
		}
	}
	return 0, false
}

// NextBlock returns the number of the directory block to link next: a hole, or the block behind the
// last. ok is false if the directory has its largest size.
func (x *Index) NextBlock() (b uint32, ok bool) {
	if n := len(x.holes); n > 0 {
		return x.holes[n-1], true
	}
	return uint32(len(x.blocks)), len(x.blocks) < MaxBlocks
}

// Link records that directory block b is region block block, with free lines only.
//
// Precondition: NextBlock returned b, and the index has not changed since.
func (x *Index) Link(b uint32, block uint64) {
	if int(b) == len(x.blocks) {
		x.blocks, x.used, x.listed = append(x.blocks, 0), append(x.used, 0), append(x.listed, 0)
	} else {
		x.holes = x.holes[:len(x.holes)-1]
	}
	x.blocks[b], x.used[b] = block, 0
	x.relist(b)
}

// Idle reports whether directory block b is not a hole and none of its lines is in use.
func (x *Index) Idle(b uint32) bool { return x.used[b] == 0 && x.blocks[b] != 0 }

// BlocksWithout returns the number of blocks that Blocks will return after Unlink(b), which also
// removes holes at the end.
func (x *Index) BlocksWithout(b uint32) int {
	n := len(x.blocks)
	if int(b) == n-1 {
		for n--; n > 0 && x.blocks[n-1] == 0; n-- {
		}
	}
	return n
}

// Unlink makes directory block b a hole, or removes it if it is the last, and returns its region
// block.
//
// Precondition: the block is idle (Idle).
func (x *Index) Unlink(b uint32) (block uint64) {
	n := x.BlocksWithout(b)
	block, x.blocks[b] = x.blocks[b], 0
	x.relist(b)
	if n < len(x.blocks) {
		x.shrink(n)
	} else {
		x.holes = append(x.holes, b)
	}
	return block
}

// relist adds directory block b to avail if it has free lines, and removes it from avail if it is
// full or a hole. avail contains no block twice, so it is never longer than the directory.
func (x *Index) relist(b uint32) {
	has := x.blocks[b] != 0 && x.used[b] != ^uint64(0)
	switch i := x.listed[b]; {
	case has && i == 0:
		x.avail = append(x.avail, b)
		x.listed[b] = uint32(len(x.avail))
	case !has && i != 0:
		last := x.avail[len(x.avail)-1]
		x.avail[i-1] = last
		x.listed[last] = i
		x.avail = x.avail[:len(x.avail)-1]
		x.listed[b] = 0
	}
}

// shrink removes the directory blocks from n on, which are holes. It gives memory back once a slice
// is shorter than a quarter of its capacity.
func (x *Index) shrink(n int) {
	x.blocks, x.used, x.listed = fit(x.blocks[:n]), fit(x.used[:n]), fit(x.listed[:n])
	x.holes = fit(slices.DeleteFunc(x.holes, func(b uint32) bool { return b >= uint32(n) }))
	x.avail = fit(x.avail)
}

// fit returns s, moved to a smaller allocation if it uses less than a quarter of its capacity.
func fit[T any](s []T) []T {
	if cap(s) > 64 && len(s) < cap(s)/4 {
		return append(make([]T, 0, 2*len(s)), s...)
	}
	return s
}

// lineMask returns the bits of n lines from line i on.
func lineMask(i, n int) uint64 { return (1<<n - 1) << i }

// freeLines returns the index of the first of n adjacent free lines in a mask of used lines, or -1.
func freeLines(used uint64, n int) int {
	f := ^used // the shifts below bring in zeros, so no run crosses the end of the block
	for k := 1; k < n; k++ {
		f &= ^used >> k
	}
	if f == 0 {
		return -1
	}
	return bits.TrailingZeros64(f)
}
