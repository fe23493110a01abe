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
	m := harness.New(t, 128<<20, 2*time.Minute)
	const size = 16<<20 + 1234
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	if err := os.WriteFile(m.Path("a"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	before := m.Stats()
	a, err := os.Open(m.Path("a"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Create(m.Path("b"))
	if err != nil {
		t.Fatal(err)
	}
	for left := size; left > 0; {
		n, err := unix.CopyFileRange(int(a.Fd()), nil, int(b.Fd()), nil, left, 0)
		if err != nil || n == 0 {
			t.Fatalf("%d bytes left: %d, %v", left, n, err)
		}
		left -= n
	}
	s := m.Stats()
	if used := before.AvailableBlocks - s.AvailableBlocks; used > 8 || s.SharedBytes != size&^4095 {
		t.Errorf("the copy takes %d blocks and shares %d bytes", used, s.SharedBytes)
	}
	if s.Folios2M < 8 {
		t.Errorf("%d folios of 2 MiB", s.Folios2M)
	}
	changed := append([]byte(nil), data...)
	copy(changed[5<<20+77:], "changed")
	if _, err := b.WriteAt([]byte("changed"), 5<<20+77); err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	if now := m.Stats(); now.Folios2M != s.Folios2M || now.SharedBytes != s.SharedBytes-4096 {
		t.Errorf("after a write to the copy: %+v, was %+v", now, s)
	}
	for range 2 {
		for name, want := range map[string][]byte{"a": data, "b": changed} {
			if got, err := os.ReadFile(m.Path(name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: wrong content (%v)", name, err)
			}
		}
		m.Again()
	}
}
