package dirindex

import (
	"math/bits"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// MaxBlocks is the largest number of blocks of a directory: a position is 32 bits.
const MaxBlocks = 1<<32/layout.LinesPerBlock - 1

// Index is a directory in DRAM. The zero value is an empty directory without blocks.
type Index struct {
	blocks    []uint64 // region block by directory block; 0: hole
	used      []uint64 // lines in use, one bit each, by directory block
	avail     []uint32 // directory blocks with free lines, each once
	listed    []uint32 // by directory block: its index in avail plus 1; 0: full, or a hole
	holes     []uint32 // directory blocks that are holes
	table     table
	lost      []lostLine        // damaged lines, whose names are lost
	lostLines map[uint32]uint64 // the same, one bit each, by directory block
}

// Entry is a directory entry that a Search found.
type Entry struct {
	Pos  uint32 // of its first line
	Type uint8  // DT_*
	n    uint8  // lines
	hash uint32
	Ino  uint64 // inode number that the name leads to
}

// Lines returns how many lines the entry has.
func (e *Entry) Lines() int { return int(e.n) }

// Len returns the number of names, without those that damage took.
func (x *Index) Len() int { return x.table.count }

// Blocks returns the directory's length in blocks, holes included.
func (x *Index) Blocks() int { return len(x.blocks) }

// Off returns the region offset of a position in bytes.
// Precondition: its block is not a hole.
func (x *Index) Off(pos uint32) int64 {
	return int64(x.blocks[pos/layout.LinesPerBlock])<<layout.BlockShift + int64(pos%layout.LinesPerBlock)*layout.LineSize
}

// Next returns the first position from pos on that is in use and not damaged, and its region offset
// in bytes. It may be that of a line within an entry. ok is false if there are no more.
func (x *Index) Next(pos uint64) (at uint64, off int64, ok bool) {
	skip := lineMask(0, int(pos%layout.LinesPerBlock))
	for b := pos / layout.LinesPerBlock; b < uint64(len(x.blocks)); b++ {
		used := x.used[b] &^ skip
		if x.lostLines != nil {
			used &^= x.lostLines[uint32(b)]
		}
		if used != 0 {
			at = b*layout.LinesPerBlock + uint64(bits.TrailingZeros64(used))
			return at, x.Off(uint32(at)), true
		}
		skip = 0
	}
	return 0, 0, false
}

// Insert enters a name whose entry is in n lines from pos on.
// Precondition: Room or NextBlock returned them, and a new block is linked.
func (x *Index) Insert(name string, pos uint32, n int) {
	b := pos / layout.LinesPerBlock
	x.used[b] |= lineMask(int(pos%layout.LinesPerBlock), n)
	x.relist(b)
	x.table.insert(hashName(name), pos)
}

// Remove takes an entry away.
// Precondition: a Search found it, and it has not been removed since.
func (x *Index) Remove(e *Entry) {
	b := e.Pos / layout.LinesPerBlock
	x.used[b] &^= lineMask(int(e.Pos%layout.LinesPerBlock), e.Lines())
	x.relist(b)
	x.table.remove(e.hash, e.Pos)
}
