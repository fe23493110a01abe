package fs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/pmem"
)

// TestReplyLocks: the bytes of a reply stay as they are until it is done, and others do not.
func TestReplyLocks(t *testing.T) {
	v := newVolume(t, 16<<20)
	ino := v.create(1, "f")
	want := bytes.Repeat([]byte("abc"), 4<<10)
	v.write(ino, 0, want)
	r, got := v.fs.NewReply(), make([]byte, len(want))
	v.ok(v.fs.Read(&v.ctx, ino, 0, 8192, r))
	v.write(ino, 8192, []byte("xyz"))
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		v.write(ino, 4096, make([]byte, 4096))
	}()
	select {
	case <-wrote:
		t.Error("a write went through while a reply held its range")
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

// TestTruncatedUnderReply: a region file that is truncated while a reply is on its way is EIO, and what
// the reply held is given back.
func TestTruncatedUnderReply(t *testing.T) {
	const size = 32 << 20
	path := filepath.Join(t.TempDir(), "region")
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := fs.Mkfs(r, fs.MkfsOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Mount(r, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, a := &fs.Context{}, &fs.Attr{}
	if e := f.Mknod(ctx, 1, "file", syscall.S_IFREG|0o600, 0, a); e != 0 {
		t.Fatal(e)
	}
	if _, e := f.Write(ctx, a.Ino, 0, make([]byte, 64<<10)); e != 0 {
		t.Fatal(e)
	}
	reply, b := f.NewReply(), make([]byte, 64<<10)
	if e := f.Read(ctx, a.Ino, 0, len(b), reply); e != 0 {
		t.Fatal(e)
	}
	if err := os.Truncate(path, 64<<10); err != nil {
		t.Fatal(err)
	}
	if n, e := reply.Take(b); n != 0 || e != syscall.EIO {
		t.Errorf("%d bytes, %v; want EIO", n, e)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	// The bytes are out of use, as those of poisoned media are; a write would hang if they were locked.
	if _, e := f.Write(ctx, a.Ino, 0, b); e != syscall.EIO {
		t.Errorf("a write: %v", e)
	}
	if err := f.Unmount(); err != nil {
		t.Error(err)
	}
}
