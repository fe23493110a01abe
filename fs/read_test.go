package fs_test

import (
	"bytes"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestPinnedReadLocks checks that the bytes of a pinned read do not change until Done, and that
// other bytes of the file can.
func TestPinnedReadLocks(t *testing.T) {
	v := newVolume(t, 16<<20)
	ino := v.Create("/f")
	want := bytes.Repeat([]byte("abc"), 4<<10)
	v.Write(ino, 0, want)
	r, got := v.FS.NewPinnedRead(), make([]byte, len(want))
	v.OK(v.FS.Read(&v.Ctx, ino, 0, 8192, r))
	v.Write(ino, 8192, []byte("xyz"))
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		v.Write(ino, 4096, make([]byte, 4096))
	}()
	select {
	case <-wrote:
		t.Error("a write went through while a pinned read had its range locked")
	case <-time.After(50 * time.Millisecond):
	}
	if n, e := r.Take(got); e != 0 || !bytes.Equal(got[:n], want[:8192]) {
		t.Errorf("%d bytes, %v", n, e)
	}
	select {
	case <-wrote:
	case <-time.After(10 * time.Second):
		t.Fatal("Take did not let the writer go")
	}
}

// TestTruncatedUnderRead checks that a pinned read returns EIO if the region file is truncated
// meanwhile, and that its references are dropped.
func TestTruncatedUnderRead(t *testing.T) {
	v, path := fileVolume(t, false)
	ino, size := v.Create("/f"), v.R.Size()
	v.Write(ino, 0, make([]byte, 64<<10))
	r, b := v.FS.NewPinnedRead(), make([]byte, 64<<10)
	v.OK(v.FS.Read(&v.Ctx, ino, 0, len(b), r))
	if err := os.Truncate(path, 64<<10); err != nil {
		t.Fatal(err)
	}
	if n, e := r.Take(b); n != 0 || e != syscall.EIO {
		t.Errorf("%d bytes, %v; want EIO", n, e)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	// The blocks are offline, like poisoned memory. A write would hang if the range were still
	// locked.
	if _, e := v.FS.Write(&v.Ctx, ino, 0, b); e != syscall.EIO {
		t.Errorf("a write: %v", e)
	}
	v.Unmount()
}
