package fsck

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// dirRun is a run of blocks of a directory: a worker's unit of work.
type dirRun struct {
	d        *dir
	block, n uint64 // region block; blocks
	first    bool   // the first run of its directory
}

// lookDir is the number of blocks in a dirRun.
const lookDir = 16

// dirRuns divides the directories into runs.
func (p *pass) dirRuns() (out []dirRun) {
	for _, d := range p.dirs {
		first := true
		for _, e := range d.ext {
			for b, end := e.Block, e.Block+uint64(e.Len); b < end; b += lookDir {
				out = append(out, dirRun{d, b, min(lookDir, end-b), first})
				first = false
			}
		}
	}
	return out
}

// dentryLook is a directory line that is not empty, as a worker read it.
type dentryLook struct {
	off  int64 // region offset in bytes
	what uint8 // dentryWhole, ...
	n    uint8 // of a dentryWhole: its number of lines
	typ  uint8
	ino  uint64
	name []byte
	hash uint64
	bad  string // of a dentryBad: the reason
	err  error  // of a dentryMedia
}

const (
	dentryWhole  uint8 = iota // a valid dentry
	dentryMedia               // its block cannot be read
	dentryLine                // wrong checksum
	dentryKind                // typ is an unknown line kind
	dentryBroken              // a line of its name has a wrong checksum
	dentryBad                 // malformed dentry
)

// allDirs reads every directory and counts the names of each inode.
func (p *pass) allDirs() {
	runs := p.dirRuns()
	var seen names
	ordered(p.o.Workers, len(runs), func(i int) []dentryLook { return p.lookDir(runs[i]) }, func(i int, looks []dentryLook) {
		if i%64 == 0 {
			p.progress("checking directories", int64(i), int64(len(runs)))
		}
		if runs[i].first {
			seen = names{}
		}
		for j := range looks {
			p.dentry(runs[i].d, &looks[j], seen)
		}
	})
}

var nameSeed = maphash.MakeSeed()

// names finds duplicate names in a directory: it maps a name's hash to the region offset in bytes
// of its dentry.
type names map[uint64]int64

// lookDir reads a run of directory blocks. It runs on several goroutines at once and reports
// nothing.
func (p *pass) lookDir(r dirRun) (out []dentryLook) {
	buf := make([]byte, r.n*layout.BlockSize)
	for i := range r.n {
		off := int64(r.block+i) << layout.BlockShift
		b := buf[i*layout.BlockSize : (i+1)*layout.BlockSize]
		if err := p.block(r.block+i, b); err != nil {
			out = append(out, dentryLook{off: off, what: dentryMedia, err: err})
			continue
		}
		for i := 0; i < layout.LinesPerBlock; {
			k := p.lookDentry(b, off, i)
			if k.what != dentryWhole || k.n > 0 {
				out = append(out, k)
			}
			i += max(1, int(k.n))
		}
	}
	return out
}

// lookDentry reads the dentry that begins at line i of the directory block in buf, which is at
// region offset off. A free line is returned as a dentry of no lines.
func (p *pass) lookDentry(buf []byte, off int64, i int) dentryLook {
	k := dentryLook{off: off + int64(i)*layout.LineSize}
	l := p.at(buf, off, i)
	if l == nil {
		k.what = dentryLine
		return k
	}
	if kind := l.DentryKind(); kind != layout.DentryHead {
		if kind > layout.DentryCont {
			k.what, k.typ = dentryKind, kind
		}
		return k
	}
	nl := l.DentryNameLen()
	n := layout.DentryLines(nl)
	switch {
	case nl == 0:
		k.what, k.bad = dentryBad, "has no name"
		return k
	case i+n > layout.LinesPerBlock:
		k.what, k.bad = dentryBad, "reaches beyond its block"
		return k
	}
	k.name = l.NamePart(0, nl)
	for j := 1; j < n; j++ {
		c := p.at(buf, off, i+j)
		if c == nil {
			k.what = dentryBroken
			return k
		}
		if c.DentryKind() != layout.DentryCont {
			k.what, k.bad = dentryBad, fmt.Sprintf("has no continuation in its line %d", j)
			return k
		}
		k.name = append(k.name[:len(k.name):len(k.name)], c.NamePart(j, nl)...)
	}
	k.n, k.ino, k.typ, k.hash = uint8(n), l.DentryIno(), l.DentryType(), maphash.Bytes(nameSeed, k.name)
	return k
}

// dentry judges a result of lookDentry. seen are the names of the directory so far.
func (p *pass) dentry(d *dir, k *dentryLook, seen names) {
	switch lo := k.off; k.what {
	case dentryWhole:
		p.entry(d, k, seen)
	case dentryMedia:
		p.unreadable(Media, d.ino, lo, k.err, nil, "a directory block")
		p.namesLost = true
	case dentryLine:
		if !p.problem(DirLine, d.ino, lo, p.put1(lo, layout.Line{}), "the line of directory %d at offset %d has a wrong checksum", d.ino, lo) {
			p.namesLost = true
		}
	case dentryKind:
		p.problem(DentrySyntax, d.ino, lo, p.put1(lo, layout.Line{}), "the line of directory %d at offset %d has the unknown kind %d", d.ino, lo, k.typ)
	case dentryBroken:
		// The name is lost: the inode goes to lost+found, and the damaged line is reported
		// separately.
		p.silently(p.clearDentry(lo, 1))
		p.namesLost = true
	case dentryBad:
		if !p.problem(DentrySyntax, d.ino, lo, p.clearDentry(lo, 1), "the entry of directory %d at offset %d %s", d.ino, lo, k.bad) {
			p.namesLost = true
		}
	}
}

// nameAt reads the name of the dentry at region offset lo; nil if it cannot be read.
func (p *pass) nameAt(lo int64) []byte {
	var buf [layout.BlockSize]byte
	off := lo &^ (layout.BlockSize - 1)
	if p.block(uint64(lo)>>layout.BlockShift, buf[:]) != nil {
		return nil
	}
	return p.lookDentry(buf[:], off, int(lo-off)/layout.LineSize).name
}

// clearDentry returns a fix that frees the n lines of the dentry at lo in one transaction.
func (p *pass) clearDentry(lo int64, n int) func() error {
	return func() error {
		ch := make([]change, n)
		for j := range ch {
			ch[j].off = lo + int64(j)*layout.LineSize
		}
		return p.commit(ch)
	}
}

// entry checks a dentry that was read completely.
func (p *pass) entry(d *dir, k *dentryLook, seen names) {
	lo, name, ino, typ := k.off, k.name, k.ino, k.typ
	drop := p.clearDentry(lo, int(k.n))
	if string(name) == "." || string(name) == ".." || bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0 {
		if p.problem(DentryName, d.ino, lo, drop, "directory %d has the entry %q, which cannot be a name", d.ino, name) {
			return
		}
	}
	if old, ok := seen[k.hash]; ok && bytes.Equal(p.nameAt(old), name) {
		if p.problem(DentryDup, d.ino, lo, drop, "directory %d has the entry %q twice", d.ino, name) {
			return
		}
	}
	seen[k.hash] = lo

	in := p.info(ino)
	if in == nil {
		off := p.sb.InodeOff(ino)
		if off >= 0 && p.unsure.has(uint64(off)>>layout.BlockShift) {
			return // its block may hold inodes, so the entry may be right
		}
		p.problem(DentryDead, d.ino, lo, drop, "the entry %q of directory %d names inode %d, which is in no inode block", name, d.ino, ino)
		return
	}
	switch in.state {
	case slotUnknown:
		return
	case slotDamaged:
		if in.links++; in.links == 1 {
			in.typ, in.from, in.at = typ, d.ino, lo
		}
		return
	case slotFree:
		p.problem(DentryDead, d.ino, lo, drop, "the entry %q of directory %d names inode %d, which is free", name, d.ino, ino)
		return
	}
	if self := p.info(d.ino); self != nil {
		self.names = true
	}
	if want := uint8(in.mode >> 12 & 15); typ != want {
		p.problem(DentryType, d.ino, lo, p.edit(lo, func(l *layout.Line) { l.SetDentryTarget(ino, want) }),
			"the entry %q of directory %d has type %d, its inode %d has type %d", name, d.ino, typ, ino, want)
	}
	if in.isDir() {
		if in.links > 0 || ino == layout.RootIno {
			if ino != layout.RootIno && in.from != in.parent && d.ino == in.parent { // this entry is the right one
				old := *in
				in.from, in.at, in.lines = d.ino, lo, k.n
				p.info(d.ino).subs++
				p.info(old.from).subs--
				p.problem(DirParents, old.from, old.at, p.clearDentry(old.at, int(old.lines)),
					"an entry of directory %d names directory %d, which has a name in its parent %d", old.from, ino, d.ino)
				return
			}
			if p.problem(DirParents, d.ino, lo, drop, "the entry %q of directory %d names directory %d, which has a name already", name, d.ino, ino) {
				return
			}
			in.links++
			return
		}
		in.from, in.at, in.lines = d.ino, lo, k.n
		if self := p.info(d.ino); self != nil {
			self.subs++
		}
	}
	if in.links++; in.links == 1 && !in.isDir() {
		in.from, in.at = d.ino, lo
	}
	p.named(ino, d.ino, lo)
}

// tree checks that every inode is reachable from the root, and the link counts. It skips both if
// some directory could not be read completely.
func (p *pass) tree() {
	if p.incomplete() {
		return
	}
	p.orphans()
	if p.fixes > 0 {
		return
	}
	p.parents()
	p.reach()
	if p.fixes > 0 {
		return // these repairs change counts
	}
	for _, b := range p.inodeBlocks {
		for i := range p.inodes[b] {
			in := &p.inodes[b][i]
			io := int64(b)<<layout.BlockShift + int64(i)*layout.InodeSize
			ino := p.sb.InodeAt(io)
			if in.state != slotLive || in.nlink == 0 && in.links == 0 && ino != layout.RootIno {
				continue
			}
			want := in.links
			if in.isDir() {
				want = 2 + in.subs
			}
			if want == in.nlink || want == 0 {
				continue
			}
			p.problem(Nlink, ino, io, p.editCore(ino, func(c *layout.Core) { c.Nlink = want }),
				"inode %d has link count %d, expected %d", ino, in.nlink, want)
		}
	}
}

// orphans frees inodes without links and without a name, as recovery does. After a clean unmount
// such an inode is a problem. A directory with entries is not an orphan: it gets its link count
// back, and then a name in lost+found.
func (p *pass) orphans() {
	for _, b := range p.inodeBlocks {
		for i := range p.inodes[b] {
			in := &p.inodes[b][i]
			io := int64(b)<<layout.BlockShift + int64(i)*layout.InodeSize
			ino := p.sb.InodeAt(io)
			switch {
			case in.state != slotLive || in.nlink != 0 || in.links != 0 || ino == layout.RootIno:
			case in.names:
				p.problem(DentryOrphan, ino, io, p.editCore(ino, func(c *layout.Core) { c.Nlink = 2 + in.subs }), "the removed directory %d has entries", ino)
			case p.clean:
				p.problem(Orphan, ino, io, p.freeSlot(ino), "inode %d has no links, on a filesystem that was unmounted cleanly", ino)
			default:
				p.silently(p.freeSlot(ino))
			}
		}
	}
}

// editCore returns a fix that changes an inode's core line.
func (p *pass) editCore(ino uint64, f func(c *layout.Core)) func() error {
	return p.edit(p.sb.InodeOff(ino), func(l *layout.Line) {
		var c layout.Core
		c.Get(l)
		f(&c)
		c.Put(l)
	})
}

// parents checks the parent fields of directories.
func (p *pass) parents() {
	for _, d := range p.dirs {
		in := p.info(d.ino)
		want := in.from
		if d.ino == layout.RootIno {
			want = layout.RootIno
		}
		if want == 0 || in.parent == want || in.nlink == 0 {
			continue
		}
		p.problem(DirParent, d.ino, p.sb.InodeOff(d.ino), p.editCore(d.ino, func(c *layout.Core) { c.Parent = want }),
			"directory %d has parent %d, expected %d, which has its name", d.ino, in.parent, want)
	}
}

// reach finds inodes that no name leads to, and gives them a name in lost+found. It also breaks
// cycles of directories.
func (p *pass) reach() {
	p.info(layout.RootIno).seen = true
	var path []*inodeInfo
	for _, d := range p.dirs {
		// Walk up to a directory that was seen before, or to the end of the path. Each directory is
		// marked as seen once, so all walks together are linear. A walk that meets itself is a
		// cycle.
		in := p.info(d.ino)
		path = path[:0]
		top := d.ino
		for !in.seen && in.from != 0 && in.nlink != 0 {
			in.seen = true
			path = append(path, in)
			top = in.from
			in = p.info(in.from)
		}
		if inPath(path, in) {
			p.problem(DirCycle, top, p.sb.InodeOff(top), p.breakCycle(top), "directory %d is below itself", top)
		}
	}
	for _, b := range p.inodeBlocks {
		for i := range p.inodes[b] {
			in := &p.inodes[b][i]
			if in.state != slotLive || in.links != 0 || in.nlink == 0 {
				continue
			}
			io := int64(b)<<layout.BlockShift + int64(i)*layout.InodeSize
			ino := p.sb.InodeAt(io)
			if ino == layout.RootIno {
				continue
			}
			p.problem(Unreachable, ino, io, p.adopt(ino, in), "inode %d of mode %#o with %d links has no name", ino, in.mode, in.nlink)
		}
	}
}

// inPath reports whether path contains in.
func inPath(path []*inodeInfo, in *inodeInfo) bool {
	for _, q := range path {
		if q == in {
			return true
		}
	}
	return false
}

// breakCycle returns a fix that removes the name of a directory, so that the next pass finds the
// directory unreachable.
func (p *pass) breakCycle(ino uint64) func() error {
	return func() error {
		from := p.byIno[p.info(ino).from]
		if from == nil {
			return fmt.Errorf("the directory that contains its name is not known")
		}
		lo, n := p.findEntry(from, func(l *layout.Line) bool { return l.DentryIno() == ino })
		if lo == 0 {
			return fmt.Errorf("its entry was not found")
		}
		return p.clearDentry(lo, n)()
	}
}

// findEntry returns the region offset in bytes and the number of lines of the first dentry that
// match accepts; the offset is 0 if there is no such dentry.
func (p *pass) findEntry(d *dir, match func(head *layout.Line) bool) (lo int64, n int) {
	for _, e := range d.ext {
		for b := e.Block; b < e.Block+uint64(e.Len); b++ {
			for i := int64(0); i < layout.LinesPerBlock; i++ {
				var l layout.Line
				off := int64(b)<<layout.BlockShift + i*layout.LineSize
				if p.line(off, &l) == nil && l.DentryKind() == layout.DentryHead && match(&l) {
					return off, layout.DentryLines(l.DentryNameLen())
				}
			}
		}
	}
	return 0, 0
}

// isDirMode reports whether mode is a directory's.
func isDirMode(mode uint16) bool { return mode&syscall.S_IFMT == syscall.S_IFDIR }
