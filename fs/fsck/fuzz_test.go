package fsck_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// target is a world that is damaged again and again.
type target struct {
	*world
	image []byte
	lines []int64             // offsets of metadata lines that are not empty
	owned map[string][]uint64 // blocks of each file: data, extents, attributes
	files map[string][]byte   // content of the regular files
	tally tally
}

// tally counts the cases that survive has met, so that a test that meets few of them fails.
type tally struct {
	scripts, repaired int // scripts; those after which the filesystem is undamaged
	files, checked    int // files after those repairs; those that the damage did not touch
}

func newTarget(t testing.TB) *target { return targetOf(build(t)) }

func targetOf(w *world) *target {
	g := &target{world: w, image: bytes.Clone(w.R.Bytes(0, size)), owned: map[string][]uint64{}, files: map[string][]byte{}}
	for off := w.sb.OwnerOff; off < w.sb.StaticEnd+8*w.sb.ChunkSize(); off += layout.LineSize {
		var l layout.Line
		w.R.LoadLine(off, (*[64]byte)(&l))
		if l.Valid(w.seed, off) && !bytes.Equal(l.Payload(), make([]byte, layout.PayloadSize)) {
			g.lines = append(g.lines, off)
		}
	}
	w.mounted(func() {
		for path, ino := range w.ino {
			var a fs.Attr
			if e := w.FS.GetAttr(&w.Ctx, ino, &a); e == 0 && a.Mode&syscall.S_IFMT == syscall.S_IFREG {
				g.files[path] = content(w.FS, ino)
			}
			g.owned[path] = g.blocksOf(path)
		}
	})
	g.restore(g.image)
	return g
}

// blocksOf returns the blocks that belong to this inode only.
func (g *target) blocksOf(path string) (out []uint64) {
	take := func(off int64) {
		var l layout.Line
		g.R.LoadLine(off, (*[64]byte)(&l))
		for i := range layout.ExtentsPerLine {
			for e := l.Extent(i); e.Len > 0; e.Len-- {
				out = append(out, e.Block+uint64(e.Len)-1)
			}
		}
	}
	if path != "/s" { // an inline link
		take(g.inode(path) + layout.InodeExtentOff)
	}
	var t layout.Times
	g.times(path, func(x *layout.Times) { t = *x })
	for b := t.ExtentRoot; b != 0; {
		out = append(out, b)
		var l layout.Line
		var h layout.ExtentBlock
		g.R.LoadLine(int64(b)<<layout.BlockShift, (*[64]byte)(&l))
		h.Get(&l)
		for i := int64(1); i < layout.LinesPerBlock; i++ {
			take(int64(b)<<layout.BlockShift + i*layout.LineSize)
		}
		b = h.Next
	}
	if t.XattrRoot != 0 {
		out = append(out, t.XattrRoot)
	}
	return out
}

// content returns the content of a file; nil if it cannot be read.
func content(f *fs.FS, ino uint64) (b []byte) {
	rp := f.NewPinnedRead()
	defer rp.Done()
	if f.Read(&fs.Caller{}, ino, 0, 1<<20, rp) != 0 {
		return nil
	}
	b = []byte{}
	for _, s := range rp.Slices() {
		b = append(b, s...)
	}
	return b
}

// harm damages the region by a script of 8 bytes a step: the place, the change, and whether the
// line is sealed again, which gives wrong content a right checksum. It returns the offsets of the
// changed lines, and of those that were sealed again.
func (g *target) harm(script []byte) (hit, sealed []int64) {
	for ; len(script) >= 8; script = script[8:] {
		v := binary.LittleEndian.Uint64(script)
		off, x := g.place(v>>16), byte(v>>8)|1
		hit = append(hit, off)
		if v&1 == 0 {
			var l layout.Line
			g.R.LoadLine(off, (*[64]byte)(&l))
			l[(v>>2)%64] ^= x
			if v&2 != 0 {
				for i := range l {
					l[i] ^= x * byte(i+1)
				}
			}
			g.Store(off, l[:])
			continue
		}
		sealed = append(sealed, off)
		at := int((v >> 2) % layout.PayloadSize)
		if off < layout.SuperSize {
			g.edit512(int(off)+at, x)
			continue
		}
		g.edit(off, func(l *layout.Line) {
			if v&2 == 0 {
				l[layout.PayloadOff+at] ^= x
				return
			}
			var from layout.Line // another line's content
			g.R.LoadLine(g.lines[(v>>32)%uint64(len(g.lines))], (*[64]byte)(&from))
			copy(l.Payload(), from.Payload())
		})
	}
	return hit, sealed
}

// edit512 changes a byte of both superblocks and gives them right checksums.
func (g *target) edit512(at int, x byte) {
	b := make([]byte, layout.SuperSize)
	g.R.Load(0, b)
	b[at] ^= x
	binary.LittleEndian.PutUint32(b[508:], layout.Checksum(0, b[:508]))
	g.Store(0, b)
	g.Store(g.sb.BackupOff, b)
}

// place returns the offset of a line, most often of one that is not empty.
func (g *target) place(v uint64) int64 {
	switch k := v >> 3; v % 8 {
	case 0:
		return int64(k%uint64(g.sb.StaticEnd/64)) * 64
	case 1:
		return g.sb.StaticEnd + int64(k%uint64(2*g.sb.ChunkSize()/64))*64
	default:
		return g.lines[k%uint64(len(g.lines))]
	}
}

// touched reports whether one of the lines belongs to path, or is sealed again and belongs to a
// structure that all files share.
func (g *target) touched(path string, hit, sealed []int64) bool {
	in := g.inode(path)
	return slices.ContainsFunc(hit, func(off int64) bool {
		return off >= in && off < in+layout.InodeSize || slices.Contains(g.owned[path], uint64(off)>>layout.BlockShift)
	}) || slices.ContainsFunc(sealed, func(off int64) bool {
		return off < g.sb.InodeBase || off&(g.sb.ChunkSize()-1) < layout.BlockSize
	})
}

// limited fails if f takes too long, or allocates too much for a filesystem of 16 MiB.
func limited(t testing.TB, f func()) {
	watch := time.AfterFunc(time.Minute, func() { panic("still at it after a minute") })
	defer watch.Stop()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 512<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

// survive damages the filesystem, checks it, mounts it, repairs it and mounts the result. All must
// end without a panic. If the repair left nothing, the result is undamaged, can be mounted, and has
// every file that the damage did not touch.
func (g *target) survive(script []byte) {
	g.tally.scripts++
	hit, sealed := g.harm(script)
	damaged := bytes.Clone(g.R.Bytes(0, size))
	dry, err := fsck.Check(g.R, fsck.Options{Sleep: noSleep})
	if !bytes.Equal(damaged, g.R.Bytes(0, size)) {
		g.Error("a check wrote to the region")
	}
	if err != nil {
		if m, err := fs.Mount(g.R, fs.Options{Sleep: noSleep}); err == nil {
			m.Abandon()
		}
		return
	}
	sound := len(dry.Problems) == 0
	m, err := fs.Mount(g.R, fs.Options{Sleep: noSleep, Takeover: true})
	if err == nil {
		m.Abandon()
	} else if sound && !slices.ContainsFunc(sealed, func(off int64) bool { return off < layout.SuperSize }) { // unknown features are not damage
		g.Errorf("check found nothing, mount: %v", err)
	}
	g.restore(damaged)
	rep, err := fsck.Check(g.R, fsck.Options{Sleep: noSleep, Repair: true})
	if err != nil {
		return
	}
	if g.sameAs(dry, rep); rep.Left > 0 {
		return
	}
	again, err := fsck.Check(g.R, fsck.Options{Sleep: noSleep})
	if err != nil || len(again.Problems) > 0 {
		g.Errorf("repaired, and then: %v %v; the repair said: %v", err, again.Problems, rep.Problems)
		return
	}
	g.tally.repaired++
	g.mounted(func() {
		found := map[uint64]bool{}
		tree(g.FS, func(dir, ino uint64, name string) { found[ino] = true })
		for path, want := range g.files {
			g.tally.files++
			if g.touched(path, hit, sealed) {
				continue
			}
			g.tally.checked++
			if ino := g.ino[path]; !found[ino] {
				g.Errorf("%s has no name any more; the repair said: %v", path, rep.Problems)
			} else if got := content(g.FS, ino); !bytes.Equal(got, want) {
				g.Errorf("%s has %d bytes, had %d, or others; the repair said: %v", path, len(got), len(want), rep.Problems)
			}
		}
		var a fs.Attr
		g.FS.SetFlags(&fs.Caller{}, 1, 0, nil) // it may be immutable now
		if e := g.FS.Mknod(&fs.Caller{}, 1, "after the repair", syscall.S_IFREG|0o600, 0, &a); e != 0 && e != syscall.EEXIST {
			g.Errorf("create after a repair: %v", e)
		}
	})
}

// tree calls do for each name below the root, the deepest first.
func tree(f *fs.FS, do func(dir, ino uint64, name string)) {
	seen := map[uint64]bool{}
	var walk func(dir uint64)
	walk = func(dir uint64) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		var names []string
		f.ReadDir(&fs.Caller{}, dir, 2, func(d *fs.Dirent) bool {
			names = append(names, string(d.Name))
			return true
		})
		for _, name := range names {
			var a fs.Attr
			if name == "." || name == ".." || f.Lookup(&fs.Caller{}, dir, name, &a) != 0 {
				continue
			}
			if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
				walk(a.Ino)
			}
			do(dir, a.Ino, name)
			f.Forget(a.Ino, 1)
		}
	}
	walk(layout.RootIno)
}

// use mounts the damaged filesystem without a check and uses it. Any call may fail, but none may
// panic or loop.
func (g *target) use(script []byte) {
	_, sealed := g.harm(script) // a free map is not believed if lines beside it were changed and sealed
	f, err := fs.Mount(g.R, fs.Options{Sleep: noSleep, Takeover: true, Scan: len(sealed) > 0, Clock: func() int64 { return 3e18 }})
	if err != nil {
		return
	}
	ctx := &fs.Caller{}
	var a fs.Attr
	buf := make([]byte, 64<<10)
	n := 0
	tree(f, func(dir, ino uint64, name string) {
		n++
		content(f, ino)
		f.Readlink(ctx, ino, buf[:0])
		if list, e := f.ListXattr(ctx, ino, buf); e == 0 {
			for _, x := range bytes.Split(bytes.Clone(buf[:list]), []byte{0}) {
				f.GetXattr(ctx, ino, string(x), buf)
				f.RemoveXattr(ctx, ino, string(x))
			}
		}
		f.SetXattr(ctx, ino, "user.new", buf[:3000], 0)
		f.Write(ctx, ino, 4000, buf[:9000])
		f.Write(ctx, ino, int64(n)<<20, buf[:1])
		f.CopyRange(ctx, ino, 0, g.ino["/f"], 64<<10, 1<<16)
		f.SetAttr(ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 5}, &a)
		f.Link(ctx, ino, dir, "again"+strconv.Itoa(n), &a)
		f.Mknod(ctx, ino, "below", syscall.S_IFREG|0o600, 0, &a)
		f.Rename(ctx, dir, name, layout.RootIno, "moved"+strconv.Itoa(n), 0)
	})
	for range 2 {
		tree(f, func(dir, ino uint64, name string) {
			if f.Unlink(ctx, dir, name) != 0 {
				f.Rmdir(ctx, dir, name)
			}
		})
	}
	f.Unmount()
	fsck.Check(g.R, fsck.Options{Sleep: noSleep})
}

func TestRandomDamage(t *testing.T) {
	n := 1500
	if testing.Short() {
		n = 60
	}
	g := newTarget(t)
	x := uint64(1)
	for i := 0; i < n && !t.Failed(); i++ {
		script := make([]byte, 8*(1+i%6))
		for j := 0; j < len(script); j += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(script[j:], x^x>>29)
		}
		for _, f := range []func([]byte){g.survive, g.use} {
			f(script)
			if t.Failed() {
				t.Logf("script %d: %x", i, script)
			}
			g.restore(g.image)
		}
	}
	t.Logf("%+v", g.tally)
	if y := g.tally; y.repaired*100 < y.scripts*60 || y.checked*100 < y.files*40 {
		t.Errorf("too little was judged: want 60 %% of the scripts repaired and 40 %% of the files checked, got %+v", y)
	}
}

// restore stores the image's blocks that differ.
func (w *world) restore(image []byte) {
	for off := int64(0); off < size; off += 4096 {
		if b := image[off : off+4096]; !bytes.Equal(b, w.R.Bytes(off, 4096)) {
			w.Store(off, b)
		}
	}
}

// damageSeeds are scripts for FuzzDamage and FuzzUse.
var damageSeeds = [][]byte{
	{0, 1, 2, 3, 4, 5, 6, 7},
	{1, 1, 0, 0, 0, 0, 0, 0},
	{3, 1, 2, 9, 0, 0, 0, 0, 7, 0x10, 0x22, 0, 3, 0, 0, 0},
	bytes.Repeat([]byte{3, 0x55, 9, 0, 1, 0, 0, 0}, 4),
}

func fuzz(f *testing.F, do func(*target, []byte)) {
	for _, script := range damageSeeds {
		f.Add(script)
	}
	g := newTarget(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 256 {
			return
		}
		g.TB = t
		defer g.restore(g.image)
		limited(t, func() { do(g, script) })
	})
}

func sortedKeys(m map[string]uint64) []string { return slices.Sorted(maps.Keys(m)) }

// FuzzDamage checks, mounts, repairs and mounts damaged images.
func FuzzDamage(f *testing.F) { fuzz(f, (*target).survive) }

// FuzzUse mounts and uses damaged images without a check.
func FuzzUse(f *testing.F) { fuzz(f, (*target).use) }

// noSleep skips the wait for an owner record's user, which takes seconds; these images have no
// user.
func noSleep(time.Duration) {}
