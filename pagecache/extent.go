package pagecache

import (
	"fmt"
	"math"
)

// Flags of an extent.
const (
	// Unwritten marks an extent whose blocks are allocated and read as zeros.
	Unwritten uint8 = 1 << iota
	// Shared marks an extent whose blocks other extents may have, too: nothing may be stored there.
	Shared
)

// None is the Logical of an extent that does not exist: no extent follows.
const None = math.MaxUint64

// maxBlock bounds region block numbers. In a node, the bits above are the flags.
const maxBlock = uint64(1) << flagShift

// Extent maps Len blocks of a file from Logical on to the blocks of the region from Block on.
type Extent struct {
	Logical uint64 // first block of the file, 4 KiB each
	Block   uint64 // first block of the region, below 2^56
	Len     uint32 // blocks; 0 only in an extent that does not exist
	Slot    uint32 // where the extent is on media; only the caller uses it
	Flags   uint8  // Unwritten, Shared
}

// End returns the file block after the extent.
func (e Extent) End() uint64 { return e.Logical + uint64(e.Len) }

// BlockAt returns the region block of a file block.
// Precondition: the extent covers it.
func (e Extent) BlockAt(logical uint64) uint64 { return e.Block + (logical - e.Logical) }

// String describes the extent for error messages.
func (e Extent) String() string {
	return fmt.Sprintf("[%d+%d -> %d slot %d flags %#x]", e.Logical, e.Len, e.Block, e.Slot, e.Flags)
}

// An extent in a node is three words:
//
//	0  Logical
//	1  bits 0-55 Block, bits 56-63 Flags
//	2  bits 0-31 Len,   bits 32-63 Slot
const (
	flagShift = 56
	slotShift = 32
)

func (e Extent) place() uint64 { return e.Block | uint64(e.Flags)<<flagShift }
func (e Extent) size() uint64  { return uint64(e.Len) | uint64(e.Slot)<<slotShift }

func unpack(logical, place, size uint64) Extent {
	return Extent{
		Logical: logical,
		Block:   place & (maxBlock - 1),
		Flags:   uint8(place >> flagShift),
		Len:     uint32(size),
		Slot:    uint32(size >> slotShift),
	}
}

// check panics if the extent is empty, or its file blocks or its region block are out of range.
func (e Extent) check() {
	if e.Len == 0 || e.Block >= maxBlock || e.Logical > math.MaxUint64-uint64(e.Len) {
		panic("pagecache: bad extent " + e.String())
	}
}
