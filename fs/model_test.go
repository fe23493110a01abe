package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"path"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// model is the simplest filesystem that gives the expected answers.
type model struct {
	root *mnode
}

type mnode struct {
	kind byte // 'f', 'd', 'l'
	data []byte
	ents map[string]*mnode
	link string
	n    int // number of names
	mode uint32
	blk  []byte // the state of each file block: hole, unwritten or written
}

const (
	hole = iota
	unwritten
	written
)

// reshape applies f to the state of the model's blocks, and zeroes the content as fallocate does.
// The file never shrinks.
func (n *mnode) reshape(mode uint32, off, size int) {
	end := off + size
	for len(n.blk) < (end+4095)/4096 {
		n.blk = append(n.blk, hole)
	}
	for b := off / 4096; b*4096 < end; b++ {
		whole := b*4096 >= off && b*4096+4096 <= end
		switch {
		case mode&fs.FallocPunchHole != 0:
			if whole {
				n.blk[b] = hole
			}
		case n.blk[b] == hole || whole && mode&fs.FallocZeroRange != 0:
			n.blk[b] = unwritten
		}
	}
	if mode&(fs.FallocPunchHole|fs.FallocZeroRange) != 0 {
		for i := off; i < min(end, len(n.data)); i++ {
			n.data[i] = 0
		}
	}
	if mode&fs.FallocKeepSize == 0 && end > len(n.data) {
		n.data = append(n.data, make([]byte, end-len(n.data))...)
	}
}

// checkBlocks compares the results of SEEK_DATA and SEEK_HOLE, and the number of allocated blocks.
func (v *volume) checkBlocks(p string, n *mnode, ino uint64, blocks uint64) {
	v.Helper()
	have := uint64(0)
	for b, s := range n.blk {
		if s != hole {
			have++
		}
		off := int64(b) * 4096
		if off >= int64(len(n.data)) {
			continue
		}
		at, e := v.FS.Lseek(&v.Ctx, ino, off, 3)
		if isData := e == 0 && at == off; isData != (s == written) {
			v.Fatalf("%s: SEEK_DATA at block %d gives %d (%v), expected state %d", p, b, at, e, s)
		}
		at, e = v.FS.Lseek(&v.Ctx, ino, off, 4)
		if isHole := e == 0 && at == off; isHole != (s != written) {
			v.Fatalf("%s: SEEK_HOLE at block %d gives %d (%v), expected state %d", p, b, at, e, s)
		}
	}
	if blocks/8 < have || blocks/8 > have+1+have/100 { // the rest may be extent blocks
		v.Fatalf("%s: %d blocks, expected %d", p, blocks/8, have)
	}
}

func newModel() *model {
	return &model{root: &mnode{kind: 'd', ents: map[string]*mnode{}, mode: 0o755}}
}

// dirs returns the paths of all directories.
func (m *model) dirs() []string {
	var out []string
	var walk func(p string, n *mnode)
	walk = func(p string, n *mnode) {
		out = append(out, p)
		for name, c := range n.ents {
			if c.kind == 'd' {
				walk(path.Join(p, name), c)
			}
		}
	}
	walk("/", m.root)
	sort.Strings(out)
	return out
}

func (m *model) at(p string) *mnode {
	n := m.root
	for _, e := range strings.Split(strings.Trim(p, "/"), "/") {
		if e != "" {
			n = n.ents[e]
		}
	}
	return n
}

// compare compares the model's tree with the filesystem's.
func (v *volume) compare(p string, n *mnode, ino uint64, seen map[*mnode]uint64) {
	v.Helper()
	a := v.Stat(ino)
	if old, ok := seen[n]; ok && old != ino {
		v.Fatalf("%s: hard links lead to inodes %d and %d", p, old, ino)
	}
	seen[n] = ino
	if a.Mode&0o7777 != n.mode {
		v.Fatalf("%s: mode %o, expected %o", p, a.Mode&0o7777, n.mode)
	}
	switch n.kind {
	case 'f':
		if a.Size != uint64(len(n.data)) || int(a.Nlink) != n.n {
			v.Fatalf("%s: size %d nlink %d, expected %d and %d", p, a.Size, a.Nlink, len(n.data), n.n)
		}
		if got := v.Read(ino, 0, len(n.data)+10); !bytes.Equal(got, n.data) {
			for i := range got {
				if got[i] != n.data[i] {
					v.Fatalf("%s: byte %d is %d, expected %d", p, i, got[i], n.data[i])
				}
			}
		}
		v.checkBlocks(p, n, ino, a.Blocks)
	case 'l':
		if got, e := v.FS.Readlink(&v.Ctx, ino, nil); e != 0 || string(got) != n.link {
			v.Fatalf("%s: link to %q (%v), expected %q", p, got, e, n.link)
		}
	case 'd':
		var want []string
		sub := 2
		for name, c := range n.ents {
			want = append(want, name)
			if c.kind == 'd' {
				sub++
			}
		}
		if int(a.Nlink) != sub {
			v.Fatalf("%s: nlink %d, expected %d", p, a.Nlink, sub)
		}
		want = append(want, ".", "..")
		sort.Strings(want)
		if got := v.Names(ino); strings.Join(got, "/") != strings.Join(want, "/") {
			v.Fatalf("%s: entries %q, expected %q", p, got, want)
		}
		for name, c := range n.ents {
			v.compare(path.Join(p, name), c, v.Ino(path.Join(p, name)), seen)
		}
	}
}

// TestModel applies the same random operations to the filesystem and the model.
func TestModel(t *testing.T) {
	for seed := int64(0); seed < 12; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, newVolume(t, fs.MinSize), seed, 1500) })
	}
}

// TestModelAtomic is TestModel with Options.Atomic.
func TestModelAtomic(t *testing.T) {
	for seed := int64(100); seed < 106; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, newAtomicVolume(t, fs.MinSize), seed, 1500) })
	}
}

func runModel(t *testing.T, v *volume, seed int64, ops int) {
	m := newModel()
	rnd := rand.New(rand.NewSource(seed))
	free := v.Free()
	name := func() string {
		n := fmt.Sprintf("n%d", rnd.Intn(12))
		if rnd.Intn(4) == 0 {
			n += strings.Repeat("z", rnd.Intn(252))
		}
		return n
	}
	for i := 0; i < ops; i++ {
		dirs := m.dirs()
		dp := dirs[rnd.Intn(len(dirs))]
		d, ino, nm := m.at(dp), v.Ino(dp), name()
		if len(d.ents) > 0 && rnd.Intn(2) == 0 {
			var have []string
			for n := range d.ents {
				have = append(have, n)
			}
			sort.Strings(have)
			nm = have[rnd.Intn(len(have))]
		}
		n := d.ents[nm]
		switch op := rnd.Intn(20); {
		case op < 4: // create
			var a fs.Attr
			e := v.FS.Mknod(&v.Ctx, ino, nm, syscall.S_IFREG|0o640, 0, &a)
			v.expect(e, n != nil, syscall.EEXIST)
			if e == 0 {
				d.ents[nm] = &mnode{kind: 'f', n: 1, mode: 0o640}
				v.FS.Forget(a.Ino, 1)
			}
		case op < 6 && len(dirs) < 20: // mkdir
			var a fs.Attr
			e := v.FS.Mkdir(&v.Ctx, ino, nm, 0o750, &a)
			v.expect(e, n != nil, syscall.EEXIST)
			if e == 0 {
				d.ents[nm] = &mnode{kind: 'd', ents: map[string]*mnode{}, mode: 0o750}
				v.FS.Forget(a.Ino, 1)
			}
		case op < 7: // symlink
			var a fs.Attr
			target := strings.Repeat("t", 1+rnd.Intn(300))
			e := v.FS.Symlink(&v.Ctx, ino, nm, target, &a)
			v.expect(e, n != nil, syscall.EEXIST)
			if e == 0 {
				d.ents[nm] = &mnode{kind: 'l', link: target, n: 1, mode: 0o777}
				v.FS.Forget(a.Ino, 1)
			}
		case op < 9: // unlink
			e := v.FS.Unlink(&v.Ctx, ino, nm)
			switch {
			case n == nil:
				v.expect(e, true, syscall.ENOENT)
			case n.kind == 'd':
				v.expect(e, true, syscall.EISDIR)
			default:
				v.OK(e)
				n.n--
				delete(d.ents, nm)
			}
		case op < 10: // rmdir
			e := v.FS.Rmdir(&v.Ctx, ino, nm)
			switch {
			case n == nil:
				v.expect(e, true, syscall.ENOENT)
			case n.kind != 'd':
				v.expect(e, true, syscall.ENOTDIR)
			case len(n.ents) > 0:
				v.expect(e, true, syscall.ENOTEMPTY)
			default:
				v.OK(e)
				delete(d.ents, nm)
			}
		case op < 13 && n != nil: // rename
			v.modelRename(m, rnd, dirs, dp, nm, name())
		case op < 14 && n != nil && n.kind != 'd': // link
			var a fs.Attr
			to := name()
			e := v.FS.Link(&v.Ctx, v.Ino(path.Join(dp, nm)), ino, to, &a)
			v.expect(e, d.ents[to] != nil, syscall.EEXIST)
			if e == 0 {
				d.ents[to] = n
				n.n++
				v.FS.Forget(a.Ino, 1)
			}
		case n != nil && n.kind == 'f':
			f := v.Ino(path.Join(dp, nm))
			if rnd.Intn(4) == 0 {
				size := rnd.Intn(80_000)
				v.Truncate(f, uint64(size))
				if size <= len(n.data) { // blocks beyond the end stay when the file grows
					n.blk = n.blk[:min(len(n.blk), (size+4095)/4096)]
				}
				n.data = append(n.data, make([]byte, max(0, size-len(n.data)))...)[:size]
				for len(n.blk) < (size+4095)/4096 {
					n.blk = append(n.blk, hole)
				}
				continue
			}
			if rnd.Intn(2) == 0 {
				off, size := rnd.Intn(60_000), 1+rnd.Intn(30_000)
				if rnd.Intn(2) == 0 {
					off, size = off&^4095, size&^4095+4096
				}
				mode := []uint32{0, fs.FallocKeepSize, fs.FallocPunchHole | fs.FallocKeepSize, fs.FallocZeroRange, fs.FallocZeroRange | fs.FallocKeepSize}[rnd.Intn(5)]
				v.Fallocate(f, mode, int64(off), int64(size))
				n.reshape(mode, off, size)
				continue
			}
			if rnd.Intn(3) == 0 {
				v.modelClone(m, rnd, f, n)
				continue
			}
			off, b := rnd.Intn(60_000), make([]byte, 1+rnd.Intn(20_000))
			rnd.Read(b)
			v.Write(f, int64(off), b)
			if need := off + len(b); need > len(n.data) {
				n.data = append(n.data, make([]byte, need-len(n.data))...)
			}
			copy(n.data[off:], b)
			n.reshape(0, off, len(b))
			for i := off / 4096; i*4096 < off+len(b); i++ {
				n.blk[i] = written
			}
		}
		if rnd.Intn(200) == 0 {
			v.Remount()
		}
		if rnd.Intn(20) == 0 {
			_, e := v.FS.Compact(&v.Ctx)
			v.OK(e)
		}
		if i%300 == 299 {
			v.compare("/", m.root, 1, map[*mnode]uint64{})
		}
	}
	v.Remount()
	v.compare("/", m.root, 1, map[*mnode]uint64{})
	v.RemoveAll(1)
	if v.Free() != free {
		t.Fatalf("%d blocks free at the start, %d at the end", free, v.Free())
	}
}

// modelClone copies a range of a random file to the file f, whose model is n.
func (v *volume) modelClone(m *model, rnd *rand.Rand, f uint64, n *mnode) {
	v.Helper()
	var paths []string
	for _, dp := range m.dirs() {
		for name, c := range m.at(dp).ents {
			if c.kind == 'f' && len(c.data) > 0 {
				paths = append(paths, path.Join(dp, name))
			}
		}
	}
	if len(paths) == 0 {
		return
	}
	sort.Strings(paths)
	p := paths[rnd.Intn(len(paths))]
	src := m.at(p)
	from := rnd.Intn(len(src.data))
	to, size := rnd.Intn(60_000), 1+rnd.Intn(len(src.data)-from)
	if rnd.Intn(4) > 0 {
		from, to = from&^4095, to&^4095
		if rnd.Intn(2) == 0 {
			size = max(4096, size&^4095)
		}
	}
	size = min(size, len(src.data)-from)
	if src == n && from < to+size && to < from+size {
		return
	}
	v.Clone(v.Ino(p), int64(from), f, int64(to), int64(size))
	data := append([]byte(nil), src.data[from:from+size]...)
	states := append([]byte(nil), src.blk...)
	end := max(to+size, len(n.data))
	n.data = append(n.data, make([]byte, end-len(n.data))...)
	copy(n.data[to:], data)
	for len(n.blk) < (end+4095)/4096 {
		n.blk = append(n.blk, hole)
	}
	aligned := (from-to)%4096 == 0
	for b := to / 4096; b*4096 < to+size; b++ {
		whole := b*4096 >= to && (b+1)*4096 <= to+size
		if s := byte(hole); aligned && whole { // shared, or a hole
			if i := b + (from-to)/4096; states[i] == written {
				s = written
			}
			n.blk[b] = s
		} else {
			n.blk[b] = written
		}
	}
}

func (v *volume) modelRename(m *model, rnd *rand.Rand, dirs []string, dp, nm, to string) {
	v.Helper()
	tp := dirs[rnd.Intn(len(dirs))]
	d, td := m.at(dp), m.at(tp)
	n, old := d.ents[nm], td.ents[to]
	flags := []uint32{0, 0, fs.RenameNoReplace, fs.RenameExchange}[rnd.Intn(4)]
	e := v.FS.Rename(&v.Ctx, v.Ino(dp), nm, v.Ino(tp), to, flags)
	src, dst := path.Join(dp, nm), path.Join(tp, to)
	inside := func(p, q string) bool { return p == q || strings.HasPrefix(p+"/", q+"/") }
	switch {
	case flags == fs.RenameNoReplace && old != nil:
		v.expect(e, true, syscall.EEXIST)
	case flags == fs.RenameExchange && old == nil:
		v.expect(e, true, syscall.ENOENT)
	case old == n:
		v.OK(e)
	case n.kind == 'd' && inside(tp, src):
		v.expect(e, true, syscall.EINVAL)
	case flags == fs.RenameExchange:
		if old.kind == 'd' && inside(dp, dst) {
			v.expect(e, true, syscall.EINVAL)
			return
		}
		v.OK(e)
		d.ents[nm], td.ents[to] = old, n
	case old != nil && old.kind == 'd' && inside(dp, dst):
		v.expect(e, true, syscall.ENOTEMPTY)
	case old != nil && old.kind == 'd' && n.kind != 'd':
		v.expect(e, true, syscall.EISDIR)
	case old != nil && old.kind != 'd' && n.kind == 'd':
		v.expect(e, true, syscall.ENOTDIR)
	case old != nil && old.kind == 'd' && len(old.ents) > 0:
		v.expect(e, true, syscall.ENOTEMPTY)
	default:
		v.OK(e)
		if old != nil {
			old.n--
		}
		delete(d.ents, nm)
		td.ents[to] = n
	}
}

func (v *volume) expect(e syscall.Errno, fails bool, want syscall.Errno) {
	v.Helper()
	if fails && e != want || !fails && e != 0 {
		v.Fatalf("got %v, expected failure %v with %v", e, fails, want)
	}
}
