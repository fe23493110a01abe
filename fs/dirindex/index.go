package dirindex

import (
	"math/bits"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// MaxBlocks is the largest number of blocks of a directory: a position has 32 bits.
const MaxBlocks = 1<<32/layout.LinesPerBlock - 1

// Index is the index of one directory. The zero value is the index of an empty directory without
// blocks.
type Index struct {
	blocks    []uint64 // region block by directory block; 0: hole
	used      []uint64 // lines in use, one bit each, by directory block
	avail     []uint32 // numbers of directory blocks with free lines
	listed    []uint32 // index in avail plus 1, by directory block; 0: full, or a hole
	holes     []uint32 // numbers of directory blocks that are holes
	table     table
	lost      []lostLine        // damaged lines whose names are lost
	lostLines map[uint32]uint64 // lost lines, one bit each, by directory block
}

// Entry is a directory entry that a Search found.
type Entry struct {
	Pos  uint32 // position of the first line
	Type uint8  // DT_*
	n    uint8  // number of lines
	hash uint32 // hash of the name
	Ino  uint64 // inode number that the name leads to
}

// Lines returns the number of lines of the entry.
func (e *Entry) Lines() int { return int(e.n) }

// Len returns the number of names, without those lost by damage.
func (x *Index) Len() int { return x.table.count }

// Blocks returns the directory's length in blocks, including holes.
func (x *Index) Blocks() int { return len(x.blocks) }

// Off returns the region offset in bytes of a position.
//
// Precondition: the block of the position is not a hole.
func (x *Index) Off(pos uint32) int64 {
	return int64(x.blocks[pos/layout.LinesPerBlock])<<layout.BlockShift + int64(pos%layout.LinesPerBlock)*layout.LineSize
}

// Next returns the first position from pos on that is in use and not damaged, and its region offset
// in bytes. The position may be that of a continuation line. ok is false if there is none.
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

// Insert adds a name whose entry is in n lines from position pos on.
//
// Precondition: Room returned pos, or pos is the first position of the block that NextBlock
// returned and Link added.
func (x *Index) Insert(name string, pos uint32, n int) {
	b := pos / layout.LinesPerBlock
	x.used[b] |= lineMask(int(pos%layout.LinesPerBlock), n)
	x.relist(b)
	x.table.insert(hashName(name), pos)
}

// Remove removes an entry.
//
// Precondition: a Search found the entry, and it has not been removed since.
func (x *Index) Remove(e *Entry) {
	b := e.Pos / layout.LinesPerBlock
	x.used[b] &^= lineMask(int(e.Pos%layout.LinesPerBlock), e.Lines())
	x.relist(b)
	x.table.remove(e.hash, e.Pos)
}
