package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/daxfs/daxfs/pmem"
)

// fakeDevice makes a file that pmem takes for a device-dax node with the options, and the
// device's list of bad blocks.
func fakeDevice(t *testing.T, size int64) (path string, o pmem.Options, badblocks string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	o, badblocks, err := pmem.FakeDevDax(t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	return path, o, badblocks
}

// TestMustCopy: replies are copied where media can be poisoned, and nowhere else.
func TestMustCopy(t *testing.T) {
	path, o, _ := fakeDevice(t, 16<<20)
	for _, c := range []struct {
		o        pmem.Options
		zeroCopy bool
		want     bool
	}{
		{o, false, true}, {o, true, false}, {pmem.Options{}, false, false}, {pmem.Options{}, true, false},
	} {
		r, err := pmem.Open(path, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Mkfs(r, MkfsOptions{}); err != nil {
			t.Fatal(err)
		}
		f, err := Mount(r, Options{ZeroCopy: c.zeroCopy})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.MustCopy(); got != c.want {
			t.Errorf("%v, zero copy %v: must copy is %v", r.Kind(), c.zeroCopy, got)
		}
		ctx, a := &Context{}, &Attr{}
		if e := f.Mknod(ctx, 1, "file", syscall.S_IFREG|0o600, 0, a); e != 0 {
			t.Fatal(e)
		}
		want := bytes.Repeat([]byte("abc"), 5000)
		if _, e := f.Write(ctx, a.Ino, 0, want); e != 0 {
			t.Fatal(e)
		}
		reply, got := f.NewReply(), make([]byte, 20000)
		if e := f.Read(ctx, a.Ino, 0, len(got), reply); e != 0 {
			t.Fatal(e)
		}
		if n, err := reply.Copy(got); err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("%v: %d bytes, %v", r.Kind(), n, err)
		}
		reply.Done()
		if err := f.Unmount(); err != nil {
			t.Error(err)
		}
		r.Close()
	}
}
