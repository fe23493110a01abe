package fsck_test

import (
	"bytes"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
)

const size = 16 << 20

// world is a small filesystem, unmounted cleanly, with the inode numbers of its paths.
type world struct {
	*fstest.Volume
	sb   *layout.Superblock
	seed uint32
	ino  map[string]uint64
}

func options() fs.MkfsOptions {
	return fs.MkfsOptions{UUID: [16]byte{1, 2, 3}, ChunkShift: 15, PUDShift: 18, Lanes: 2, Now: 1e18}
}

// build makes: /f (3 blocks), /d/g, /d/sub/deep, /s (inline), /l (long link), /frag
// (an extent block), /p (fifo), /d/two = /f. /d/g has a short and a long attribute.
func build(t testing.TB) *world {
	t.Helper()
	v := fstest.Format(t, fstest.Memory(t, size), options(), fs.Options{Clock: func() int64 { return 2e18 }})
	sb := v.Super()
	w := &world{Volume: v, sb: sb, seed: layout.Seed(sb.UUID), ino: map[string]uint64{"/": layout.RootIno}}
	w.mkdir("/d")
	w.mkdir("/d/sub")
	w.file("/f", 10000)
	w.file("/d/g", 100)
	w.file("/d/sub/deep", 5000)
	w.symlink("/s", "d/g")
	w.symlink("/l", strings.Repeat("x", 300))
	w.file("/frag", 1)
	for i := 1; i < 8; i++ {
		w.write("/frag", int64(i)*8192, 1)
	}
	w.ino["/p"] = w.Mknod("/p", syscall.S_IFIFO|0o600)
	w.Link(w.ino["/f"], "/d/two")
	w.SetXattr(w.ino["/d/g"], "user.short", []byte("value"))
	w.SetXattr(w.ino["/d/g"], "user.long", bytes.Repeat([]byte("v"), 10000))
	w.Unmount()
	return w
}

// mounted calls f while the filesystem is mounted.
func (w *world) mounted(f func()) {
	w.Helper()
	w.Mount()
	f()
	w.Unmount()
}

func (w *world) mkdir(path string) { w.ino[path] = w.Mkdir(path) }

func (w *world) symlink(path, target string) { w.ino[path] = w.Symlink(path, target) }

// file makes a file of n bytes.
func (w *world) file(path string, n int) {
	w.ino[path] = w.Create(path)
	w.write(path, 0, n)
}

// write writes n bytes, the last letter of the path, at a byte offset.
func (w *world) write(path string, off int64, n int) {
	w.Write(w.ino[path], off, bytes.Repeat([]byte(path[len(path)-1:]), n))
}

// edit changes the line at a region offset and seals it: a wrong line with a right checksum.
func (w *world) edit(off int64, f func(l *layout.Line)) {
	w.Helper()
	var l layout.Line
	if err := w.R.LoadLine(off, (*[64]byte)(&l)); err != nil {
		w.Fatal(err)
	}
	f(&l)
	l.Seal(w.seed, off, l.Seq())
	w.Store(off, l[:])
}

// smash makes the line at a region offset fail its checksum.
func (w *world) smash(off int64) {
	var l layout.Line
	w.R.LoadLine(off, (*[64]byte)(&l))
	l[20] ^= 0x55
	w.Store(off, l[:])
}

func (w *world) inode(path string) int64 {
	ino, ok := w.ino[path]
	if !ok {
		w.Fatalf("no %s", path)
	}
	return w.sb.InodeOff(ino)
}

func (w *world) core(path string, f func(c *layout.Core)) {
	w.edit(w.inode(path), func(l *layout.Line) {
		var c layout.Core
		c.Get(l)
		f(&c)
		c.Put(l)
	})
}

func (w *world) times(path string, f func(c *layout.Times)) {
	w.edit(w.inode(path)+layout.InodeTimesOff, func(l *layout.Line) {
		var c layout.Times
		c.Get(l)
		f(&c)
		c.Put(l)
	})
}

func (w *world) extent(path string, i int, f func(e *layout.Extent)) {
	w.edit(w.inode(path)+layout.InodeExtentOff, func(l *layout.Line) {
		e := l.Extent(i)
		f(&e)
		l.PutExtent(i, e)
	})
}

func (w *world) xattrRoot(path string) (root uint64) {
	w.times(path, func(t *layout.Times) { root = t.XattrRoot })
	return root
}

func (w *world) xattrHeader(path string, f func(h *layout.XattrBlock)) {
	w.edit(int64(w.xattrRoot(path))<<12, func(l *layout.Line) {
		var h layout.XattrBlock
		h.Get(l)
		f(&h)
		h.Put(l)
	})
}

// slot returns the i-th extent of a file on the media.
func (w *world) slot(path string, i int) (e layout.Extent) {
	w.extent(path, i, func(x *layout.Extent) { e = *x })
	return e
}

// dentry returns the region offset of a name's head line.
func (w *world) dentry(dir, name string) int64 {
	w.Helper()
	e := w.slot(dir, 0)
	for i := int64(0); i < layout.LinesPerBlock; i++ {
		off := int64(e.Block)<<layout.BlockShift + i*layout.LineSize
		var l layout.Line
		w.R.LoadLine(off, (*[64]byte)(&l))
		if l.DentryKind() == layout.DentryHead && string(l.NamePart(0, l.DentryNameLen())) == name {
			return off
		}
	}
	w.Fatalf("no dentry %s in %s", name, dir)
	return 0
}

func (w *world) check(repair bool) *fsck.Report {
	w.Helper()
	var rep *fsck.Report
	var err error
	if repair {
		rep, err = w.repair(fsck.Options{})
	} else {
		rep, err = fsck.Check(w.R, fsck.Options{})
	}
	if err != nil {
		w.Fatal(err)
	}
	return rep
}

func codes(rep *fsck.Report) []string {
	var out []string
	for _, p := range rep.Problems {
		if !slices.Contains(out, p.Code) {
			out = append(out, p.Code)
		}
	}
	slices.Sort(out)
	return out
}

// verify mounts the filesystem and reads the files of build, except those in gone.
func (w *world) verify(gone string) {
	w.Helper()
	skip := strings.Fields(gone)
	w.mounted(func() {
		for path, ino := range w.ino {
			if slices.Contains(skip, path) && !strings.HasPrefix(gone, "content") {
				continue
			}
			var a fs.Attr
			if path != "/" {
				i := strings.LastIndexByte(path, '/')
				if e := w.FS.Lookup(&w.Ctx, w.ino[max(path[:i], "/")], path[i+1:], &a); e != 0 || a.Ino != ino {
					w.Errorf("%s: %v, inode %d, expected %d", path, e, a.Ino, ino)
					continue
				}
			}
			if path == "/d/g" && gone != "xattrs" {
				if b := w.Xattr(ino, "user.long"); len(b) != 10000 || b[len(b)-1] != 'v' {
					w.Errorf("%s: user.long has %d bytes", path, len(b))
				}
				if b := w.Xattr(ino, "user.short"); string(b) != "value" {
					w.Errorf("%s: user.short is %q", path, b)
				}
			}
			if a.Mode&syscall.S_IFMT != syscall.S_IFREG || slices.Contains(skip, path) {
				continue
			}
			if b, e := w.Take(ino, 0, 1); e != 0 || string(b) != path[len(path)-1:] {
				w.Errorf("%s: the first byte is %q, %v", path, b, e)
			}
		}
	})
}
