package fs_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// scene is the filesystem that noSpaceOps use, with the inode numbers of its files.
type scene struct {
	*volume
	f, shared, frag, hole, part, armed, listed, many, dir, full, heir, tight uint64
}

const (
	aclWide   = "u::rw-,u:1:rw-,u:2:r--,g::r--,m::rw-,o::r--"
	fragments = layout.ExtentsPerLine + layout.ExtentsPerBlock // as many extents as fit the inode and its first extent block
)

// newScene makes a filesystem with files of all kinds of extents and attributes.
func newScene(t *testing.T, atomic bool) *scene {
	v := newVolume(t, fs.MinSize+16<<10)
	if atomic {
		v = newAtomicVolume(t, fs.MinSize+16<<10)
	}
	s := &scene{volume: v}
	f := v.Create("/f")
	v.Write(f, 0, randomBytes(1, 100_000))
	shared := v.Create("/shared")
	v.Clone(f, 0, shared, 0, 65536)
	hole := v.Create("/hole")
	v.Write(hole, 200_000, randomBytes(2, 5000))
	v.Fallocate(hole, 0, 40960, 40960)
	frag := v.Create("/frag")
	for i := range int64(fragments) {
		v.Write(frag, i*8192, []byte{1})
	}
	v.Clone(frag, 0, v.Create("/frag2"), 0, 40*8192)
	tight := v.Create("/tight")
	v.Write(tight, 0, randomBytes(15, 5*4096))
	for i := range int64(fragments - 1) {
		v.Write(tight, (i+5)*8192, []byte{1})
	}
	part := v.Create("/part") // a large folio without its last block
	v.Write(part, 4096, randomBytes(7, 6*4096))
	v.Write(part, 0, randomBytes(8, 4096))
	armed := v.Create("/armed")
	v.Write(armed, 0, randomBytes(10, 9000))
	v.SetXattr(armed, "security.capability", randomBytes(11, 20))
	v.SetXattr(armed, "user.a", []byte("kept"))
	listed := v.Create("/listed")
	v.SetXattr(listed, aclAccess, aclText(aclWide))
	many := v.Create("/many")
	for i := range 12 {
		v.SetXattr(many, fmt.Sprint("user.", i), randomBytes(12, 900))
	}
	v.Mkdir("/dir")
	v.Mkdir("/full") // its only block is full
	for i := range layout.LinesPerBlock {
		v.Create(fmt.Sprint("/full/", i))
	}
	v.SetXattr(v.Mkdir("/heir"), aclDefault, aclText("u::rwx,u:1:rw-,g::r-x,m::rwx,o::r-x"))
	v.Mkdir("/up")
	v.Mkdir("/up/down")
	v.SetXattr(f, "user.a", []byte("old"))
	v.SetXattr(f, "user.z", []byte("old, too"))
	v.SetXattr(shared, "user.long", randomBytes(3, 9000))
	return s
}

// find looks up the scene's files.
func (s *scene) find() {
	for name, ino := range map[string]*uint64{"f": &s.f, "shared": &s.shared, "frag": &s.frag, "hole": &s.hole, "part": &s.part, "armed": &s.armed,
		"listed": &s.listed, "many": &s.many, "dir": &s.dir, "full": &s.full, "heir": &s.heir, "tight": &s.tight} {
		*ino = s.Ino("/" + name)
	}
}

// noSpaceOp is an operation. It happens as a whole or not at all, unless the fields below allow a
// part.
type noSpaceOp struct {
	name    string
	do      func(s *scene) (n int, e syscall.Errno)
	prepare func(s *scene) // prepares the scene
	free    bool           // it allocates nothing
	bare    bool           // it begins with an empty filesystem
	end     func(s *scene) // what the kernel does after a failure that is not retried
	disarms bool           // it removes file capabilities first, as the kernel does, whether it succeeds or not

	path      string // the file of which a part may be changed
	off       int    // byte offset at which the change begins
	data      []byte // the new content; a prefix of the returned length is written,
	writeback bool   // also if it returns an error,
	copies    bool   // and also in part, whatever the mount option
	to        int    // byte offset of the end of a range that is allocated or freed in pieces,
	zeroes    bool   // whose bytes become zero
}

// noSpaceOps returns the operations, in each way in which they allocate or seem to.
func noSpaceOps() []noSpaceOp {
	long := strings.Repeat("n", layout.NameMax)
	var a fs.Attr
	type pick func(s *scene) uint64
	op := func(name string, do func(s *scene) syscall.Errno) noSpaceOp {
		return noSpaceOp{name: name, do: func(s *scene) (int, syscall.Errno) { return 0, do(s) }}
	}
	free := func(o noSpaceOp) noSpaceOp { o.free = true; return o }
	disarming := func(o noSpaceOp) noSpaceOp { o.disarms = true; return o }
	bare := func(prepare func(s *scene), o noSpaceOp) noSpaceOp { o.bare, o.prepare = true, prepare; return o }
	with := func(prepare func(s *scene), o noSpaceOp) noSpaceOp { o.prepare = prepare; return o }
	mknod := func(name string, in pick, entry string, mode uint32) noSpaceOp {
		return op(name, func(s *scene) syscall.Errno {
			if mode&syscall.S_IFMT == syscall.S_IFDIR {
				return s.FS.Mkdir(&s.Ctx, in(s), entry, mode&0o7777, &a)
			}
			return s.FS.Mknod(&s.Ctx, in(s), entry, mode, 0, &a)
		})
	}
	root := func(*scene) uint64 { return 1 }
	files := map[string]pick{
		"f": func(s *scene) uint64 { return s.f }, "shared": func(s *scene) uint64 { return s.shared }, "hole": func(s *scene) uint64 { return s.hole },
		"frag": func(s *scene) uint64 { return s.frag }, "part": func(s *scene) uint64 { return s.part }, "armed": func(s *scene) uint64 { return s.armed }, "tight": func(s *scene) uint64 { return s.tight },
	}
	dir, full, heir := func(s *scene) uint64 { return s.dir }, func(s *scene) uint64 { return s.full }, func(s *scene) uint64 { return s.heir }
	write := func(name, file string, off, n int) noSpaceOp {
		data := randomBytes(9, n)
		return noSpaceOp{name: "write " + name, path: "/" + file, off: off, data: data, do: func(s *scene) (int, syscall.Errno) {
			return s.FS.Write(&s.Ctx, files[file](s), int64(off), data)
		}}
	}
	falloc := func(name, file string, mode uint32, off, n int) noSpaceOp {
		return noSpaceOp{name: "fallocate " + name, path: "/" + file, off: off, to: off + n, zeroes: mode&^fs.FallocKeepSize != 0, do: func(s *scene) (int, syscall.Errno) {
			return 0, s.FS.Fallocate(&s.Ctx, files[file](s), mode, int64(off), int64(n))
		}}
	}
	truncate := func(name, file string, size uint64) noSpaceOp {
		return op("truncate "+name, func(s *scene) syscall.Errno {
			return s.FS.SetAttr(&s.Ctx, files[file](s), &fs.SetAttr{Valid: fs.SetSize, Size: size}, &a)
		})
	}
	source := randomBytes(1, 100_000)
	copied := func(name, file string, off, to, n int) noSpaceOp {
		return noSpaceOp{name: "copy " + name, path: "/" + file, off: to, data: source[off : off+n], copies: true, do: func(s *scene) (int, syscall.Errno) {
			m, e := s.FS.CopyRange(&s.Ctx, s.f, int64(off), files[file](s), int64(to), int64(n))
			return int(m), e
		}}
	}
	rename := func(name, from string, in pick, to string, flags uint32) noSpaceOp {
		return op("rename "+name, func(s *scene) syscall.Errno { return s.FS.Rename(&s.Ctx, 1, from, in(s), to, flags) })
	}
	setxattr := func(name string, file pick, attr string, value []byte) noSpaceOp {
		return op("setxattr "+name, func(s *scene) syscall.Errno { return s.FS.SetXattr(&s.Ctx, file(s), attr, value, 0) })
	}
	removexattr := func(name string, file pick, attr string) noSpaceOp {
		return op("removexattr "+name, func(s *scene) syscall.Errno { return s.FS.RemoveXattr(&s.Ctx, file(s), attr) })
	}
	setattr := func(name string, file pick, set fs.SetAttr) noSpaceOp {
		return op(name, func(s *scene) syscall.Errno { return s.FS.SetAttr(&s.Ctx, file(s), &set, &a) })
	}
	var tmp uint64
	writeback := write("of the kernel's writeback", "hole", 90_000, 100_000)
	writeback.writeback = true
	writeback.do = func(s *scene) (int, syscall.Errno) {
		ctx := s.Ctx
		ctx.Writeback = true
		return s.FS.Write(&ctx, s.hole, 90_000, writeback.data)
	}
	linkTmp := op("link of a tmpfile", func(s *scene) syscall.Errno { return s.FS.Link(&s.Ctx, tmp, s.full, "new", &a) })
	linkTmp.prepare = func(s *scene) {
		s.OK(s.FS.Tmpfile(&s.Ctx, s.dir, 0o644, &a))
		tmp = a.Ino
		s.Write(tmp, 0, randomBytes(13, 5000))
	}
	linkTmp.end = func(s *scene) { s.FS.Forget(tmp, 1) }
	fragCopy := noSpaceOp{name: "copy over and of many extents", path: "/hole", copies: true, data: []byte(strings.Repeat("\x01"+strings.Repeat("\x00", 8191), 100)),
		do: func(s *scene) (int, syscall.Errno) {
			for n := 0; ; { // as programs do
				m, e := s.FS.CopyRange(&s.Ctx, s.frag, int64(n), s.hole, int64(n), int64(100*8192-n))
				if n += int(m); m == 0 || e != 0 {
					if n > 0 {
						e = 0
					}
					return n, e
				}
			}
		}}
	return []noSpaceOp{
		mknod("create", dir, "new", syscall.S_IFREG|0o644),
		mknod("create in a full directory", full, "new", syscall.S_IFREG|0o644),
		mknod("create a long name", full, long, syscall.S_IFREG|0o644),
		mknod("create that inherits a list", heir, "new", syscall.S_IFREG|0o644),
		mknod("mkdir", dir, "new", syscall.S_IFDIR|0o755),
		mknod("mkdir a long name", full, long, syscall.S_IFDIR|0o755),
		mknod("mkdir that inherits a list", heir, "new", syscall.S_IFDIR|0o755),
		mknod("mknod", full, "new", syscall.S_IFIFO|0o644),
		op("symlink", func(s *scene) syscall.Errno { return s.FS.Symlink(&s.Ctx, s.full, "new", "target", &a) }),
		op("symlink of a long target", func(s *scene) syscall.Errno {
			return s.FS.Symlink(&s.Ctx, s.full, "new", strings.Repeat("t", 900), &a)
		}),
		op("link", func(s *scene) syscall.Errno { return s.FS.Link(&s.Ctx, s.f, s.full, "new", &a) }),
		op("tmpfile", func(s *scene) syscall.Errno {
			e := s.FS.Tmpfile(&s.Ctx, s.heir, 0o644, &a)
			if e == 0 {
				s.FS.Forget(a.Ino, 1)
			}
			return e
		}),
		linkTmp,

		rename("into a full directory", "f", full, "new", 0),
		rename("to a long name", "f", full, long, 0),
		rename("of a directory", "up", full, "new", 0),
		free(rename("over a file", "f", full, "1", 0)),
		free(rename("within a directory", "f", root, "g", 0)),
		rename("and leave a whiteout", "f", full, "new", fs.RenameWhiteout),
		rename("over a file and leave a whiteout", "f", full, "1", fs.RenameWhiteout),
		free(rename("and exchange", "f", root, "dir", fs.RenameExchange)),
		free(op("unlink", func(s *scene) syscall.Errno { return s.FS.Unlink(&s.Ctx, 1, "frag") })),
		free(op("rmdir", func(s *scene) syscall.Errno { return s.FS.Rmdir(&s.Ctx, 1, "dir") })),
		bare(blocksOfNames, op("unlink that leaves a directory with holes", func(s *scene) syscall.Errno {
			d := s.Ino("/d")
			for _, b := range []int{3, 1} {
				for i := range layout.LinesPerBlock {
					if e := s.FS.Unlink(&s.Ctx, d, fmt.Sprintf("%03d", b*layout.LinesPerBlock+i)); e != 0 && e != syscall.ENOENT {
						return e
					}
				}
			}
			return 0
		})),

		write("appended", "f", 100_000, 300_000),
		write("far behind the end", "f", 1_000_001, 5000),
		write("behind a shared end", "shared", 65_536+5, 10),
		write("over what is shared", "shared", 100, 50_000),
		write("over one shared block", "shared", 5000, 10),
		write("over many shared extents", "frag", 100, 39*8192),
		write("into a hole", "hole", 100_001, 70_000),
		write("into unwritten blocks", "hole", 45_000, 100),
		write("over all of it", "hole", 1, 240_000),
		write("that needs an extent block", "frag", 4096*400, 100_000),
		write("into many holes", "frag", 1, fragments*8192),
		write("that fills a large folio", "part", 7*4096, 4096),
		disarming(write("that takes capabilities", "armed", 5, 20_000)),
		free(write("in place", "part", 10, 5000)),
		writeback,
		free(truncate("up", "f", 300_001)),
		free(truncate("down", "f", 50_001)),
		free(truncate("down in a shared block", "shared", 10_001)),
		with(func(s *scene) { s.Truncate(s.shared, 10_001) },
			truncate("up from within a shared block", "shared", 30_000)),
		free(truncate("of many extents", "frag", 5)),
		truncate("that takes capabilities", "armed", 5),

		falloc("more", "f", 0, 0, 400_000),
		falloc("and keep the size", "hole", fs.FallocKeepSize, 0, 400_000),
		falloc("over many extents", "frag", 0, 0, 8192*150),
		falloc("a hole", "f", fs.FallocPunchHole|fs.FallocKeepSize, 5001, 40_000),
		falloc("a hole in what is shared", "shared", fs.FallocPunchHole|fs.FallocKeepSize, 5001, 40_000),
		falloc("a hole that needs an extent block", "tight", fs.FallocPunchHole|fs.FallocKeepSize, 4096+5, 2*4096),
		falloc("zeros", "f", fs.FallocZeroRange, 5001, 40_000),
		falloc("zeros in what is shared", "shared", fs.FallocZeroRange, 5001, 40_000),
		falloc("zeros in many extents", "frag", fs.FallocZeroRange, 5001, 8192*140),

		copied("of whole blocks", "hole", 0, 0, 65_536),
		free(copied("over many extents", "frag", 0, 0, 65_536)),
		copied("of bytes", "hole", 1, 3, 50_000),
		copied("of whole blocks and bytes", "hole", 5, 4096+5, 50_000),
		fragCopy,

		setxattr("short", files["f"], "user.b", []byte("value")),
		setxattr("replaced", files["f"], "user.a", randomBytes(4, 300)),
		setxattr("long", files["f"], "user.b", randomBytes(5, 60_000)),
		setxattr("long, replaced", files["shared"], "user.long", randomBytes(6, 30_000)),
		setxattr("in many blocks", func(s *scene) uint64 { return s.many }, "user.13", randomBytes(14, 900)),
		setxattr("list", files["f"], aclAccess, aclText(aclWide)),
		setxattr("default list", dir, aclDefault, aclText(aclWide)),
		removexattr("one of two", files["f"], "user.a"),
		removexattr("in many blocks", func(s *scene) uint64 { return s.many }, "user.3"),
		free(removexattr("the last", files["shared"], "user.long")),
		free(setattr("chmod", files["f"], fs.SetAttr{Valid: fs.SetMode, Mode: 0o600})),
		setattr("chmod with a list", func(s *scene) uint64 { return s.listed }, fs.SetAttr{Valid: fs.SetMode, Mode: 0o600}),
		free(setattr("chown", files["f"], fs.SetAttr{Valid: fs.SetUID, UID: 7})),
		free(op("chattr", func(s *scene) syscall.Errno { return s.FS.SetFlags(&s.Ctx, s.f, layout.FlagNoDump, nil) })),
		free(op("readdir and lookup", func(s *scene) syscall.Errno { s.Names(s.full); return s.FS.Ref(&s.Ctx, s.f, &a) })),

		bare(inTheWay, op("compaction of a large range", compact)),
		with(thinnedOut, op("compaction of broken blocks", compact)),
	}
}

// compact compacts until nothing is left to compact.
func compact(s *scene) syscall.Errno {
	for {
		c, e := s.FS.Compact(&s.Ctx)
		if e != 0 || c.Moved == 0 {
			return e
		}
	}
}

// blocksOfNames makes a directory of five full blocks in so few extents that holes need more slots
// than the inode has.
func blocksOfNames(s *scene) {
	d, f := s.Mkdir("/d"), s.Create("/f")
	for i := range 2 { // uses up the rest of a chunk
		s.Mkdir(fmt.Sprint("/", i))
		s.Create(fmt.Sprint("/", i, "/f"))
	}
	for i := range 5 * layout.LinesPerBlock {
		s.OK(s.FS.Link(&s.Ctx, f, d, fmt.Sprintf("%03d", i), new(fs.Attr)))
		s.FS.Forget(f, 1)
	}
}

// inTheWay makes a file of one PUD range, in whose reserved block other files have blocks.
func inTheWay(s *scene) {
	big := s.Create("/big")
	grow := func(from, to int64) {
		for off := from; off < to; off += 8000 {
			s.Write(big, off, randomBytes(off, int(min(8000, to-off))))
		}
	}
	from := int64(0)
	for i := range 3 {
		to := int64(40_000 * (i + 1))
		grow(from, to)
		from = to
		s.Unmount() // a mount forgets the reservations
		s.Mount()
		s.Write(s.Create(fmt.Sprint("/s", i)), 0, randomBytes(16, 9000))
	}
	grow(from, 1<<18)
}

// thinnedOut makes many files and removes most of them.
func thinnedOut(s *scene) {
	for i := range 200 {
		s.Write(s.Create(fmt.Sprint("/dir/", i)), 0, randomBytes(int64(i), 4096))
	}
	for i := range 200 {
		if i%8 != 3 {
			s.Delete(fmt.Sprint("/dir/", i))
		}
	}
	s.Unmount()
	s.Mount()
}
