package e2e

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestCopyFileRange checks that a copy takes no space, and that each side keeps its own content,
// before and after a remount.
func TestCopyFileRange(t *testing.T) {
	mount := harness.New(t, 128<<20, 2*time.Minute)
	const size = 16<<20 + 1234
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	if err := os.WriteFile(mount.Path("a"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	before := mount.Stats()
	src, err := os.Open(mount.Path("a"))
	if err != nil {
		t.Fatal(err)
	}
	dst, err := os.Create(mount.Path("b"))
	if err != nil {
		t.Fatal(err)
	}
	for left := size; left > 0; {
		n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, left, 0)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes left: %d, %v", left, n, err)
		}
		left -= n
	}
	stats := mount.Stats()
	if used := before.AvailableBlocks - stats.AvailableBlocks; used > 8 || stats.SharedBytes != size&^4095 {
		t.Errorf("the copy takes %d blocks and shares %d bytes", used, stats.SharedBytes)
	}
	if stats.Folios2M < 8 {
		t.Errorf("%d folios of 2 MiB", stats.Folios2M)
	}
	changed := append([]byte(nil), data...)
	copy(changed[5<<20+77:], "changed")
	if _, err := dst.WriteAt([]byte("changed"), 5<<20+77); err != nil {
		t.Fatal(err)
	}
	src.Close()
	dst.Close()
	if now := mount.Stats(); now.Folios2M != stats.Folios2M || now.SharedBytes != stats.SharedBytes-4096 {
		t.Errorf("after a write to the copy: %+v, was %+v", now, stats)
	}
	for range 2 {
		for name, want := range map[string][]byte{"a": data, "b": changed} {
			if got, err := os.ReadFile(mount.Path(name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: wrong content (%v)", name, err)
			}
		}
		mount.Again()
	}
}
