package fs_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestRegionSizes formats, fills, checks and remounts sparse regions on tmpfs, from 16 MiB to
// 16 TiB, with the real orders.
func TestRegionSizes(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-sizes-")
	if err != nil {
		dir = t.TempDir()
	}
	defer os.RemoveAll(dir)
	for _, size := range []int64{16 << 20, 17<<20 + 4096, 64 << 20, 1<<30 + 4096, 3 << 30, 64 << 30, 1 << 40, 16 << 40} {
		t.Run(fmt.Sprintf("%dMiB", size>>20), func(t *testing.T) {
			if testing.Short() && size > 1<<30 {
				t.Skip("short: under the race detector the folio table is Go's memory, which is not sparse")
			}
			regionOf(t, filepath.Join(dir, fmt.Sprint(size)), size)
		})
	}
}

// regionOf fills a filesystem of size bytes completely: a large file, one of the rest, and their
// first and last bytes written. Then it runs fsck, remounts and removes them.
func regionOf(t *testing.T, path string, size int64) {
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	v := fstest.Format(t, r, fs.MkfsOptions{Now: 1, UUID: [16]byte{1}}, fs.Options{})
	small := v.Create("/small")
	v.Write(small, 0, bytes.Repeat([]byte("s"), 5000))
	free := v.Free()
	big := v.Create("/big")
	half := int64(free/2) << layout.BlockShift
	v.Fallocate(big, 0, 0, half)
	rest := v.Create("/rest")
	for n := int64(v.Free()) << layout.BlockShift; n > 0; { // a large extent list takes some of the free space
		if e := v.FS.Fallocate(&v.Ctx, rest, 0, 0, n); e == 0 {
			break
		} else if e != syscall.ENOSPC {
			t.Fatal(e)
		}
		n -= n/64 + layout.BlockSize
	}
	a := v.Stat(rest)
	ends := []struct {
		ino uint64
		off int64
	}{{big, 0}, {big, half - 3}, {rest, 0}, {rest, int64(a.Size) - 3}}
	// Two chunks are kept for metadata, and the loop's steps leave some blocks.
	if a.Size < 4096 || v.Free() > free/32+2*512+64 {
		t.Errorf("only %d of %d blocks could be filled", free-v.Free(), free)
	}
	for i, e := range ends {
		v.Write(e.ino, e.off, []byte{byte(i), 0xda, 0xf5})
	}
	st := v.FS.Stats()
	// 16 bytes for each 2 MiB, in whole pages, and a word for each GiB.
	if limit := uint64(size)>>17 + uint64(size)>>24 + 16384; st.FolioTableBytes > limit {
		t.Errorf("the folio table takes %d bytes, more than 8 MiB per TiB", st.FolioTableBytes)
	}
	o := uint64(half) >> 21
	if whole := st.Folios2M + st.Folios1G<<9; size >= 64<<20 && whole < o*9/10 {
		t.Errorf("%d 2 MiB folios and %d of 1 GiB in a file of %d MiB", st.Folios2M, st.Folios1G, half>>20)
	}
	if puds := uint64(half) >> 30; size >= 64<<30 && st.Folios1G < puds-1 {
		t.Errorf("%d folios of 1 GiB in a file of %d GiB", st.Folios1G, puds)
	}
	v.Unmount()
	v.Check()
	v.Mount()
	if got := v.FS.Stats(); got.FreeBlocks != st.FreeBlocks || got.Folios1G != st.Folios1G || got.Folios2M != st.Folios2M {
		t.Errorf("after a remount %d blocks are free, %d and %d folios are large; before %d, %d, %d",
			got.FreeBlocks, got.Folios2M, got.Folios1G, st.FreeBlocks, st.Folios2M, st.Folios1G)
	}
	for i, e := range ends {
		e.ino = v.Ino([]string{"/big", "/big", "/rest", "/rest"}[i])
		if got := v.Read(e.ino, e.off, 3); !bytes.Equal(got, []byte{byte(i), 0xda, 0xf5}) {
			t.Errorf("file %d at %d: read %x", i/2, e.off, got)
		}
		if e.off > 8192 {
			if got := v.Read(e.ino, e.off-4096, 8); !bytes.Equal(got, make([]byte, 8)) {
				t.Errorf("file %d at %d: read %x, not zeros", i/2, e.off-4096, got)
			}
		}
	}
	for _, n := range []string{"big", "rest"} {
		v.Unlink("/" + n)
	}
	v.Remount()
	if got := v.Free(); got != free {
		t.Errorf("%d blocks are free when all is deleted, %d were", got, free)
	}
	v.Unmount()
	v.Check()
	runtime.GC()
}

// TestRootReserve checks that root's reserve is refused to other users for all kinds of data, and
// that statfs reports that.
func TestRootReserve(t *testing.T) {
	r := fstest.Memory(t, 64<<20)
	if _, err := fs.Mkfs(r, fs.MkfsOptions{Reserve: 51}); err == nil {
		t.Error("a reserve of 51 % was accepted")
	}
	v := &volume{fstest.Format(t, r, fs.MkfsOptions{Reserve: 10}, fs.Options{})}
	defer v.Unmount()
	sb := v.Super()
	if want := uint64(64<<20>>12) / 10; sb.RootBlocks != want {
		t.Errorf("%d blocks are for root, expected %d", sb.RootBlocks, want)
	}
	var st fs.StatFS
	v.FS.StatFS(&st)
	user := fs.Caller{UID: 5}
	var a fs.Attr
	v.OK(v.FS.Mknod(&user, 1, "f", 0o600, 0, &a))
	f := a.Ino
	size := int64(0)
	for {
		n, e := v.FS.Write(&user, f, size, make([]byte, 1<<20))
		size += int64(n)
		if e == syscall.ENOSPC {
			break
		}
		v.OK(e)
	}
	if got := uint64(size) >> 12; got > st.Bavail || got+16 < st.Bavail {
		t.Errorf("a user could write %d blocks, statfs said %d", got, st.Bavail)
	}
	v.FS.StatFS(&st)
	if st.Bavail != 0 || st.Bfree < sb.RootBlocks {
		t.Errorf("statfs says %d blocks for users, %d free; %d are for root", st.Bavail, st.Bfree, sb.RootBlocks)
	}
	long := strings.Repeat("x", 3000)
	v.expect(v.FS.Fallocate(&user, f, 0, size, 4096), true, syscall.ENOSPC)
	// A page that the kernel writes back is charged to the file's owner, not to the kernel.
	_, e := v.FS.Write(&fs.Caller{Writeback: true}, f, size, make([]byte, 4096))
	v.expect(e, true, syscall.ENOSPC)
	v.expect(v.FS.Symlink(&user, 1, "l", long, &a), true, syscall.ENOSPC)
	v.expect(v.FS.SetXattr(&user, f, "user.x", []byte(long), 0), true, syscall.ENOSPC)
	n, e := v.FS.Write(&user, f, 4096, []byte("in place"))
	if v.OK(e); n != 8 {
		t.Errorf("wrote %d bytes in place", n)
	}
	v.OK(v.FS.Symlink(&v.Ctx, 1, "l", long, &a))
	v.SetXattr(f, "user.x", []byte(long))
	v.Fallocate(f, 0, size, int64(sb.RootBlocks/2)<<12)
	v.OK(v.FS.SetAttr(&user, f, &fs.SetAttr{Valid: fs.SetSize}, &a))
	n, e = v.FS.Write(&user, f, 0, make([]byte, 1<<20))
	if v.OK(e); n != 1<<20 {
		t.Errorf("wrote %d bytes where a file was deleted", n)
	}
}

// TestOpenOrphanIsWaitedForOnce checks that a deleted file that stays open does not delay callers
// that wait for later deletions.
func TestOpenOrphanIsWaitedForOnce(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	held := v.Create("/held")
	v.Unlink("/held")
	start := time.Now()
	for range 10 {
		v.FS.Forget(v.Create("/f"), 1)
		var a fs.Attr
		v.OK(v.FS.Lookup(&v.Ctx, 1, "f", &a))
		v.Unlink("/f")
		time.AfterFunc(time.Millisecond, func() { v.FS.Forget(a.Ino, 1) })
		v.FS.AwaitDeleted(&v.Ctx)
		if _, e := v.Take(a.Ino, 0, 1); e != syscall.ESTALE {
			t.Errorf("what was deleted last was not waited for: %v", e)
		}
	}
	if d := time.Since(start); d > time.Second { // 10 times 200 ms, if the open file counted each time
		t.Errorf("waiting took %v", d)
	}
	v.FS.Forget(held, 1)
}

// TestDeletedIsFree checks that a caller that finds no space just after a deletion waits for the
// kernel's FORGET, and that a caller does not wait for a file that stays open.
func TestDeletedIsFree(t *testing.T) {
	v := newVolume(t, fs.MinSize)
	write := func(name string) (n int, e syscall.Errno) {
		ino := v.Create("/" + name)
		defer v.FS.Forget(ino, 1)
		for {
			m, e := v.FS.Write(&v.Ctx, ino, int64(n), make([]byte, 1<<20))
			if n += m; e != 0 || m == 0 {
				return n, e
			}
		}
	}
	for range 3 { // files that never had a name do not count
		var a fs.Attr
		v.OK(v.FS.Tmpfile(&v.Ctx, 1, 0o600, &a))
		v.FS.Forget(a.Ino, 1)
	}
	all, e := write("a")
	if e != syscall.ENOSPC {
		t.Fatal(e)
	}
	var a fs.Attr
	v.OK(v.FS.Lookup(&v.Ctx, 1, "a", &a))
	v.Unlink("/a")
	go func() {
		time.Sleep(20 * time.Millisecond)
		v.FS.Forget(a.Ino, 1)
	}()
	if n, e := write("b"); n != all || e != syscall.ENOSPC {
		t.Errorf("after the deletion of %d bytes %d could be written: %v", all, n, e)
	}
	v.OK(v.FS.Lookup(&v.Ctx, 1, "b", &a))
	v.Unlink("/b")
	for begin := time.Now(); ; {
		n, e := v.FS.Write(&v.Ctx, a.Ino, int64(all), make([]byte, 1<<20))
		if n != 0 || e != syscall.ENOSPC {
			t.Fatalf("%d bytes written to a full filesystem: %v", n, e)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Fatalf("no space, said after %v", d)
		} else if d > 300*time.Millisecond {
			break
		}
	}
	v.FS.Forget(a.Ino, 1)
}
