package hugepage

import (
	"errors"
	"fmt"
	"math/bits"
)

// Sentinel errors of this package.
var (
	// ErrOrders reports orders that do not describe three folio sizes that an allocator can keep.
	ErrOrders = errors.New("hugepage: bad orders")
	// ErrSize reports a number of blocks that an allocator cannot be made for.
	ErrSize = errors.New("hugepage: bad number of blocks")
)

// BlockSize is the size of a block, the folio of order 0, in bytes.
const BlockSize = 4096

// maxSpan bounds log2 of the number of children of a group, on either level.
const maxSpan = 15

// Orders are the sizes of the larger folios, as log2 of blocks.
type Orders struct {
	PMD uint8 // 9 on real hardware: 2 MiB
	PUD uint8 // 18 on real hardware: 1 GiB
}

// DefaultOrders are the orders of a machine with 4 KiB pages and page tables of 512 entries.
var DefaultOrders = Orders{PMD: 9, PUD: 18}

// Check returns ErrOrders if the orders are out of range.
func (o Orders) Check() error {
	if o.PMD < 1 || o.PMD > maxSpan || o.PUD <= o.PMD || o.PUD-o.PMD > maxSpan {
		return fmt.Errorf("%w: PMD %d, PUD %d; want 1 <= PMD <= %d, PMD < PUD <= PMD+%d",
			ErrOrders, o.PMD, o.PUD, maxSpan, maxSpan)
	}
	return nil
}

// PMDBlocks returns the size of a PMD folio in blocks.
func (o Orders) PMDBlocks() uint64 { return 1 << o.PMD }

// PUDBlocks returns the size of a PUD folio in blocks.
func (o Orders) PUDBlocks() uint64 { return 1 << o.PUD }

// AlignDown returns the last multiple of 1<<order that is not above x.
func AlignDown(x uint64, order uint8) uint64 { return x &^ (1<<order - 1) }

// AlignUp returns the first multiple of 1<<order that is not below x.
// Precondition: it fits 64 bits.
func AlignUp(x uint64, order uint8) uint64 { return (x + 1<<order - 1) &^ (1<<order - 1) }

// Aligned reports whether x is a multiple of 1<<order.
func Aligned(x uint64, order uint8) bool { return x&(1<<order-1) == 0 }

// Congruence returns the largest order, at most 63, modulo which a file block and a region block
// are the same. No folio of a larger order can map one to the other.
func Congruence(offset, block uint64) uint8 {
	return uint8(min(bits.TrailingZeros64(offset^block), 63))
}

// At returns the order (0, PMD or PUD) of the largest folio that can start at file block offset and
// region block block, in an extent that has n blocks from there on.
func (o Orders) At(offset, block, n uint64) uint8 {
	for _, order := range [...]uint8{o.PUD, o.PMD} {
		if Aligned(offset|block, order) && n>>order != 0 {
			return order
		}
	}
	return 0
}

// Within returns the order (0, PMD or PUD) of the largest folio that fits anywhere in an extent of
// n blocks from file block offset and region block block on.
func (o Orders) Within(offset, block, n uint64) uint8 {
	for _, order := range [...]uint8{o.PUD, o.PMD} {
		if Aligned(offset^block, order) && AlignUp(block, order)+1<<order <= block+n {
			return order
		}
	}
	return 0
}
