package fsck

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// lostFile is a file with data in bad ranges.
type lostFile struct {
	ranges   []lostRange
	dir      uint64 // a directory that contains a name of the file; 0: not found
	at       int64  // region offset in bytes of the name's dentry
	attr     bool   // the value of an attribute is lost, too
	attrAt   int64  // region offset in bytes of that value
	attrName string
}

// lostRange is unreadable data of a file: n bytes at the file offset off and the region offset at.
type lostRange struct{ off, n, at int64 }

// readBad reads the bad ranges of the filesystem's list and of the kernel's list. Blocks of the
// first that have no owner are taken offline; the next mount adds the second to the first.
func (p *pass) readBad() {
	known := func(b layout.BadRange) {
		p.rep.BadRanges++
		p.rep.BadBlocks += b.Len - p.poison.count(b.Block, b.Len)
		p.poison.setRun(b.Block, b.Len)
	}
	for i := int64(0); i < layout.LinesPerBlock; i++ {
		off := p.sb.BadOff + i*layout.LineSize
		var l layout.Line
		if err := p.line(off, &l); err != nil {
			fix := p.put1(off, layout.Line{})
			if err == errSum && !p.clean { // interrupted while it was written; a mount clears it silently
				if p.try(fix) == nil {
					continue
				}
			}
			p.unreadable(BadList, 0, off, err, fix, "the bad-range list's line")
			continue
		}
		var b layout.BadRange
		if b.Get(&l); b.Len == 0 {
			continue
		}
		if b.Block >= p.sb.Blocks() || b.Len > p.sb.Blocks()-b.Block {
			p.problem(BadList, 0, off, p.put1(off, layout.Line{}), "the bad-range list's line at offset %d has blocks %d+%d, but the filesystem has %d blocks", off, b.Block, b.Len, p.sb.Blocks())
			continue
		}
		p.bad.setRun(b.Block, b.Len)
		known(b)
	}
	kernel, err := p.r.BadRanges()
	if err != nil {
		p.problem(Media, 0, 0, nil, "the kernel's list of bad memory cannot be read: %v", err)
	}
	for _, k := range kernel {
		lo := uint64(k.Off) >> layout.BlockShift
		hi := min(uint64(k.Off+k.Len+layout.BlockSize-1)>>layout.BlockShift, p.sb.Blocks())
		if lo < hi && !p.poison.hasAll(lo, hi-lo) {
			known(layout.BadRange{Block: lo, Len: hi - lo})
		}
	}
}

// offline claims the bad blocks that have no owner, and returns their number.
func (p *pass) offline() (n uint64) {
	for w, bad := range p.bad {
		if bad != 0 {
			n += uint64(bits.OnesCount64(bad &^ p.used[w]))
			p.used[w] |= bad
		}
	}
	return n
}

// lostData records the data that a file with size bytes has lost in an extent.
func (p *pass) lostData(ino uint64, e layout.Extent, size uint64) {
	n := uint64(e.Len)
	if e.Flags&layout.ExtentUnwritten != 0 || !p.poison.hasAny(e.Block, n) {
		return
	}
	f := p.lostFile(ino)
	for i, k := p.poison.nextRun(e.Block, n); k > 0; i, k = p.poison.nextRun(i+k, e.Block+n-i-k) {
		off := (e.Logical + i - e.Block) << layout.BlockShift
		if off >= size {
			break
		}
		m := int64(min(k<<layout.BlockShift, size-off))
		if k := len(f.ranges) - 1; k >= 0 && f.ranges[k].off+f.ranges[k].n == int64(off) {
			f.ranges[k].n += m
		} else {
			f.ranges = append(f.ranges, lostRange{int64(off), m, int64(i) << layout.BlockShift})
		}
	}
}

// lostValue records that the value of an attribute is lost, if it is in a bad range.
func (p *pass) lostValue(ino uint64, r layout.XattrRun, name string) {
	if p.poison.hasAny(r.Block, uint64(r.Len)) {
		f := p.lostFile(ino)
		f.attr, f.attrAt, f.attrName = true, int64(r.Block)<<layout.BlockShift, name
	}
}

// lostFile returns the record of a file that lost data, and makes it if needed.
func (p *pass) lostFile(ino uint64) *lostFile {
	f := p.lost[ino]
	if f == nil {
		f = &lostFile{}
		p.lost[ino] = f
	}
	return f
}

// named records the name of a file that lost data: the dentry at region offset at, in directory
// dir.
func (p *pass) named(ino, dir uint64, at int64) {
	if f := p.lost[ino]; f != nil && f.dir == 0 {
		f.dir, f.at = dir, at
	}
}

// path returns the path from the filesystem's root of the dentry at region offset at, in directory
// dir. It returns "" if the path is unknown.
func (p *pass) path(dir uint64, at int64) string {
	var parts []string
	for n := len(p.dirs) + 1; n > 0; n-- {
		name := p.nameAt(at)
		if len(name) == 0 {
			return "" // just removed
		}
		parts = append(parts, string(name))
		if dir == layout.RootIno {
			slices.Reverse(parts)
			return "/" + strings.Join(parts, "/")
		}
		in := p.info(dir)
		if in == nil || in.from == 0 {
			break
		}
		dir, at = in.from, in.at
	}
	return ""
}

// reportLost reports the files that lost data, with a problem for each range. No repair restores
// the data; the user has to overwrite or remove the file.
func (p *pass) reportLost() {
	for _, ino := range slices.Sorted(maps.Keys(p.lost)) {
		f := p.lost[ino]
		who, path := fmt.Sprintf("inode %d, which has no name,", ino), ""
		if f.dir != 0 {
			if path = p.path(f.dir, f.at); path != "" {
				who = fmt.Sprintf("%q (inode %d)", path, ino)
			}
		}
		slices.SortFunc(f.ranges, func(a, b lostRange) int { return cmp.Compare(a.off, b.off) })
		for _, r := range f.ranges {
			p.lostProblem(Problem{Code: LostData, Ino: ino, Offset: r.at, Path: path, FileOffset: r.off, Bytes: r.n,
				What: fmt.Sprintf("%s lost bytes %d..%d: the memory at offset %d is bad; overwrite or remove the file", who, r.off, r.off+r.n-1, r.at)})
		}
		if f.attr {
			p.lostProblem(Problem{Code: LostData, Ino: ino, Offset: f.attrAt, Path: path,
				What: fmt.Sprintf("%s lost the value of its attribute %q: the memory at offset %d is bad", who, f.attrName, f.attrAt)})
		}
	}
}

// lostProblem reports lost data.
func (p *pass) lostProblem(pr Problem) {
	p.rep.LostRanges++
	p.leave(pr)
}
