package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/internal/invariants"
)

// TestMaxSize checks that all commands have the same limit: they accept a region of that size, and
// refuse a larger one.
func TestMaxSize(t *testing.T) {
	needFUSE(t)
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-maxsize-") // a file on ext4 has at most 16 TiB
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	largest := filepath.Join(dir, "largest")
	must(t, "mkfs", "--sparse", "--size", "32TiB", largest)
	must(t, "fsck", "-n", largest)
	has(t, decode(t, must(t, "info", "--json", largest)), map[string]any{"size": float64(fs.MaxSize)})
	if !invariants.Enabled { // with invariants the folio table is in Go's memory, which is too small
		must(t, "mount", largest, mountPoint(t))
	}

	larger := filepath.Join(dir, "larger")
	for _, size := range []string{"33TiB", "1PiB", "7EiB", "8EiB"} {
		refused(t, daxfsd(t, "mkfs", "--sparse", "--size", size, larger), 1, "too large", "32 TiB")
		if _, err := os.Stat(larger); err == nil {
			t.Fatal("a file was left behind")
		}
	}
	if err := os.WriteFile(larger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(larger, fs.MaxSize+1<<20); err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "mkfs", larger), 1, larger, "too large", "32 TiB")
	refused(t, daxfsd(t, "fsck", "-n", larger), fsckOperational, larger, "too large", "32 TiB")
	refused(t, daxfsd(t, "info", larger), 1, larger, "too large", "32 TiB")
	refused(t, daxfsd(t, "mount", larger, t.TempDir()), 1, larger, "too large", "32 TiB")
}
