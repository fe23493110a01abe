package dirindex

import "github.com/daxfsd/daxfsd/fs/layout"

// New returns the index of a directory of n blocks. A block is a hole until SetBlock.
//
// Precondition: n <= MaxBlocks.
func New(n uint64) *Index {
	return &Index{blocks: make([]uint64, n), used: make([]uint64, n), listed: make([]uint32, n)}
}

// SetBlock sets the region block of directory block b. Called before Load.
func (x *Index) SetBlock(b, block uint64) { x.blocks[b] = block }

// Damage is a part of a directory that Load could not read. The names in it are lost.
type Damage struct {
	Kind DamageKind
	Off  int64 // region offset in bytes
	Err  error // why the block cannot be read; for Unreadable only
}

// DamageKind is the kind of a Damage.
type DamageKind int

const (
	Unreadable DamageKind = iota // a block cannot be read
	BadLine                      // a line has a wrong checksum
	BadEntry                     // an entry with missing or malformed lines
)

// Load fills the index from the directory's blocks. read reads bytes at a region offset. seed is
// the seed of the filesystem's checksums. damaged is called for each part that is lost, and Load
// continues.
func (x *Index) Load(seed uint32, read func(off int64, b []byte) error, damaged func(Damage)) {
	l := loader{x: x, seed: seed, damaged: damaged}
	for b := len(x.blocks) - 1; b >= 0; b-- { // Room prefers blocks that are listed last
		if x.blocks[b] == 0 {
			x.holes = append(x.holes, uint32(b))
			continue
		}
		l.b, l.off = uint32(b), int64(x.blocks[b])<<layout.BlockShift
		if err := read(l.off, l.buf[:]); err != nil {
			damaged(Damage{Unreadable, l.off, err})
			x.lose(l.b, 0, layout.LinesPerBlock, nil)
			continue
		}
		for i := 0; i < layout.LinesPerBlock; {
			i += l.lineAt(i)
		}
		x.relist(l.b)
	}
}

// loader is the state of Load at one block.
type loader struct {
	x       *Index
	seed    uint32
	damaged func(Damage)
	b       uint32 // number of the directory block
	off     int64  // region offset of the block in bytes
	buf     [layout.BlockSize]byte
}

func (l *loader) line(i int) *layout.Line { return (*layout.Line)(l.buf[i*layout.LineSize:]) }

func (l *loader) valid(i int) bool {
	return l.line(i).Valid(l.seed, l.off+int64(i)*layout.LineSize)
}

// lineAt adds the entry that begins at line i, if any, and returns its number of lines; a line
// without an entry counts as 1.
func (l *loader) lineAt(i int) (n int) {
	if !l.valid(i) {
		l.lose(BadLine, i, 1)
		return 1
	}
	if l.line(i).DentryKind() != layout.DentryHead {
		return 1
	}
	nl := l.line(i).DentryNameLen()
	k := layout.DentryLines(nl)
	whole, n := nl != 0 && i+k <= layout.LinesPerBlock, 1 // n: lines that may belong to the entry
	for ; n < k && i+n < layout.LinesPerBlock; n++ {
		if !l.valid(i + n) {
			whole = false
		} else if l.line(i+n).DentryKind() != layout.DentryCont {
			whole = false
			break
		}
	}
	if !whole {
		l.lose(BadEntry, i, n)
		return n
	}
	var buf [layout.NameMax]byte
	name := buf[:0]
	for j := 0; j < k; j++ {
		name = append(name, l.line(i+j).NamePart(j, nl)...)
	}
	l.x.used[l.b] |= lineMask(i, k)
	l.x.table.insert(hashBytes(name), l.b*layout.LinesPerBlock+uint32(i))
	return k
}

// lose records and reports n lost lines of the block from line i on.
func (l *loader) lose(kind DamageKind, i, n int) {
	l.damaged(Damage{Kind: kind, Off: l.off + int64(i)*layout.LineSize})
	l.x.lose(l.b, i, n, l.line(i))
}
