package fsck_test

import (
	"bytes"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

const size = 16 << 20

// world is a small filesystem, unmounted cleanly, and where its things are.
type world struct {
	testing.TB
	r    *pmem.Region
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
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	sb, err := fs.Mkfs(r, options())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, r: r, sb: sb, seed: layout.Seed(sb.UUID), ino: map[string]uint64{"/": 1}}
	w.mounted(func(f *fs.FS) {
		w.mkdir(f, "/d")
		w.mkdir(f, "/d/sub")
		w.file(f, "/f", 10000)
		w.file(f, "/d/g", 100)
		w.file(f, "/d/sub/deep", 5000)
		w.symlink(f, "/s", "d/g")
		w.symlink(f, "/l", strings.Repeat("x", 300))
		w.file(f, "/frag", 1)
		for i := 1; i < 8; i++ {
			w.write(f, "/frag", int64(i)*8192, 1)
		}
		var a fs.Attr
		w.ok(f.Mknod(&fs.Caller{}, 1, "p", syscall.S_IFIFO|0o600, 0, &a))
		w.ino["/p"] = a.Ino
		w.ok(f.Link(&fs.Caller{}, w.ino["/f"], w.ino["/d"], "two", &a))
		w.ok(f.SetXattr(&fs.Caller{}, w.ino["/d/g"], "user.short", []byte("value"), 0))
		w.ok(f.SetXattr(&fs.Caller{}, w.ino["/d/g"], "user.long", bytes.Repeat([]byte("v"), 10000), 0))
	})
	return w
}

func (w *world) mounted(f func(*fs.FS)) {
	w.Helper()
	m, err := fs.Mount(w.r, fs.Options{Clock: func() int64 { return 2e18 }})
	if err != nil {
		w.Fatalf("mount: %v", err)
	}
	f(m)
	if err := m.Unmount(); err != nil {
		w.Fatalf("unmount: %v", err)
	}
}

func (w *world) ok(e syscall.Errno) {
	w.Helper()
	if e != 0 {
		w.Fatal(e)
	}
}

func (w *world) parent(path string) (uint64, string) {
	i := strings.LastIndexByte(path, '/')
	return w.ino[max(path[:i], "/")], path[i+1:]
}

func (w *world) mkdir(f *fs.FS, path string) {
	d, name := w.parent(path)
	var a fs.Attr
	w.ok(f.Mkdir(&fs.Caller{}, d, name, 0o755, &a))
	w.ino[path] = a.Ino
}

func (w *world) file(f *fs.FS, path string, n int) {
	d, name := w.parent(path)
	var a fs.Attr
	w.ok(f.Mknod(&fs.Caller{}, d, name, syscall.S_IFREG|0o644, 0, &a))
	w.ino[path] = a.Ino
	w.write(f, path, 0, n)
}

func (w *world) write(f *fs.FS, path string, off int64, n int) {
	_, e := f.Write(&fs.Caller{}, w.ino[path], off, bytes.Repeat([]byte(path[len(path)-1:]), n))
	w.ok(e)
}

func (w *world) symlink(f *fs.FS, path, target string) {
	d, name := w.parent(path)
	var a fs.Attr
	w.ok(f.Symlink(&fs.Caller{}, d, name, target, &a))
	w.ino[path] = a.Ino
}

// edit changes the line at off and seals it anew: a wrong line with a right checksum.
func (w *world) edit(off int64, f func(l *layout.Line)) {
	w.Helper()
	var l layout.Line
	if err := w.r.LoadLine(off, (*[64]byte)(&l)); err != nil {
		w.Fatal(err)
	}
	f(&l)
	l.Seal(w.seed, off, l.Seq())
	w.store(off, l[:])
}

// smash makes the line at off fail its checksum.
func (w *world) smash(off int64) {
	var l layout.Line
	w.r.LoadLine(off, (*[64]byte)(&l))
	l[20] ^= 0x55
	w.store(off, l[:])
}

func (w *world) store(off int64, b []byte) {
	w.Helper()
	if err := w.r.Store(off, b); err != nil {
		w.Fatal(err)
	}
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

// slot is an extent of a file as it stands on the media.
func (w *world) slot(path string, i int) (e layout.Extent) {
	w.extent(path, i, func(x *layout.Extent) { e = *x })
	return e
}

// dentry is the offset of a name's head line.
func (w *world) dentry(dir, name string) int64 {
	w.Helper()
	e := w.slot(dir, 0)
	for i := int64(0); i < layout.LinesPerBlock; i++ {
		off := int64(e.Block)<<layout.BlockShift + i*layout.LineSize
		var l layout.Line
		w.r.LoadLine(off, (*[64]byte)(&l))
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
		rep, err = fsck.Check(w.r, fsck.Options{})
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

// verify mounts the filesystem and reads every file of build but those gone.
func (w *world) verify(gone string) {
	w.Helper()
	skip := strings.Fields(gone)
	w.mounted(func(f *fs.FS) {
		for path, ino := range w.ino {
			if slices.Contains(skip, path) && !strings.HasPrefix(gone, "content") {
				continue
			}
			d, name := w.parent(path)
			var a fs.Attr
			if path != "/" {
				if e := f.Lookup(&fs.Caller{}, d, name, &a); e != 0 || a.Ino != ino {
					w.Errorf("%s: %v, inode %d, expected %d", path, e, a.Ino, ino)
					continue
				}
			}
			if path == "/d/g" && gone != "xattrs" {
				buf := make([]byte, 10000)
				if n, e := f.GetXattr(&fs.Caller{}, ino, "user.long", buf); e != 0 || n != len(buf) || buf[n-1] != 'v' {
					w.Errorf("%s: user.long has %d bytes, %v", path, n, e)
				}
				if n, e := f.GetXattr(&fs.Caller{}, ino, "user.short", buf); e != 0 || string(buf[:n]) != "value" {
					w.Errorf("%s: user.short is %q, %v", path, buf[:n], e)
				}
			}
			if a.Mode&syscall.S_IFMT != syscall.S_IFREG || slices.Contains(skip, path) {
				continue
			}
			rp := f.NewPinnedRead()
			if e := f.Read(&fs.Caller{}, ino, 0, 1, rp); e != 0 || rp.Len() != 1 || rp.Slices()[0][0] != path[len(path)-1] {
				w.Errorf("%s cannot be read any more: %v", path, e)
			}
			rp.Done()
		}
	})
}
