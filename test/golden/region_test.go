package golden

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/pmem"
)

// load returns the region of an image, in memory.
func load(t *testing.T, path string) *pmem.Region {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return regionOf(t, b)
}

// regionOf returns a region in memory with the given bytes.
func regionOf(t *testing.T, b []byte) *pmem.Region {
	t.Helper()
	r, err := pmem.NewMemory(int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := r.Store(0, b); err != nil {
		t.Fatal(err)
	}
	return r
}

// save compresses a region into a file.
func save(t *testing.T, path string, region []byte) {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(region); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// noSleep replaces the wait for a heartbeat: no other process uses the region of an image.
func noSleep(time.Duration) {}

// check runs fsck without repairs, and fails the test if it finds anything.
func check(t *testing.T, r *pmem.Region) *fsck.Report {
	t.Helper()
	rep, err := fsck.Check(r, fsck.Options{Sleep: noSleep})
	if err != nil {
		t.Fatalf("fsck: %v", err)
	}
	for _, p := range rep.Problems {
		t.Errorf("fsck: %v", p)
	}
	return rep
}

// mount mounts a region whose owner record names a machine that does not exist. Reads change no
// times, and all changes have the same time.
func mount(t *testing.T, r *pmem.Region, o fs.Options) *fs.FS {
	t.Helper()
	o.Takeover, o.Sleep, o.Atime, o.NoDirAtime = true, noSleep, fs.Noatime, true
	o.Clock = func() int64 { return clock }
	o.Warn = func(msg string) {
		if !strings.Contains(msg, "cannot be read: what its") {
			t.Errorf("mount warns: %s", msg)
		}
	}
	f, err := fs.Mount(r, o)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	return f
}

// unmount ends a mount.
func unmount(t *testing.T, f *fs.FS) {
	t.Helper()
	if err := f.Unmount(); err != nil {
		t.Fatalf("unmount: %v", err)
	}
}
