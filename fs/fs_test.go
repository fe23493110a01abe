package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// volume is a filesystem in memory whose second and third orders fit 16 MiB.
type volume struct {
	t   testing.TB
	r   *pmem.Region
	fs  *fs.FS
	ctx fs.Caller
	now atomic.Int64

	unmerged bool // folios may be split that could stand together
	atomic   bool // fs.Options.Atomic
}

func newVolume(t testing.TB, size int64) *volume {
	t.Helper()
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if _, err := fs.Mkfs(r, fs.MkfsOptions{ChunkShift: 15, PUDShift: 18, Now: 1, UUID: [16]byte{1}}); err != nil {
		t.Fatal(err)
	}
	v := &volume{t: t, r: r}
	v.mount()
	t.Cleanup(func() {
		if v.fs != nil {
			v.fs.Unmount()
		}
	})
	return v
}

func (v *volume) mount() {
	v.t.Helper()
	v.mountBy(fs.Options{})
}

func (v *volume) mountBy(o fs.Options) {
	v.t.Helper()
	o.Atomic = v.atomic
	o.Clock = func() int64 { return v.now.Add(1) }
	warn := o.Warn
	o.Warn = func(msg string) {
		if warn != nil {
			warn(msg)
		}
		if strings.Contains(msg, "free map is not") {
			v.t.Error(msg)
		}
	}
	f, err := fs.Mount(v.r, o)
	if err != nil {
		v.t.Fatal(err)
	}
	v.fs = f
}

func (v *volume) ok(e syscall.Errno) {
	v.t.Helper()
	if e != 0 {
		v.t.Fatalf("unexpected error %v", e)
	}
}

func (v *volume) create(dir uint64, name string) uint64 {
	v.t.Helper()
	var a fs.Attr
	v.ok(v.fs.Mknod(&v.ctx, dir, name, syscall.S_IFREG|0o644, 0, &a))
	return a.Ino
}

func (v *volume) mkdir(dir uint64, name string) uint64 {
	v.t.Helper()
	var a fs.Attr
	v.ok(v.fs.Mkdir(&v.ctx, dir, name, 0o755, &a))
	return a.Ino
}

func (v *volume) write(ino uint64, off int64, data []byte) {
	v.t.Helper()
	n, e := v.fs.Write(&v.ctx, ino, off, data)
	if e != 0 || n != len(data) {
		v.t.Fatalf("write at %d: %d of %d bytes, %v", off, n, len(data), e)
	}
}

func (v *volume) read(ino uint64, off int64, n int) []byte {
	v.t.Helper()
	r := v.fs.NewPinnedRead()
	defer r.Free()
	v.ok(v.fs.Read(&v.ctx, ino, off, n, r))
	b := bytes.Join(r.Slices(), nil)
	if len(b) != r.Len() {
		v.t.Fatalf("reply says %d bytes and has %d", r.Len(), len(b))
	}
	r.Done()
	return b
}

func (v *volume) names(dir uint64) []string {
	v.t.Helper()
	var out []string
	v.ok(v.fs.ReadDir(&v.ctx, dir, 0, func(d *fs.Dirent) bool {
		out = append(out, string(d.Name))
		return true
	}))
	sort.Strings(out)
	return out
}

func (v *volume) free() uint64 {
	var s fs.StatFS
	v.fs.StatFS(&s)
	return s.Bfree
}

func TestWriteReadRemount(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	data := make([]byte, 300_000)
	rand.New(rand.NewSource(1)).Read(data)
	v.write(ino, 5, data)
	if got := v.read(ino, 0, 400_000); !bytes.Equal(got, append(make([]byte, 5), data...)) {
		t.Fatal("content differs")
	}
	v.remount()
	var a fs.Attr
	v.ok(v.fs.Lookup(&v.ctx, 1, "a", &a))
	if a.Ino != ino || a.Size != uint64(len(data)+5) {
		t.Fatalf("after remount: %+v", a)
	}
	if got := v.read(ino, 5, len(data)); !bytes.Equal(got, data) {
		t.Fatal("content differs after remount")
	}
}

// TestDeleteReturnsSpace: whatever was made, removing it gives all blocks back.
func TestDeleteReturnsSpace(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	before := v.free()
	d := v.mkdir(1, "d")
	for i := 0; i < 300; i++ {
		ino := v.create(d, fmt.Sprintf("f%03d%s", i, strings.Repeat("x", i%200)))
		v.write(ino, int64(i)*4096*3, []byte("hello"))
		v.fs.Forget(ino, 1)
	}
	var a fs.Attr
	v.ok(v.fs.Symlink(&v.ctx, d, "long", strings.Repeat("y", 3000), &a))
	v.fs.Forget(a.Ino, 1)
	if e := v.fs.Rmdir(&v.ctx, 1, "d"); e != syscall.ENOTEMPTY {
		t.Fatalf("rmdir of a full directory: %v", e)
	}
	for _, n := range v.names(d) {
		if n != "." && n != ".." {
			v.ok(v.fs.Unlink(&v.ctx, d, n))
		}
	}
	v.ok(v.fs.Rmdir(&v.ctx, 1, "d"))
	v.fs.Forget(d, 1)
	if after := v.free(); after != before {
		t.Fatalf("%d blocks free before, %d after", before, after)
	}
	v.remount()
	if after := v.free(); after != before {
		t.Fatalf("%d blocks free before, %d after remount", before, after)
	}
}

// TestUnlinkedOpen: an unlinked file lives until it is forgotten.
func TestUnlinkedOpen(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	before := v.free()
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 100_000))
	v.ok(v.fs.Unlink(&v.ctx, 1, "a"))
	v.write(ino, 3, []byte("still here"))
	if string(v.read(ino, 3, 10)) != "still here" {
		t.Fatal("lost the content")
	}
	v.fs.Forget(ino, 1)
	if v.free() != before {
		t.Fatal("space is not back")
	}
	var a fs.Attr
	if e := v.fs.GetAttr(&v.ctx, ino, &a); e != syscall.ESTALE {
		t.Fatalf("stat of a forgotten orphan: %v", e)
	}
}

// TestReplyHoldsBlocks: what a reply shows is not reused before Done.
func TestReplyHoldsBlocks(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	want := bytes.Repeat([]byte{7}, 1<<20)
	v.write(ino, 0, want)
	r := v.fs.NewPinnedRead()
	v.ok(v.fs.Read(&v.ctx, ino, 0, 1<<20, r))
	free := v.free()
	var a fs.Attr
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize}, &a))
	if v.free() != free {
		t.Fatal("blocks of a reply were freed")
	}
	fill := v.create(1, "b")
	for off := int64(0); ; off += 1 << 20 {
		if n, e := v.fs.Write(&v.ctx, fill, off, bytes.Repeat([]byte{9}, 1<<20)); e == syscall.ENOSPC || n < 1<<20 {
			break
		}
	}
	if !bytes.Equal(bytes.Join(r.Slices(), nil), want) {
		t.Fatal("the reply's content changed")
	}
	free = v.free()
	r.Done()
	r.Free()
	if v.free() != free+256 {
		t.Fatalf("%d blocks came back, expected 256", v.free()-free)
	}
}

// TestFull: a full filesystem says ENOSPC, keeps what it has, and can delete.
func TestFull(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	var n int64
	chunk := make([]byte, 64<<10)
	for {
		for i := range chunk {
			chunk[i] = byte(n>>16) + 1
		}
		m, e := v.fs.Write(&v.ctx, ino, n, chunk)
		n += int64(m)
		if e == syscall.ENOSPC {
			break
		}
		v.ok(e)
	}
	if n < 10<<20 {
		t.Fatalf("full after %d bytes", n)
	}
	for i := 0; ; i++ {
		var a fs.Attr
		e := v.fs.Mknod(&v.ctx, 1, fmt.Sprint("file", i), syscall.S_IFREG, 0, &a)
		if e == syscall.ENOSPC {
			break
		}
		v.ok(e)
		v.fs.Forget(a.Ino, 1)
	}
	for off := int64(0); off+1 < n; off += 64 << 10 {
		if b := v.read(ino, off, 1); b[0] != byte(off>>16)+1 {
			t.Fatalf("byte %d is %d", off, b[0])
		}
	}
	v.fs.Forget(ino, 1)
	for _, name := range v.names(1) {
		if name != "." && name != ".." {
			v.ok(v.fs.Unlink(&v.ctx, 1, name))
		}
	}
	v.create(1, "again")
}

// TestSparseTail: bytes a shorter size cut off never come back.
func TestSparseTail(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.create(1, "a")
	v.write(ino, 0, bytes.Repeat([]byte{1}, 8192))
	var a fs.Attr
	for _, size := range []uint64{100, 5000} {
		v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: size}, &a))
	}
	if got := v.read(ino, 100, 4900); !bytes.Equal(got, make([]byte, 4900)) {
		t.Fatal("old bytes came back after growing")
	}
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 50}, &a))
	v.write(ino, 3000, []byte{5})
	if got := v.read(ino, 50, 2950); !bytes.Equal(got, make([]byte, 2950)) {
		t.Fatal("old bytes came back after a write beyond the end")
	}
}

// TestFragmented: a file of more extents than a transaction takes is truncated.
func TestFragmented(t *testing.T) {
	pieces := int64(1000)
	if testing.Short() { // under the race detector each write checks all extents
		pieces = 400
	}
	v := newVolume(t, fs.MinSize)
	before := v.free()
	ino := v.create(1, "a")
	for i := range pieces {
		v.write(ino, i*8192, []byte{byte(i), 1})
	}
	v.remount()
	for i := range pieces {
		if b := v.read(ino, i*8192, 2); b[0] != byte(i) || b[1] != 1 {
			t.Fatalf("block %d reads %v", 2*i, b)
		}
	}
	var a fs.Attr
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 10}, &a))
	v.remount()
	v.ok(v.fs.SetAttr(&v.ctx, ino, &fs.SetAttr{Valid: fs.SetSize, Size: 1 << 30}, &a))
	if got := v.read(ino, 8192, 2); got[0]|got[1] != 0 {
		t.Fatal("a cut block came back")
	}
	v.ok(v.fs.Unlink(&v.ctx, 1, "a"))
	if v.free() != before {
		t.Fatalf("%d blocks free before, %d after", before, v.free())
	}
}

// TestReadWriteAllocs: reading, overwriting and appending allocate nothing.
func TestReadWriteAllocs(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.create(1, "a")
	v.write(ino, 0, make([]byte, 1<<20))
	data := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		r := v.fs.NewPinnedRead()
		v.fs.Read(&v.ctx, ino, 8192, 4096, r)
		r.Done()
		r.Free()
	}); n != 0 {
		t.Errorf("read: %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() { v.fs.Write(&v.ctx, ino, 4096, data) }); n != 0 {
		t.Errorf("overwrite: %v allocations", n)
	}
	off := int64(1 << 20)
	if n := testing.AllocsPerRun(1000, func() { v.fs.Write(&v.ctx, ino, off, data); off += 4096 }); n != 0 {
		t.Errorf("append: %v allocations", n)
	}
}

// A whiteout is a character device 0:0 in place of what moved away; it is an inode like
// any other.
func TestRenameWhiteout(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.free()
	d := v.mkdir(1, "d")
	f := v.create(1, "f")
	v.write(f, 0, []byte("content"))
	v.create(1, "g")
	for _, flags := range []uint32{fs.RenameWhiteout | fs.RenameExchange, 8} {
		v.expect(v.fs.Rename(&v.ctx, 1, "f", d, "f", flags), true, syscall.EINVAL)
	}
	v.expect(v.fs.Rename(&v.ctx, 1, "f", 1, "g", fs.RenameWhiteout|fs.RenameNoReplace), true, syscall.EEXIST)
	v.ctx.UID, v.ctx.GID = 5, 6
	v.ok(v.fs.Rename(&v.ctx, 1, "f", d, "f", fs.RenameWhiteout))
	v.ok(v.fs.Rename(&v.ctx, d, "f", 1, "g", fs.RenameWhiteout))
	v.ctx.UID, v.ctx.GID = 0, 0
	var a fs.Attr
	for range 2 {
		for dir, name := range map[uint64]string{1: "f", d: "f"} {
			v.ok(v.fs.Lookup(&v.ctx, dir, name, &a))
			if a.Mode != syscall.S_IFCHR || a.Rdev != 0 || a.UID != 5 || a.GID != 6 || a.Nlink != 1 {
				t.Errorf("whiteout in %d: %+v", dir, a)
			}
			v.fs.Forget(a.Ino, 1)
		}
		v.ok(v.fs.Lookup(&v.ctx, 1, "g", &a))
		if a.Ino != f {
			t.Errorf("what moved is inode %d, expected %d", a.Ino, f)
		}
		v.remount()
	}
	v.ok(v.fs.Unlink(&v.ctx, 1, "f"))
	v.ok(v.fs.Unlink(&v.ctx, d, "f"))
	v.ok(v.fs.Unlink(&v.ctx, 1, "g"))
	v.ok(v.fs.Rmdir(&v.ctx, 1, "d"))
	if got := v.free(); got != free {
		t.Errorf("%d blocks are free with everything deleted, before: %d", got, free)
	}
}
