package fsck

import (
	"fmt"
	"math/bits"
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// pass is one look at everything.
type pass struct {
	*checker
	first  bool      // nothing was mended yet
	fixes  int       // problems mended; another pass must look again
	found  []Problem // problems not mended, MaxProblems of them at most
	left   int       // how many were found and not mended
	mended []Problem // told when the pass ends, MaxProblems of them at most

	used   bitset // blocks claimed, by block
	shared bitset // of these, by extents that may share them
	meta   bitset // metadata chunks, by chunk
	maybe  bitset // of these, by chunk: their header says so, their bit in the chunk map is lost
	inoB   bitset // inode blocks, by block
	unsure bitset // blocks whose type or owner is not known, by block

	fixed bitset // fixed area and second superblock, by block
	bad   bitset // by the bad-range list, by block
	// poison is that and what the kernel's list has more.
	poison  bitset
	lost    map[uint64]*lostFile // by inode
	sharers []owners             // what extents that may share their blocks claim

	inodeBlocks []uint64
	inodes      map[uint64]*inodeBlock // by block
	dirs        []*dir
	byIno       map[uint64]*dir

	// namesLost: something that holds names could not be read. damaged counts inode
	// slots whose core line does not verify. Either forbids conclusions from what is
	// not there.
	namesLost bool
	damaged   int
	chainLost bool                      // blocks that belong to somebody may seem free
	lists     map[uint64][]uint64       // lazily: the same of first blocks of attributes, by owner
	exts      map[uint64][]extentHeader // lazily: extent blocks found by looking at every metadata block
}

// inodeBlock is what is known of the 16 inodes of a block.
type inodeBlock [layout.InodesPerBlock]inodeInfo

// The states of an inode slot.
const (
	slotUnknown uint8 = iota // its block could not be read, or is not known to hold inodes
	slotFree
	slotLive
	slotDamaged // its core line does not verify
)

// inodeInfo is what is known of an inode.
type inodeInfo struct {
	state  uint8
	seen   bool // dirs: reached from the root
	typ    uint8
	format uint16
	mode   uint16
	nlink  uint32
	links  uint32 // names that lead to it
	subs   uint32 // dirs: directories named in it
	gen    uint32
	from   uint64 // the directory that names it, or one of them
	at     int64  // the place of that name
	lines  uint8  // and how many it has
	names  bool   // dirs: there are names in it
	parent uint64 // dirs: the parent field
}

func (in *inodeInfo) isDir() bool {
	return in.state == slotLive && in.mode&syscall.S_IFMT == syscall.S_IFDIR
}

// dir is a directory and the extents that hold it.
type dir struct {
	ino  uint64
	size uint64
	ext  []slotExtent
}

// slotExtent is an extent and the slot it stands in.
type slotExtent struct {
	layout.Extent
	off int64 // of the line
	i   int   // slot in the line
}

type bitset []uint64

func newBitset(n uint64) bitset     { return make(bitset, (n+63)/64) }
func (b bitset) has(i uint64) bool  { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitset) set(i uint64)       { b[i/64] |= 1 << (i % 64) }
func (b bitset) unset(i uint64)     { b[i/64] &^= 1 << (i % 64) }
func (b bitset) setRun(i, n uint64) { forRun(i, n, func(w int, m uint64) { b[w] |= m }) }
func (b bitset) hasAll(i, n uint64) bool {
	var x uint64
	forRun(i, n, func(w int, m uint64) { x |= m &^ b[w] })
	return x == 0
}
func (b bitset) hasAny(i, n uint64) bool {
	var x uint64
	forRun(i, n, func(w int, m uint64) { x |= b[w] & m })
	return x != 0
}

func (b bitset) count(i, n uint64) (c uint64) {
	forRun(i, n, func(w int, m uint64) { c += uint64(bits.OnesCount64(b[w] & m)) })
	return c
}

// nextRun is the first run of bits that are set, of n from i on; k is 0 if there is none.
func (b bitset) nextRun(i, n uint64) (at, k uint64) {
	end := i + n
	for i < end && !b.has(i) {
		if b[i/64]>>(i%64) == 0 {
			i = (i/64 + 1) * 64
		} else {
			i += uint64(bits.TrailingZeros64(b[i/64] >> (i % 64)))
		}
	}
	if i >= end {
		return end, 0
	}
	for k = 0; i+k < end && b.has(i+k); {
		if w := ^b[(i+k)/64] >> ((i + k) % 64); w != 0 {
			k += uint64(bits.TrailingZeros64(w))
		} else {
			k = (i+k)/64*64 + 64 - i
		}
	}
	return i, min(k, end-i)
}

// forRun calls f for each word that n bits from i on touch.
func forRun(i, n uint64, f func(w int, mask uint64)) {
	for n > 0 {
		k := min(64-i%64, n)
		f(int(i/64), ^uint64(0)>>(64-k)<<(i%64))
		i, n = i+k, n-k
	}
}

func (c *checker) newPass() *pass {
	p := &pass{checker: c, inodes: map[uint64]*inodeBlock{}, byIno: map[uint64]*dir{}, lost: map[uint64]*lostFile{}}
	n := c.sb.Blocks()
	p.used, p.shared, p.inoB, p.unsure = newBitset(n), newBitset(n), newBitset(n), newBitset(n)
	p.bad, p.poison = newBitset(n), newBitset(n)
	p.meta, p.maybe = newBitset(uint64(c.sb.Chunks())), newBitset(uint64(c.sb.Chunks()))
	r := c.rep
	r.Incomplete = false
	r.BadRanges, r.BadBlocks, r.LostRanges = 0, 0, 0
	r.Files, r.Dirs, r.Symlinks, r.Special = 0, 0, 0, 0
	r.MetaChunks, r.InodeBlocks, r.DirBlocks, r.ExtentBlocks, r.XattrBlocks, r.DataBlocks = 0, 0, 0, 0, 0, 0
	return p
}

// run is the four steps. A step that mended something is followed by a new pass, since what comes
// after it depends on it.
func (p *pass) run() {
	p.used.setRun(0, uint64(p.sb.StaticEnd)>>layout.BlockShift)
	p.used.set(uint64(p.sb.BackupOff) >> layout.BlockShift)
	p.fixed = slices.Clone(p.used)
	p.readBad()
	p.chunks()
	p.decideGuesses()
	p.allInodes()
	p.allDirs()
	p.rebuild()
	if p.fixes == 0 {
		p.tree()
	}
	if p.fixes == 0 {
		p.reportLost()
	}
	p.conclude()
	bad := p.offline()
	// The fixed area and the second superblock are not counted as used or free:
	// the second superblock is used.
	static := uint64(p.sb.StaticEnd) >> layout.BlockShift
	r := p.rep
	r.Incomplete = p.incomplete()
	r.UsedBlocks = 1 + bad + r.MetaChunks + r.InodeBlocks + r.DirBlocks + r.ExtentBlocks + r.XattrBlocks + r.DataBlocks
	r.FreeBlocks = p.sb.Blocks() - static - min(r.UsedBlocks, p.sb.Blocks()-static)
}

// incomplete: what is not seen may be there all the same.
func (p *pass) incomplete() bool { return p.namesLost || p.damaged > 0 }

// problem reports a problem and mends it with fix; fix nil: it cannot be mended. It says whether it
// was mended.
func (p *pass) problem(code string, ino uint64, off int64, fix func() error, format string, a ...any) bool {
	pr := Problem{Code: code, Ino: ino, Offset: off, What: fmt.Sprintf(format, a...)}
	if what := loses[code]; what != "" && fix != nil {
		pr.What += "; a repair loses " + what
	}
	if !p.mend(&pr, fix) {
		p.leave(pr)
		return false
	}
	p.fixes++
	if len(p.mended) == MaxProblems { // told now, without a path
		p.tell(pr)
		return true
	}
	p.mended = append(p.mended, pr)
	return true
}

// leave notes a problem that is not mended.
func (p *pass) leave(pr Problem) {
	p.left++
	if len(p.found) < MaxProblems {
		p.found = append(p.found, pr)
	}
}

// silently runs a fix of what recovery, too, mends without a word, and says whether that worked.
func (p *pass) silently(fix func() error) bool {
	if p.try(fix) != nil {
		return false
	}
	p.fixes++
	return true
}

// conclude tells what the pass mended, now that it is known which names lead where. What is left is
// told in the end.
func (p *pass) conclude() {
	for i := range p.mended {
		p.mended[i].Path = p.pathOf(&p.mended[i])
		p.tell(p.mended[i])
	}
	for i := range p.found {
		p.found[i].Path = p.pathOf(&p.found[i])
	}
}

// pathOf is the path of the inode that a problem concerns, from the filesystem's root; "" if there
// is none.
func (p *pass) pathOf(pr *Problem) string {
	if pr.Path != "" || pr.Ino == 0 {
		return pr.Path
	}
	if pr.Ino == layout.RootIno {
		return "/"
	}
	if in := p.info(pr.Ino); in != nil && in.from != 0 {
		return p.path(in.from, in.at)
	}
	return ""
}

// unreadable reports a line that does not verify, or a media error.
func (p *pass) unreadable(code string, ino uint64, off int64, err error, fix func() error, what string) bool {
	if err != errSum {
		return p.problem(Media, ino, off, nil, "%s at offset %d cannot be read: %v", what, off, err)
	}
	return p.problem(code, ino, off, fix, "%s at offset %d has a wrong checksum", what, off)
}

// put1 commits one changed line.
func (p *pass) put1(off int64, l layout.Line) func() error {
	return func() error { return p.commit([]change{{off, l}}) }
}

// edit commits a change of the line at off.
func (p *pass) edit(off int64, f func(l *layout.Line)) func() error {
	return func() error {
		var l layout.Line
		if err := p.line(off, &l); err != nil {
			return err
		}
		f(&l)
		return p.commit([]change{{off, l}})
	}
}

// info is what is known of inode ino; nil if there can be no such inode.
func (p *pass) info(ino uint64) *inodeInfo {
	off := p.sb.InodeOff(ino)
	if off < 0 {
		return nil
	}
	ib := p.inodes[uint64(off)>>layout.BlockShift]
	if ib == nil {
		return nil
	}
	return &ib[off%layout.BlockSize/layout.InodeSize]
}
