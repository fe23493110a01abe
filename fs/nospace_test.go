package fs_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
)

var everyStep = flag.Bool("every-step", false, "TestNoSpace: each allocation of each operation fails, however many there are, also with Options.Atomic")

// scarcity decides how many of the wanted blocks the i-th allocation of an operation gets, counted
// from 1, if the k-th finds no space.
type scarcity struct {
	name  string
	limit func(i, k int, want uint64) uint64
}

// scarcities are: space is short for a moment; it is used up; it is used up, and was in pieces of a
// block.
var scarcities = []scarcity{
	{"once", func(i, k int, want uint64) uint64 {
		if i == k {
			return 0
		}
		return want
	}},
	{"from then on", func(i, k int, want uint64) uint64 {
		if i >= k {
			return 0
		}
		return want
	}},
	{"block by block", func(i, k int, want uint64) uint64 {
		if i >= k {
			return 0
		}
		return min(want, 1)
	}},
}

// stage is a scene on media, and the outcomes of an operation on it.
type stage struct {
	media  []byte
	atomic bool
	op     *noSpaceOp
	before []entry // the tree before the operation
	whole  []entry // the tree after the operation
}

// set mounts a copy of the stage.
func (g *stage) set(t *testing.T) *scene {
	t.Helper()
	r := fstest.Memory(t, int64(len(g.media)))
	if err := r.NTStore(0, g.media); err != nil {
		t.Fatal(err)
	}
	s := &scene{volume: &volume{fstest.On(t, r, fs.Options{Atomic: g.atomic})}}
	s.Unmerged = true
	s.Now.Store(1 << 40)
	s.Mount()
	if !g.op.bare {
		s.find()
	}
	if g.op.prepare != nil {
		g.op.prepare(s)
	}
	return s
}

// strike unmounts the filesystem that set mounted.
func (s *scene) strike() {
	s.Unmount()
	s.R.Close()
}

// TestNoSpace makes the first allocation of each operation fail, then the second, and so on until
// none fails. The operation returns ENOSPC and has changed nothing, or has done as much as it
// returns. Nothing is lost or leaked, neither at run time nor after an unmount or a crash. With
// space it succeeds.
func TestNoSpace(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		s := newScene(t, atomic)
		s.Unmount()
		media := slices.Clone(s.R.Bytes(0, s.R.Size()))
		empty := newVolume(t, fs.MinSize+16<<10)
		empty.Unmount()
		none := slices.Clone(empty.R.Bytes(0, empty.R.Size()))
		for i, op := range noSpaceOps() {
			for _, how := range scarcities {
				if !*everyStep && (atomic && how.name != "from then on" || testing.Short() && (how.name != "block by block" || i%8 != 0)) {
					continue
				}
				t.Run(fmt.Sprintf("atomic=%v/%s/%s", atomic, op.name, how.name), func(t *testing.T) {
					g := &stage{media: media, atomic: atomic, op: &op}
					if op.bare {
						g.media = none
					}
					g.everyStep(t, how)
				})
			}
		}
	}
}

func (g *stage) everyStep(t *testing.T, how scarcity) {
	s := g.set(t)
	g.before = s.tree()
	if n, e := g.op.do(s); e != 0 || n < len(g.op.data) {
		t.Fatalf("with all space: %d, %v", n, e)
	}
	g.whole = s.tree()
	s.strike()
	for k := 1; ; k++ {
		if !g.fail(t, how, k) {
			if needs := k > 1; needs == g.op.free {
				t.Errorf("it allocates: %t; the test believes otherwise", needs)
			}
			return
		}
		if k > 1000 {
			t.Fatal("it allocates 1000 times")
		}
		if !*everyStep && k >= 6 {
			k += k / 3 // the first iterations of a loop show most
		}
	}
}

// fail makes the k-th allocation fail and returns false if there are fewer. It does so twice: once
// the operation is retried and the filesystem unmounted, once it crashes.
func (g *stage) fail(t *testing.T, how scarcity, k int) (failed bool) {
	t.Helper()
	what := fmt.Sprintf("allocation %d fails", k)
	for _, crash := range []bool{false, true} {
		s := g.set(t)
		asked := 0
		s.FS.LimitAlloc(func(want uint64) uint64 { asked++; return how.limit(asked, k, want) })
		n, e := g.op.do(s)
		s.FS.LimitAlloc(nil)
		after := s.tree()
		if asked < k {
			if e != 0 || !sameTree(after, g.whole) {
				t.Errorf("the same again gives another result: %v\n%s", e, firstDifference(g.whole, after))
			}
			s.strike()
			return false
		}
		g.judge(s, what, n, e, after)
		if crash {
			if g.op.end != nil && e != 0 {
				g.op.end(s)
			}
			s.crash(what, after)
		} else {
			if e != 0 || n < len(g.op.data) {
				if n, e := g.op.do(s); e != 0 || n < len(g.op.data) {
					t.Errorf("%s, then there is space: %d, %v", what, n, e)
				}
			}
			if got := s.tree(); !sameTree(got, g.whole) {
				t.Errorf("%s, then there is space: something is different:\n%s", what, firstDifference(g.whole, got))
			}
			s.recount(what)
		}
		s.strike()
		if t.Failed() {
			return true
		}
	}
	return true
}

// judge compares the result that the operation returned with its effect.
func (g *stage) judge(s *scene, what string, n int, e syscall.Errno, after []entry) {
	s.Helper()
	op := g.op
	if op.disarms {
		h := *g
		h.before, h.whole, after = disarmed(g.before), disarmed(g.whole), disarmed(after)
		g = &h
	}
	switch {
	case e != 0 && e != syscall.ENOSPC:
		s.Errorf("%s: %v, not ENOSPC", what, e)
	case e == 0 && n == len(op.data):
		if !sameTree(after, g.whole) {
			s.Errorf("%s, it succeeds, and has done something else:\n%s", what, firstDifference(g.whole, after))
		}
	case op.data != nil && (e == 0 || op.writeback):
		if n < 0 || n > len(op.data) || e == 0 && n == 0 || g.atomic && n > 0 && !op.copies {
			s.Errorf("%s: %d bytes of %d, %v", what, n, len(op.data), e)
			return
		}
		g.onlyFile(s, what, after, func(was []byte) func([]byte) bool {
			if n > 0 {
				was = append(was, make([]byte, max(0, op.off+n-len(was)))...)
				copy(was[op.off:], op.data[:n])
			}
			return func(is []byte) bool { return bytes.Equal(is, was) }
		})
	case op.to > 0: // a range of a file, a part of which may be done
		g.onlyFile(s, what, after, func(was []byte) func([]byte) bool {
			return func(is []byte) bool {
				if len(is) < len(was) || len(is) > max(len(was), op.to) {
					return false
				}
				was = append(was, make([]byte, len(is)-len(was))...)
				for i := range is {
					if is[i] != was[i] && (!op.zeroes || is[i] != 0 || i < op.off || i >= op.to) {
						return false
					}
				}
				return true
			}
		})
	case !sameTree(after, g.before):
		s.Errorf("%s: %v, and something changed:\n%s", what, e, firstDifference(g.before, after))
	}
}

// disarmed returns a tree without its file capabilities.
func disarmed(es []entry) []entry {
	es = slices.Clone(es)
	for i := range es {
		if before, rest, ok := strings.Cut(es[i].meta, " security.capability="); ok {
			_, rest, more := strings.Cut(rest, " ")
			if es[i].meta = before; more {
				es[i].meta += " " + rest
			}
		}
	}
	return es
}

// onlyFile checks that only the content of one file has changed, as want allows.
func (g *stage) onlyFile(s *scene, what string, after []entry, want func(was []byte) func(is []byte) bool) {
	s.Helper()
	if len(after) != len(g.before) {
		s.Errorf("%s: there are %d files, not %d", what, len(after), len(g.before))
		return
	}
	for i, was := range g.before {
		is := after[i]
		if is.path == g.op.path {
			if !want([]byte(was.data))([]byte(is.data)) {
				s.Errorf("%s: the content of %s, %d bytes, is wrong", what, is.path, len(is.data))
			}
			was.data, was.blocks = is.data, is.blocks
		}
		if was.blocks = is.blocks; was != is {
			s.Errorf("%s: something else changed:\n%.200v\n%.200v", what, was, is)
		}
	}
}

// recount remounts: free space must be the same by a scan and by the saved free map.
func (s *scene) recount(what string) {
	s.Helper()
	free, inodes := s.Free(), s.FS.Stats().Inodes
	s.Remount()
	if f, i := s.Free(), s.FS.Stats().Inodes; f != free || i != inodes {
		s.Errorf("%s: %d blocks were free and %d inodes in use, then, newly mounted, %d and %d", what, free, inodes, f, i)
	}
}

// crash mounts after a crash: nothing may have changed.
func (s *scene) crash(what string, tree []entry) {
	s.Helper()
	free, inodes := s.Free(), s.FS.Stats().Inodes
	s.Crash()
	s.Mount()
	if f, i := s.Free(), s.FS.Stats().Inodes; f != free || i != inodes {
		s.Errorf("%s: %d blocks were free and %d inodes in use, a crash later %d and %d", what, free, inodes, f, i)
	}
	if got := s.tree(); !slices.Equal(got, tree) {
		s.Errorf("%s: a crash later something is different:\n%s", what, firstDifference(tree, got))
	}
	s.Unmount()
	rep, err := fsck.Check(s.R, fsck.Options{})
	if err != nil || len(rep.Problems) > 0 {
		s.Errorf("%s: fsck: %v, %v", what, err, rep.Problems)
	}
	s.Mount()
}

// entry is the visible state of a file without its times.
type entry struct {
	path   string
	meta   string // attributes and extended attributes
	data   string // content of a file, target of a link
	blocks uint64 // may differ by extent blocks that are no longer needed
}

// sameTree compares everything except blocks.
func sameTree(a, b []entry) bool {
	return slices.EqualFunc(a, b, func(x, y entry) bool { y.blocks = x.blocks; return x == y })
}

// tree returns the entries of all files, sorted by path.
func (v *volume) tree() (es []entry) {
	v.Helper()
	var walk func(path string, ino uint64)
	walk = func(path string, ino uint64) {
		a := v.Stat(ino)
		size := a.Size
		if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			size = 0 // a directory may have more blocks than it needs
		}
		var x strings.Builder
		for _, name := range v.listxattr(ino) {
			fmt.Fprintf(&x, " %s=%x", name, v.Xattr(ino, name))
		}
		e := entry{path: path, meta: fmt.Sprintf("%o %d %d %d %#x %d%s", a.Mode, a.Nlink, a.UID, size, a.Flags, a.Rdev, x.String()), blocks: a.Blocks}
		switch a.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			e.meta = strings.Replace(e.meta, fmt.Sprintf(" %d ", size), " ", 1) // data already has the size
			e.data = string(v.Read(ino, 0, int(a.Size)))
		case syscall.S_IFLNK:
			to, errno := v.FS.Readlink(&v.Ctx, ino, nil)
			v.OK(errno)
			e.data = string(to)
		}
		es = append(es, e)
		if a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return
		}
		kids := map[string]uint64{}
		v.OK(v.FS.ReadDir(&v.Ctx, ino, 0, func(d *fs.Dirent) bool { kids[string(d.Name)] = d.Ino; return true }))
		for _, n := range v.Names(ino) {
			if n != "." && n != ".." {
				walk(path+"/"+n, kids[n])
			}
		}
	}
	walk("", layout.RootIno)
	return es
}

func firstDifference(a, b []entry) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("%.150q\n%.150q", fmt.Sprint(a[i]), fmt.Sprint(b[i]))
		}
	}
	return fmt.Sprintf("%d and %d files", len(a), len(b))
}
