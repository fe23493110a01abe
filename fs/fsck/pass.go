package fsck

import (
	"fmt"
	"math/bits"
	"slices"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// pass is one check of the whole filesystem.
type pass struct {
	*checker
	first  bool      // no earlier pass repaired anything
	fixes  int       // problems repaired; if any, another pass is needed
	found  []Problem // problems not repaired, at most MaxProblems
	left   int       // number of problems found and not repaired
	mended []Problem // problems repaired, reported when the pass ends; at most MaxProblems

	used   bitset // claimed blocks, by block
	shared bitset // of these, blocks claimed by extents that may share them, by block
	meta   bitset // metadata chunks, by chunk
	maybe  bitset // of these, chunks known from their header only, since their bit in the chunk map is lost, by chunk
	inoB   bitset // inode blocks, by block
	unsure bitset // blocks whose type or owner is unknown, by block

	fixed bitset // fixed area, slots and second superblock, by block
	bad   bitset // bad blocks of the filesystem's list, by block
	// poison is bad and the bad blocks of the kernel's list, by block.
	poison  bitset
	lost    map[uint64]*lostFile // by inode
	sharers []owners             // the claims of extents that may share their blocks

	inodeBlocks []uint64
	inodes      map[uint64]*inodeBlock // by block
	dirs        []*dir
	byIno       map[uint64]*dir

	// namesLost: something that contains names could not be read. damaged is the number of inode
	// slots whose core line does not verify. Either forbids conclusions from the absence of names.
	namesLost bool
	damaged   int
	chainLost bool                      // blocks with an owner may seem free
	lists     map[uint64][]uint64       // first blocks of attribute lists, by owner; made when first needed
	exts      map[uint64][]extentHeader // extent blocks, by owner, from a scan of all metadata blocks; made when first needed
}

// inodeBlock is the state of the 16 inodes of a block.
type inodeBlock [layout.InodesPerBlock]inodeInfo

// The states of an inode slot.
const (
	slotUnknown uint8 = iota // its block could not be read, or may not be an inode block
	slotFree
	slotLive
	slotDamaged // its core line does not verify
)

// inodeInfo is the state of an inode.
type inodeInfo struct {
	state  uint8
	seen   bool // directories: reachable from the root
	typ    uint8
	format uint16
	mode   uint16
	nlink  uint32
	links  uint32 // names of the inode
	subs   uint32 // directories: names of directories in it
	gen    uint32
	from   uint64 // the directory that contains its name, or one of its names; 0: none
	at     int64  // region offset in bytes of that dentry
	lines  uint8  // number of lines of that dentry
	names  bool   // directories: contains names
	parent uint64 // directories: the parent field
}

func (in *inodeInfo) isDir() bool {
	return in.state == slotLive && in.mode&syscall.S_IFMT == syscall.S_IFDIR
}

// dir is a directory and its extents.
type dir struct {
	ino  uint64
	size uint64
	ext  []slotExtent
}

// slotExtent is an extent and its slot.
type slotExtent struct {
	layout.Extent
	off int64 // region offset in bytes of the line
	i   int   // index of the slot in the line
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

// nextRun returns the first run of set bits among the n bits from i on: k bits from bit at on. k is
// 0 if no bit is set.
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

// forRun calls f for each word that contains any of the n bits from i on, with the mask of these
// bits.
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

// run does the four steps. A step that repaired something requires a new pass, since the later
// steps depend on its results.
func (p *pass) run() {
	p.used.setRun(0, uint64(p.sb.StaticEnd)>>layout.BlockShift)
	tail := uint64(p.sb.DataEnd()) >> layout.BlockShift
	p.used.setRun(tail, p.sb.Blocks()-tail)
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
	// The fixed area is not counted as used or free. The slots and the second superblock are
	// counted as used.
	static := uint64(p.sb.StaticEnd) >> layout.BlockShift
	r := p.rep
	r.Incomplete = p.incomplete()
	r.UsedBlocks = p.sb.Blocks() - tail + bad + r.MetaChunks + r.InodeBlocks + r.DirBlocks + r.ExtentBlocks + r.XattrBlocks + r.DataBlocks
	r.FreeBlocks = p.sb.Blocks() - static - min(r.UsedBlocks, p.sb.Blocks()-static)
}

// incomplete reports whether some names or inodes could not be read, so that absence proves
// nothing.
func (p *pass) incomplete() bool { return p.namesLost || p.damaged > 0 }

// problem reports a problem, and repairs it with fix unless fix is nil. It reports whether it was
// repaired.
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
	if len(p.mended) == MaxProblems { // reported now, without a path
		p.tell(pr)
		return true
	}
	p.mended = append(p.mended, pr)
	return true
}

// leave records a problem that is not repaired.
func (p *pass) leave(pr Problem) {
	p.left++
	if len(p.found) < MaxProblems {
		p.found = append(p.found, pr)
	}
}

// silently runs a fix that recovery makes silently, too, and reports whether it succeeded.
func (p *pass) silently(fix func() error) bool {
	if p.try(fix) != nil {
		return false
	}
	p.fixes++
	return true
}

// conclude reports what the pass repaired, now that the names of all inodes are known. Check
// reports the other problems after the last pass.
func (p *pass) conclude() {
	for i := range p.mended {
		p.mended[i].Path = p.pathOf(&p.mended[i])
		p.tell(p.mended[i])
	}
	for i := range p.found {
		p.found[i].Path = p.pathOf(&p.found[i])
	}
}

// pathOf returns the path, from the filesystem's root, of the inode that a problem concerns, or ""
// if it has none.
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

// unreadable reports a line with a wrong checksum, or a media error.
func (p *pass) unreadable(code string, ino uint64, off int64, err error, fix func() error, what string) bool {
	if err != errSum {
		return p.problem(Media, ino, off, nil, "%s at offset %d cannot be read: %v", what, off, err)
	}
	return p.problem(code, ino, off, fix, "%s at offset %d has a wrong checksum", what, off)
}

// put1 returns a fix that writes one line.
func (p *pass) put1(off int64, l layout.Line) func() error {
	return func() error { return p.commit([]change{{off, l}}) }
}

// edit returns a fix that changes the line at region offset off.
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

// info returns the state of inode ino, or nil if there can be no such inode.
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
