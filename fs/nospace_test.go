package fs_test

import (
	"fmt"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/fs/fsck"
	"github.com/daxfs/daxfs/fs/layout"
)

// scene is what the operations of noSpaceOps work on.
type scene struct {
	*volume
	f, shared, frag, hole, dir, full uint64
}

const longName = 255

// newScene makes a filesystem with files of all kinds of extents.
func newScene(t *testing.T, atomic bool) *scene {
	v := newVolume(t, fs.MinSize)
	if atomic {
		v = newAtomicVolume(t, fs.MinSize)
	}
	s := &scene{volume: v}
	s.f = v.create(1, "f")
	v.write(s.f, 0, randomBytes(1, 100_000))
	s.shared = v.create(1, "shared")
	v.clone(s.f, 0, s.shared, 0, 65536)
	s.hole = v.create(1, "hole")
	v.write(s.hole, 200_000, randomBytes(2, 5000))
	v.ok(v.fs.Fallocate(&v.ctx, s.hole, 0, 40960, 40960))
	s.frag = v.create(1, "frag") // as many extents as the inode and its first extent block hold
	for i := range int64(layout.ExtentsPerLine + layout.ExtentsPerBlock) {
		v.write(s.frag, i*8192, []byte{1})
	}
	s.dir = v.mkdir(1, "dir")
	s.full = v.mkdir(1, "full") // a block of it is full
	for i := range layout.LinesPerBlock {
		v.create(s.full, fmt.Sprint(i))
	}
	v.ok(v.fs.SetXattr(&v.ctx, s.f, "user.a", []byte("old"), 0))
	v.ok(v.fs.SetXattr(&v.ctx, s.shared, "user.long", randomBytes(3, 9000), 0))
	return s
}

// dump is everything that can be seen below a directory, but times.
func (v *volume) dump(dir uint64) string {
	var b strings.Builder
	var walk func(path string, ino uint64)
	walk = func(path string, ino uint64) {
		var a fs.Attr
		v.ok(v.fs.GetAttr(&v.ctx, ino, &a))
		fmt.Fprintf(&b, "%s %o %d %d %d %d %#x %d", path, a.Mode, a.Nlink, a.UID, a.Size, a.Blocks, a.Flags, a.Rdev)
		for _, name := range v.listxattr(ino) {
			fmt.Fprintf(&b, " %s=%x", name, v.getxattr(ino, name))
		}
		switch a.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			fmt.Fprintf(&b, " %x", v.read(ino, 0, int(a.Size)))
		case syscall.S_IFLNK:
			to, e := v.fs.Readlink(&v.ctx, ino, nil)
			v.ok(e)
			fmt.Fprintf(&b, " -> %s", to)
		}
		b.WriteByte('\n')
		if a.Mode&syscall.S_IFMT != syscall.S_IFDIR {
			return
		}
		kids := map[string]uint64{}
		v.ok(v.fs.ReadDir(&v.ctx, ino, 0, func(d *fs.Dirent) bool {
			if n := string(d.Name); n != "." && n != ".." {
				kids[n] = d.Ino
			}
			return true
		}))
		names := make([]string, 0, len(kids))
		for n := range kids {
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			walk(path+"/"+n, kids[n])
		}
	}
	walk("", dir)
	return b.String()
}

// noSpaceOp is an operation; of one that may stop half-way (partial), n is how much was done.
type noSpaceOp struct {
	name    string
	partial bool
	do      func(s *scene) (n int, e syscall.Errno)
}

// noSpaceOps are all operations that take space, in each way in which they do.
func noSpaceOps() []noSpaceOp {
	long := strings.Repeat("n", longName)
	var a fs.Attr
	op := func(name string, do func(s *scene) syscall.Errno) noSpaceOp {
		return noSpaceOp{name, false, func(s *scene) (int, syscall.Errno) { return 0, do(s) }}
	}
	make := func(name string, in func(s *scene) uint64, entry string, mode uint32) noSpaceOp {
		return op(name, func(s *scene) syscall.Errno {
			if mode&syscall.S_IFMT == syscall.S_IFDIR {
				return s.fs.Mkdir(&s.ctx, in(s), entry, mode&0o7777, &a)
			}
			return s.fs.Mknod(&s.ctx, in(s), entry, mode, 0, &a)
		})
	}
	dir := func(s *scene) uint64 { return s.dir }
	full := func(s *scene) uint64 { return s.full }
	write := func(name string, file func(s *scene) uint64, off int64, n int) noSpaceOp {
		return noSpaceOp{"write " + name, true, func(s *scene) (int, syscall.Errno) {
			return s.fs.Write(&s.ctx, file(s), off, randomBytes(9, n))
		}}
	}
	f, shared, hole, frag := func(s *scene) uint64 { return s.f }, func(s *scene) uint64 { return s.shared }, func(s *scene) uint64 { return s.hole }, func(s *scene) uint64 { return s.frag }
	falloc := func(name string, file func(s *scene) uint64, mode uint32, off, n int64) noSpaceOp {
		return op("fallocate "+name, func(s *scene) syscall.Errno { return s.fs.Fallocate(&s.ctx, file(s), mode, off, n) })
	}
	truncate := func(name string, file func(s *scene) uint64, size uint64) noSpaceOp {
		return op("truncate "+name, func(s *scene) syscall.Errno {
			return s.fs.SetAttr(&s.ctx, file(s), &fs.SetAttr{Valid: fs.SetSize, Size: size}, &a)
		})
	}
	clone := func(name string, dst func(s *scene) uint64, off, to, n int64) noSpaceOp {
		return noSpaceOp{"copy " + name, true, func(s *scene) (int, syscall.Errno) {
			m, e := s.fs.CopyRange(&s.ctx, s.f, off, dst(s), to, n)
			return int(m), e
		}}
	}
	rename := func(name, from string, in func(s *scene) uint64, to string, flags uint32) noSpaceOp {
		return op("rename "+name, func(s *scene) syscall.Errno { return s.fs.Rename(&s.ctx, 1, from, in(s), to, flags) })
	}
	setxattr := func(name string, file func(s *scene) uint64, attr string, value []byte) noSpaceOp {
		return op("setxattr "+name, func(s *scene) syscall.Errno { return s.fs.SetXattr(&s.ctx, file(s), attr, value, 0) })
	}
	return []noSpaceOp{
		make("create", dir, "new", syscall.S_IFREG|0o644),
		make("create in a full directory", full, "new", syscall.S_IFREG|0o644),
		make("create a long name", full, long, syscall.S_IFREG|0o644),
		make("mkdir", dir, "new", syscall.S_IFDIR|0o755),
		make("mkdir in a full directory", full, long, syscall.S_IFDIR|0o755),
		make("mknod", full, "new", syscall.S_IFIFO|0o644),
		op("symlink", func(s *scene) syscall.Errno { return s.fs.Symlink(&s.ctx, s.full, "new", "target", &a) }),
		op("symlink of a long target", func(s *scene) syscall.Errno {
			return s.fs.Symlink(&s.ctx, s.full, "new", strings.Repeat("t", 900), &a)
		}),
		op("link", func(s *scene) syscall.Errno { return s.fs.Link(&s.ctx, s.f, s.full, "new", &a) }),
		op("tmpfile and its link", func(s *scene) syscall.Errno {
			e := s.fs.Tmpfile(&s.ctx, s.full, 0o644, &a)
			if e == 0 {
				ino := a.Ino
				e = s.fs.Link(&s.ctx, ino, s.full, "new", &a)
				s.fs.Forget(ino, 1)
			}
			return e
		}),
		op("mkdir that inherits a list", func(s *scene) syscall.Errno {
			if e := s.fs.SetXattr(&s.ctx, s.dir, "system.posix_acl_default", aclText("u::rwx,u:1:rw-,g::r-x,m::rwx,o::r-x"), 0); e != 0 {
				return e
			}
			if e := s.fs.Mkdir(&s.ctx, s.dir, "new", 0o755, &a); e != 0 {
				s.retry(func() syscall.Errno { return s.fs.RemoveXattr(&s.ctx, s.dir, "system.posix_acl_default") })
				return e
			}
			return 0
		}),
		rename("into a full directory", "f", full, "new", 0),
		rename("to a long name", "f", full, long, 0),
		rename("over a file", "f", full, "1", 0),
		rename("and leave a whiteout", "f", full, "new", fs.RenameWhiteout),
		rename("and exchange", "f", func(*scene) uint64 { return 1 }, "dir", fs.RenameExchange),

		write("appended", f, 100_000, 300_000),
		write("far behind the end", f, 1_000_001, 5000),
		write("over what is shared", shared, 100, 50_000),
		write("over one shared block", shared, 5000, 10),
		write("into a hole", hole, 100_001, 70_000),
		write("into unwritten blocks", hole, 45_000, 100),
		write("over all of it", hole, 1, 240_000),
		write("that needs an extent block", frag, 4096*400, 100_000),
		write("in place", f, 10, 5000),
		truncate("up", f, 300_001),
		truncate("down", f, 50_001),
		truncate("down in a shared block", shared, 10_001),
		truncate("up of a shared end", shared, 65_530),
		truncate("of many extents", frag, 5),
		falloc("more", f, 0, 0, 400_000),
		falloc("and keep the size", hole, fs.FallocKeepSize, 0, 400_000),
		falloc("over many extents", frag, 0, 0, 8192*150),
		falloc("a hole", f, fs.FallocPunchHole|fs.FallocKeepSize, 5001, 40_000),
		falloc("a hole in what is shared", shared, fs.FallocPunchHole|fs.FallocKeepSize, 5001, 40_000),
		falloc("a hole that needs an extent block", frag, fs.FallocPunchHole|fs.FallocKeepSize, 100, 20),
		falloc("zeros", f, fs.FallocZeroRange, 5001, 40_000),
		falloc("zeros in what is shared", shared, fs.FallocZeroRange, 5001, 40_000),
		clone("of whole blocks", hole, 0, 0, 65536),
		clone("over many extents", frag, 0, 0, 65536),
		clone("of bytes", hole, 1, 3, 50_000),
		setxattr("short", f, "user.b", []byte("value")),
		setxattr("replaced", f, "user.a", randomBytes(4, 300)),
		setxattr("long", f, "user.b", randomBytes(5, 60_000)),
		setxattr("long, replaced", shared, "user.long", randomBytes(6, 30_000)),
		setxattr("list", f, "system.posix_acl_access", aclText("u::rw-,u:1:rw-,u:2:r--,g::r--,m::rw-,o::r--")),
		op("removexattr", func(s *scene) syscall.Errno { return s.fs.RemoveXattr(&s.ctx, s.shared, "user.long") }),
		op("chmod", func(s *scene) syscall.Errno {
			return s.fs.SetAttr(&s.ctx, s.f, &fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}, &a)
		}),
		op("chattr", func(s *scene) syscall.Errno { return s.fs.SetFlags(&s.ctx, s.f, layout.FlagNoDump, nil) }),
		op("unlink", func(s *scene) syscall.Errno { return s.fs.Unlink(&s.ctx, 1, "frag") }),
		op("compaction", func(s *scene) syscall.Errno { _, e := s.fs.Compact(&s.ctx); return e }),
	}
}

// retry does what must succeed with all the space that there is.
func (s *scene) retry(op func() syscall.Errno) {
	s.t.Helper()
	s.fs.Refuse(nil)
	s.ok(op())
}

// TestNoSpaceAtEveryStep: for each operation, its first allocation fails, then its second, and so on until it
// gets by: it says ENOSPC and has done nothing, or as much as it says; nothing is lost or leaks, by fsck, by a
// mount with the saved free map and by one after a crash; and with space it succeeds.
func TestNoSpaceAtEveryStep(t *testing.T) {
	for _, atomic := range []bool{false, true} {
		if atomic && testing.Short() {
			return
		}
		for _, op := range noSpaceOps() {
			t.Run(fmt.Sprintf("atomic=%v/%s", atomic, op.name), func(t *testing.T) {
				s := newScene(t, atomic)
				if _, e := op.do(s); e != 0 {
					t.Fatalf("with all space: %v", e)
				}
				whole := s.dump(1)
				for k := 1; ; k++ {
					if k > 200 {
						t.Fatal("it allocates 200 times")
					}
					if failAt(t, op, k, atomic, whole) {
						return
					}
				}
			})
		}
	}
}

// failAt has the k-th allocation fail; done if there are not as many.
func failAt(t *testing.T, op noSpaceOp, k int, atomic bool, whole string) (done bool) {
	t.Helper()
	s := newScene(t, atomic)
	before := s.dump(1)
	asked := 0
	s.fs.Refuse(func() bool { asked++; return asked == k })
	n, e := op.do(s)
	s.fs.Refuse(nil)
	after := s.dump(1)
	switch {
	case asked < k:
		if e != 0 || after != whole {
			t.Errorf("the same again gives another result: %v", e)
		}
		return true
	case e == 0 && op.partial && after != whole:
		if atomic && strings.HasPrefix(op.name, "write") {
			t.Errorf("allocation %d fails: %d bytes are done, not all or nothing", k, n)
		}
		if n <= 0 || strings.Count(after, "\n") != strings.Count(before, "\n") {
			t.Errorf("allocation %d fails: it says that it did %d bytes", k, n)
		}
	case e == 0 && after != whole:
		t.Errorf("allocation %d fails, it says nothing, and has done something else", k)
	case e != 0 && e != syscall.ENOSPC:
		t.Errorf("allocation %d fails: %v, not ENOSPC", k, e)
	case e != 0 && after != before && !strings.HasPrefix(op.name, "fallocate"):
		t.Errorf("allocation %d fails: ENOSPC, and something changed:\n%s", k, firstDifference(before, after))
	}
	s.judgeSpace(fmt.Sprintf("allocation %d fails", k), after)
	if n, e := op.do(s); e != 0 && !(e == syscall.EEXIST || e == syscall.ENOENT) {
		t.Errorf("allocation %d failed, now there is space: %d, %v", k, n, e)
	}
	return false
}

func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("%.150s\n%.150s", as[i], bs[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(as), len(bs))
}

// judgeSpace checks the media, and that a mount by a scan and one by the saved free map find the same space free.
func (s *scene) judgeSpace(what, tree string) {
	s.t.Helper()
	s.fs.Abandon() // a crash: the next mount reads everything
	s.mount()
	if got := s.dump(1); got != tree {
		s.t.Errorf("%s: a crash later something is different:\n%s", what, firstDifference(tree, got))
	}
	scanned := s.free()
	s.remount()
	if mapped := s.free(); mapped != scanned {
		s.t.Errorf("%s: %d blocks are free after a crash, %d by the free map", what, scanned, mapped)
	}
	s.unmount()
	rep, err := fsck.Check(s.r, fsck.Options{})
	if err != nil || len(rep.Problems) > 0 {
		s.t.Errorf("%s: fsck: %v, %v", what, err, rep.Problems)
	}
	s.mount()
}
