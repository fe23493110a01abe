package fusefs

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// truncating truncates the region's file when a READ arrives.
type truncating struct {
	transport.Filesystem
	cut func()
}

type truncatingQueue struct {
	transport.Queue
	t *truncating
}

func (f *truncating) Queue(n int) transport.Queue { return &truncatingQueue{f.Filesystem.Queue(n), f} }

func (q *truncatingQueue) Read(h *transport.InHeader, in *transport.ReadIn, out []byte) (int, syscall.Errno) {
	q.t.cut()
	return q.Queue.Read(h, in, out)
}

// TestTruncated checks that a read gets EIO at once if the region's file has been truncated.
func TestTruncated(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	path, mp := filepath.Join(dir, "region"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	const size = 32 << 20
	if err := pmem.Create(path, size, true); err != nil {
		t.Fatal(err)
	}
	r, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	v := fstest.Format(t, r, fs.MkfsOptions{}, fs.Options{})
	v.Write(v.Create("/f"), 0, make([]byte, 64<<10))

	conn, err := Attach(Options{Mountpoint: mp, Source: path, Kernel: []string{"default_permissions"}})
	if err != nil {
		t.Fatal(err)
	}
	server, err := conn.Start(v.FS)
	if err != nil {
		t.Fatal(err)
	}
	server.serves = &truncating{server.serves, func() { os.Truncate(path, 64<<10) }}
	served := make(chan struct{})
	go func() { server.Serve(); close(served) }()
	defer func() {
		os.Truncate(path, size)
		Unmount(mp, Lazy)
		select {
		case <-served:
			v.FS.Unmount()
			v.FS = nil
		case <-time.After(20 * time.Second):
			t.Error("still serving 20 s after unmounting")
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "dd", "if="+mp+"/f", "of=/dev/null", "bs=64k", "count=1").CombinedOutput()
	if ctx.Err() != nil {
		t.Fatal("the reader hangs")
	}
	if err == nil || !strings.Contains(string(out), "Input/output error") {
		t.Errorf("%v: %s; want an I/O error", err, out)
	}
}

func TestEscape(t *testing.T) {
	if got := escape(`/a,b\c`); got != `/a\,b\\c` {
		t.Errorf("got %s", got)
	}
}

func TestHelperError(t *testing.T) {
	for text, want := range map[string]string{
		"fusermount3: user has no write access to mountpoint /x\n":   "mounting: fusermount3: user has no write access to mountpoint /x",
		"fusermount3: failed to unmount /x: Device or resource busy": "mounting: the mount is in use",
		"": "mounting: fusermount3: invalid argument",
	} {
		if got := helperError("mounting", text, os.ErrInvalid); got.Error() != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
