package golden

import (
	"bytes"
	"fmt"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// clock is the time of every change in an image, in ns since the epoch: 2026-11-30, 12:00 UTC.
const clock = 1_796_040_000 * 1_000_000_000

// pattern returns n bytes, from offset off, of a content that depends on seed. It consists of lines
// of 32 bytes that name their 4 KiB block, so that images compress well and all blocks differ.
func pattern(seed, off, n int) []byte {
	var b bytes.Buffer
	for at := off &^ 31; at < off+n; at += 32 {
		fmt.Fprintf(&b, "%08x in block %08x of file\n", seed, at>>12)
	}
	return b.Bytes()[off&31:][:n]
}

// writer changes a filesystem by path names. Any failure fails the test.
type writer struct {
	t    *testing.T
	f    *fs.FS
	ctx  fs.Caller
	held []uint64 // inodes with a reference that close drops
	seed int      // seed of the last file's content
}

// close drops the references to all inodes that were used.
func (w *writer) close() {
	for _, ino := range w.held {
		w.f.Forget(ino, 1)
	}
	w.held = nil
}

func (w *writer) ok(what string, e syscall.Errno) {
	w.t.Helper()
	if e != 0 {
		w.t.Fatalf("%s: %v", what, e)
	}
}

// ino returns the inode number of a path. It keeps a reference to the inode until close.
func (w *writer) ino(p string) uint64 {
	w.t.Helper()
	ino := uint64(layout.RootIno)
	for name := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if name == "" {
			continue
		}
		var a fs.Attr
		w.ok(p, w.f.Lookup(&w.ctx, ino, name, &a))
		ino = a.Ino
		w.held = append(w.held, ino)
	}
	return ino
}

func (w *writer) mkdir(p string, mode uint32) {
	w.t.Helper()
	var a fs.Attr
	w.ok(p, w.f.Mkdir(&w.ctx, w.ino(path.Dir(p)), path.Base(p), mode, &a))
	w.held = append(w.held, a.Ino)
}

func (w *writer) mknod(p string, mode, rdev uint32) uint64 {
	w.t.Helper()
	var a fs.Attr
	w.ok(p, w.f.Mknod(&w.ctx, w.ino(path.Dir(p)), path.Base(p), mode, rdev, &a))
	w.held = append(w.held, a.Ino)
	return a.Ino
}

// file creates a file of size bytes.
func (w *writer) file(p string, size int) uint64 {
	w.t.Helper()
	ino := w.mknod(p, syscall.S_IFREG|0o644, 0)
	w.seed++
	for off := 0; off < size; off += 1 << 20 {
		w.write(ino, off, pattern(w.seed, off, min(1<<20, size-off)))
	}
	return ino
}

func (w *writer) write(ino uint64, off int, data []byte) {
	w.t.Helper()
	if n, e := w.f.Write(&w.ctx, ino, int64(off), data); n != len(data) || e != 0 {
		w.t.Fatalf("write to inode %d at %d: %d of %d bytes, %v", ino, off, n, len(data), e)
	}
}

func (w *writer) symlink(p, target string) {
	w.t.Helper()
	var a fs.Attr
	w.ok(p, w.f.Symlink(&w.ctx, w.ino(path.Dir(p)), path.Base(p), target, &a))
	w.held = append(w.held, a.Ino)
}

func (w *writer) link(p, name string) {
	w.t.Helper()
	var a fs.Attr
	w.ok(name, w.f.Link(&w.ctx, w.ino(p), w.ino(path.Dir(name)), path.Base(name), &a))
	w.held = append(w.held, a.Ino)
}

func (w *writer) unlink(p string) {
	w.t.Helper()
	w.ok(p, w.f.Unlink(&w.ctx, w.ino(path.Dir(p)), path.Base(p)))
}

func (w *writer) rename(from, to string) {
	w.t.Helper()
	w.ok(to, w.f.Rename(&w.ctx, w.ino(path.Dir(from)), path.Base(from), w.ino(path.Dir(to)), path.Base(to), 0))
}

func (w *writer) xattr(p, name string, value []byte) {
	w.t.Helper()
	w.ok(p+" "+name, w.f.SetXattr(&w.ctx, w.ino(p), name, value, 0))
}

func (w *writer) setattr(p string, s fs.SetAttr) {
	w.t.Helper()
	var a fs.Attr
	w.ok(p, w.f.SetAttr(&w.ctx, w.ino(p), &s, &a))
}

func (w *writer) fallocate(p string, mode uint32, off, n int64) {
	w.t.Helper()
	w.ok(p, w.f.Fallocate(&w.ctx, w.ino(p), mode, off, n))
}

// clone makes the second file share the blocks of the first one.
func (w *writer) clone(from, to string) {
	w.t.Helper()
	var a fs.Attr
	src, dst := w.ino(from), w.ino(to)
	w.ok(from, w.f.GetAttr(&w.ctx, src, &a))
	for off := int64(0); off < int64(a.Size); {
		n, e := w.f.CopyRange(&w.ctx, src, off, dst, off, int64(a.Size)-off)
		w.ok(to, e)
		off += n
	}
}

// newFS makes a filesystem of size bytes in memory. With pudShift 0 its folios are of 2 MiB and 1
// GiB.
func newFS(t *testing.T, size int64, chunkShift, pudShift uint8) *pmem.Region {
	t.Helper()
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	o := fs.MkfsOptions{Label: "golden", UUID: [16]byte{0x60, 0x1d}, Reserve: 1, ChunkShift: chunkShift, PUDShift: pudShift, Now: clock}
	if _, err := fs.Mkfs(r, o); err != nil {
		t.Fatal(err)
	}
	return r
}

// bytesOf returns a copy of a region, whose owner record and heartbeat name a machine that does not
// exist.
func bytesOf(t *testing.T, r *pmem.Region, media []byte) []byte {
	t.Helper()
	sb, _, err := fs.ReadSuper(r)
	if err != nil {
		t.Fatal(err)
	}
	media = bytes.Clone(media)
	seed := layout.Seed(sb.UUID)
	var o layout.Owner
	l := (*layout.Line)(media[sb.OwnerOff:])
	seq := l.Seq()
	o.Get(l)
	o.PID, o.Start = 1, 1
	if o.State == layout.OwnerMounted {
		o.Machine, o.Boot, o.Mount = [8]byte{1}, [16]byte{1}, [8]byte{1}
	}
	*l = layout.Line{}
	o.Put(l)
	l.Seal(seed, sb.OwnerOff, seq)
	l = (*layout.Line)(media[sb.BeatOff():])
	*l = layout.Line{}
	b := layout.Beat{Mount: o.Mount, Count: 1, Time: clock}
	b.Put(l)
	l.Seal(seed, sb.BeatOff(), 1)
	return media
}

// buildClean builds the image of a filesystem that was unmounted.
func buildClean(t *testing.T) []byte {
	r := newFS(t, 16<<20, 0, 0)
	f := mount(t, r, fs.Options{})
	w := &writer{t: t, f: f}
	w.mkdir("/types", 0o755)
	w.file("/types/empty", 0)
	w.file("/types/small", 11)
	w.file("/types/three blocks and a half", 14_000)
	w.write(w.file("/types/sparse", 5000), 1_000_000, pattern(1, 0, 5000))
	w.file("/types/preallocated", 4096)
	w.fallocate("/types/preallocated", fs.FallocKeepSize, 0, 100_000)
	w.file("/types/punched", 100_000)
	w.fallocate("/types/punched", fs.FallocPunchHole|fs.FallocKeepSize, 10_000, 50_000)
	w.file("/types/one folio", 2<<20)
	w.mknod("/types/fifo", syscall.S_IFIFO|0o600, 0)
	w.mknod("/types/socket", syscall.S_IFSOCK|0o777, 0)
	w.mknod("/types/block", syscall.S_IFBLK|0o660, 259<<8|3)
	w.mknod("/types/char", syscall.S_IFCHR|0o666, 1<<8|3)
	w.symlink("/types/short link", "../attributes")
	w.symlink("/types/long link", strings.Repeat("directory/", 200)+"file")
	w.link("/types/small", "/types/another name")
	w.mkdir("/attributes", 0o3777)
	w.file("/attributes/set-user-ID", 1)
	w.setattr("/attributes/set-user-ID", fs.SetAttr{Valid: fs.SetUID | fs.SetGID, UID: 1000, GID: 1<<32 - 2})
	w.setattr("/attributes/set-user-ID", fs.SetAttr{Valid: fs.SetMode, Mode: 0o6751})
	w.file("/attributes/old", 1)
	w.setattr("/attributes/old", fs.SetAttr{Valid: fs.SetAtime | fs.SetMtime, Atime: -9e18, Mtime: -1})
	w.file("/attributes/future", 1)
	w.setattr("/attributes/future", fs.SetAttr{Valid: fs.SetAtime | fs.SetMtime, Atime: 9e18, Mtime: 1<<32*1e9 + 999_999_999})
	project := uint32(7)
	w.mkdir("/attributes/project", 0o755)
	w.ok("flags", f.SetFlags(&w.ctx, w.ino("/attributes/project"), layout.FlagProjInherit|layout.FlagNoDump, &project))
	w.file("/attributes/project/inherits", 1)
	w.file("/attributes/immutable", 1)
	w.ok("flags", f.SetFlags(&w.ctx, w.ino("/attributes/immutable"), layout.FlagImmutable, nil))
	w.file("/attributes/short values", 1)
	w.xattr("/attributes/short values", "user.greeting", []byte("hello"))
	w.xattr("/attributes/short values", "trusted.empty", nil)
	w.xattr("/attributes/short values", "security.capability", pattern(2, 0, 20))
	w.mkdir("/many", 0o755)
	for i := range 700 { // enough for a table of names of two levels
		name := fmt.Sprintf("/many/file %03d", i)
		switch w.mknod(name, syscall.S_IFREG|0o600, 0); {
		case i%3 == 0:
			w.unlink(name)
		case i%50 == 1:
			w.rename(name, name+" "+strings.Repeat("x", 200))
		}
	}
	deep := ""
	for i := range 12 {
		deep += fmt.Sprint("/", i)
		w.mkdir(deep, 0o755)
	}
	w.file(deep+"/at the bottom", 100)
	w.close()
	unmount(t, f)
	return bytesOf(t, r, r.Bytes(0, r.Size()))
}

// buildCrashed builds the image of a power failure in which everything that was not written back is
// lost.
func buildCrashed(t *testing.T) []byte {
	r := newFS(t, 16<<20, 15, 18)
	m := newMedia(r)
	f := mount(t, r, fs.Options{})
	w := &writer{t: t, f: f}
	w.file("/untouched", 50_000)
	w.file("/grows", 10_000)
	w.write(w.ino("/grows"), 10_000, pattern(3, 0, 200_000))
	w.file("/deleted while open", 100_000)
	w.unlink("/deleted while open")
	var a fs.Attr
	w.ok("O_TMPFILE", f.Tmpfile(&w.ctx, layout.RootIno, 0o600, &a))
	w.held = append(w.held, a.Ino)
	w.write(a.Ino, 0, pattern(4, 0, 5000))
	w.mkdir("/from", 0o755)
	w.mkdir("/to", 0o755)
	w.file("/from/moved", 5000)
	w.rename("/from/moved", "/to/moved")
	w.file("/to/two names", 1)
	w.link("/to/two names", "/from/two names")
	w.fragmented("/cut", 3000)
	w.file("/created before the failure", 3)
	// Freeing 3000 extents takes many transactions. The first one has the new size.
	region := m.atFence(2, func() { w.setattr("/cut", fs.SetAttr{Valid: fs.SetSize, Size: 4096}) })
	w.close()
	f.Abandon()
	return bytesOf(t, r, region)
}

// fragmented creates a file of n extents with holes between them.
func (w *writer) fragmented(p string, n int) {
	w.t.Helper()
	ino := w.mknod(p, syscall.S_IFREG|0o644, 0)
	for i := range n {
		w.write(ino, i*8192, []byte("x"))
	}
}

// buildAtomic builds the image of a power failure with -o atomic, between the commit of a write and
// the store of its data in place.
func buildAtomic(t *testing.T) []byte {
	r := newFS(t, 16<<20, 15, 18)
	m := newMedia(r)
	f := mount(t, r, fs.Options{Atomic: true})
	w := &writer{t: t, f: f}
	ino := w.file("/logged", 300_000)
	w.file("/other", 10_000)
	data := pattern(5, 0, 100_000)
	region := m.atFence(2, func() { w.write(ino, 5000, data) })
	w.close()
	f.Abandon()
	if n := bytes.Count(region, data[:4096]); n != 1 {
		t.Errorf("%d copies of the data are durable; want 1, that of the record", n)
	}
	return bytesOf(t, r, region)
}

// acl returns an access control list as the value of its attribute, with entries for owner, user
// 1000, group, mask and others.
func acl(owner, user, group, mask, other byte) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range [][2]byte{{0x01, owner}, {0x02, user}, {0x04, group}, {0x10, mask}, {0x20, other}} {
		id := []byte{0xff, 0xff, 0xff, 0xff}
		if e[0] == 0x02 {
			id = []byte{0xe8, 3, 0, 0}
		}
		b = append(append(b, e[0], 0, e[1], 0), id...)
	}
	return b
}

// buildFeatures builds an image with large folios, clones, long attributes, access control lists,
// and bad memory.
func buildFeatures(t *testing.T) []byte {
	r := newFS(t, 16<<20, 15, 18) // folios of 32 KiB and 256 KiB
	f := mount(t, r, fs.Options{})
	w := &writer{t: t, f: f}
	w.file("/large", 800_000)
	w.file("/medium", 100_000)
	w.file("/clone", 0)
	w.clone("/large", "/clone")
	w.write(w.ino("/clone"), 300_000, pattern(6, 0, 10_000))
	w.file("/clone of a part", 0)
	if _, e := f.CopyRange(&w.ctx, w.ino("/medium"), 8192, w.ino("/clone of a part"), 4096, 40_960); e != 0 {
		t.Fatal(e)
	}
	w.mkdir("/lists", 0o770)
	w.xattr("/lists", "system.posix_acl_default", acl(7, 5, 5, 7, 0))
	w.file("/lists/inherits", 10)
	w.file("/lists/has its own", 10)
	w.xattr("/lists/has its own", "system.posix_acl_access", acl(6, 6, 4, 6, 4))
	w.file("/attributes", 10)
	w.xattr("/attributes", "user.long", pattern(7, 0, 65_536))
	for i := range 60 {
		w.xattr("/attributes", fmt.Sprintf("user.number %02d", i), pattern(8, 0, 10+7*i))
	}
	w.file("/mended", 40_000)
	if err := f.MarkBad(w.ino("/mended"), 4096, 8192); err != nil {
		t.Fatal(err)
	}
	w.write(w.ino("/mended"), 4096, pattern(9, 0, 8192)) // gets other memory
	w.file("/lost", 40_000)
	if err := f.MarkBad(w.ino("/lost"), 0, 4096); err != nil {
		t.Fatal(err)
	}
	w.unlink("/lost")
	w.close()
	unmount(t, f)
	return bytesOf(t, r, r.Bytes(0, r.Size()))
}
