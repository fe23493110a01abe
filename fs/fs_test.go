package fs_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
)

// volume is a filesystem in memory with the checks that only the core's own tests make.
type volume struct{ *fstest.Volume }

func newVolume(t testing.TB, size int64) *volume {
	t.Helper()
	return &volume{fstest.New(t, size)}
}

func TestWriteReadRemount(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	data := make([]byte, 300_000)
	rand.New(rand.NewSource(1)).Read(data)
	v.Write(ino, 5, data)
	if got := v.Read(ino, 0, 400_000); !bytes.Equal(got, append(make([]byte, 5), data...)) {
		t.Fatal("content differs")
	}
	v.Remount()
	var a fs.Attr
	v.OK(v.FS.Lookup(&v.Ctx, 1, "a", &a))
	if a.Ino != ino || a.Size != uint64(len(data)+5) {
		t.Fatalf("after remount: %+v", a)
	}
	if got := v.Read(ino, 5, len(data)); !bytes.Equal(got, data) {
		t.Fatal("content differs after remount")
	}
}

// TestDeleteReturnsSpace checks that removing all files and directories returns all blocks.
func TestDeleteReturnsSpace(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	before := v.Free()
	d := v.Mkdir("/d")
	for i := 0; i < 300; i++ {
		ino := v.Create(fmt.Sprintf("/d/f%03d%s", i, strings.Repeat("x", i%200)))
		v.Write(ino, int64(i)*4096*3, []byte("hello"))
		v.FS.Forget(ino, 1)
	}
	v.FS.Forget(v.Symlink("/d/long", strings.Repeat("y", 3000)), 1)
	if e := v.FS.Rmdir(&v.Ctx, 1, "d"); e != syscall.ENOTEMPTY {
		t.Fatalf("rmdir of a full directory: %v", e)
	}
	for _, n := range v.Names(d) {
		if n != "." && n != ".." {
			v.Unlink("/d/" + n)
		}
	}
	v.Rmdir("/d")
	v.FS.Forget(d, 1)
	if after := v.Free(); after != before {
		t.Fatalf("%d blocks free before, %d after", before, after)
	}
	v.Remount()
	if after := v.Free(); after != before {
		t.Fatalf("%d blocks free before, %d after remount", before, after)
	}
}

// TestUnlinkedOpen checks that an unlinked file lives until it is forgotten.
func TestUnlinkedOpen(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	before := v.Free()
	ino := v.Create("/a")
	v.Write(ino, 0, make([]byte, 100_000))
	v.Unlink("/a")
	v.Write(ino, 3, []byte("still here"))
	if string(v.Read(ino, 3, 10)) != "still here" {
		t.Fatal("lost the content")
	}
	v.FS.Forget(ino, 1)
	if v.Free() != before {
		t.Fatal("space is not back")
	}
	var a fs.Attr
	if e := v.FS.GetAttr(&v.Ctx, ino, &a); e != syscall.ESTALE {
		t.Fatalf("stat of a forgotten orphan: %v", e)
	}
}

// TestPinnedReadHoldsBlocks checks that the blocks of a pinned read are not reused before Done.
func TestPinnedReadHoldsBlocks(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	want := bytes.Repeat([]byte{7}, 1<<20)
	v.Write(ino, 0, want)
	r := v.FS.NewPinnedRead()
	v.OK(v.FS.Read(&v.Ctx, ino, 0, 1<<20, r))
	free := v.Free()
	v.Truncate(ino, 0)
	if v.Free() != free {
		t.Fatal("blocks of a pinned read were freed")
	}
	fill := v.Create("/b")
	for off := int64(0); ; off += 1 << 20 {
		if n, e := v.FS.Write(&v.Ctx, fill, off, bytes.Repeat([]byte{9}, 1<<20)); e == syscall.ENOSPC || n < 1<<20 {
			break
		}
	}
	if !bytes.Equal(bytes.Join(r.Slices(), nil), want) {
		t.Fatal("the pinned read's content changed")
	}
	free = v.Free()
	r.Done()
	r.Free()
	if v.Free() != free+256 {
		t.Fatalf("%d blocks came back, expected 256", v.Free()-free)
	}
}

// TestFull checks that a full filesystem returns ENOSPC, keeps its files, and can delete them.
func TestFull(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	var n int64
	chunk := make([]byte, 64<<10)
	for {
		for i := range chunk {
			chunk[i] = byte(n>>16) + 1
		}
		m, e := v.FS.Write(&v.Ctx, ino, n, chunk)
		n += int64(m)
		if e == syscall.ENOSPC {
			break
		}
		v.OK(e)
	}
	if n < 10<<20 {
		t.Fatalf("full after %d bytes", n)
	}
	for i := 0; ; i++ {
		var a fs.Attr
		e := v.FS.Mknod(&v.Ctx, 1, fmt.Sprint("file", i), syscall.S_IFREG, 0, &a)
		if e == syscall.ENOSPC {
			break
		}
		v.OK(e)
		v.FS.Forget(a.Ino, 1)
	}
	for off := int64(0); off+1 < n; off += 64 << 10 {
		if b := v.Read(ino, off, 1); b[0] != byte(off>>16)+1 {
			t.Fatalf("byte %d is %d", off, b[0])
		}
	}
	v.FS.Forget(ino, 1)
	for _, name := range v.Names(1) {
		if name != "." && name != ".." {
			v.Unlink("/" + name)
		}
	}
	v.Create("/again")
}

// TestSparseTail checks that bytes which a truncation cut off read as zeros after the file grows.
func TestSparseTail(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	ino := v.Create("/a")
	v.Write(ino, 0, bytes.Repeat([]byte{1}, 8192))
	for _, size := range []uint64{100, 5000} {
		v.Truncate(ino, size)
	}
	if got := v.Read(ino, 100, 4900); !bytes.Equal(got, make([]byte, 4900)) {
		t.Fatal("old bytes came back after growing")
	}
	v.Truncate(ino, 50)
	v.Write(ino, 3000, []byte{5})
	if got := v.Read(ino, 50, 2950); !bytes.Equal(got, make([]byte, 2950)) {
		t.Fatal("old bytes came back after a write beyond the end")
	}
}

// TestFragmented truncates a file with more extents than one transaction can change.
func TestFragmented(t *testing.T) {
	pieces := int64(1000)
	if testing.Short() { // under the race detector each write checks all extents
		pieces = 400
	}
	v := newVolume(t, fs.MinSize)
	before := v.Free()
	ino := v.Create("/a")
	for i := range pieces {
		v.Write(ino, i*8192, []byte{byte(i), 1})
	}
	v.Remount()
	for i := range pieces {
		if b := v.Read(ino, i*8192, 2); b[0] != byte(i) || b[1] != 1 {
			t.Fatalf("block %d reads %v", 2*i, b)
		}
	}
	v.Truncate(ino, 10)
	v.Remount()
	v.Truncate(ino, 1<<30)
	if got := v.Read(ino, 8192, 2); got[0]|got[1] != 0 {
		t.Fatal("a cut block came back")
	}
	v.Unlink("/a")
	if v.Free() != before {
		t.Fatalf("%d blocks free before, %d after", before, v.Free())
	}
}

// TestReadWriteAllocs checks that reading, overwriting and appending allocate nothing.
func TestReadWriteAllocs(t *testing.T) {
	v := newVolume(t, 64<<20)
	ino := v.Create("/a")
	v.Write(ino, 0, make([]byte, 1<<20))
	data := make([]byte, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		r := v.FS.NewPinnedRead()
		v.FS.Read(&v.Ctx, ino, 8192, 4096, r)
		r.Done()
		r.Free()
	}); n != 0 {
		t.Errorf("read: %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() { v.FS.Write(&v.Ctx, ino, 4096, data) }); n != 0 {
		t.Errorf("overwrite: %v allocations", n)
	}
	off := int64(1 << 20)
	if n := testing.AllocsPerRun(1000, func() { v.FS.Write(&v.Ctx, ino, off, data); off += 4096 }); n != 0 {
		t.Errorf("append: %v allocations", n)
	}
}

// TestRenameWhiteout checks that a rename leaves a whiteout: an ordinary inode, a character device
// 0:0.
func TestRenameWhiteout(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	free := v.Free()
	d := v.Mkdir("/d")
	f := v.Create("/f")
	v.Write(f, 0, []byte("content"))
	v.Create("/g")
	for _, flags := range []uint32{fs.RenameWhiteout | fs.RenameExchange, 8} {
		v.expect(v.FS.Rename(&v.Ctx, 1, "f", d, "f", flags), true, syscall.EINVAL)
	}
	v.expect(v.FS.Rename(&v.Ctx, 1, "f", 1, "g", fs.RenameWhiteout|fs.RenameNoReplace), true, syscall.EEXIST)
	v.Ctx.UID, v.Ctx.GID = 5, 6
	v.OK(v.FS.Rename(&v.Ctx, 1, "f", d, "f", fs.RenameWhiteout))
	v.OK(v.FS.Rename(&v.Ctx, d, "f", 1, "g", fs.RenameWhiteout))
	v.Ctx.UID, v.Ctx.GID = 0, 0
	var a fs.Attr
	for range 2 {
		for dir, name := range map[uint64]string{1: "f", d: "f"} {
			v.OK(v.FS.Lookup(&v.Ctx, dir, name, &a))
			if a.Mode != syscall.S_IFCHR || a.Rdev != 0 || a.UID != 5 || a.GID != 6 || a.Nlink != 1 {
				t.Errorf("whiteout in %d: %+v", dir, a)
			}
			v.FS.Forget(a.Ino, 1)
		}
		v.OK(v.FS.Lookup(&v.Ctx, 1, "g", &a))
		if a.Ino != f {
			t.Errorf("what moved is inode %d, expected %d", a.Ino, f)
		}
		v.Remount()
	}
	v.Unlink("/f")
	v.Unlink("/d/f")
	v.Unlink("/g")
	v.Rmdir("/d")
	if got := v.Free(); got != free {
		t.Errorf("%d blocks are free with everything deleted, before: %d", got, free)
	}
}
