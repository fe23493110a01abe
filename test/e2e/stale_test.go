package e2e

import (
	"bytes"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestStale mounts again on the mount point that a killed daemon left.
func TestStale(t *testing.T) {
	m := harness.New(t, 64<<20, 2*time.Minute)
	content := bytes.Repeat([]byte("still there\n"), 10000)
	if err := os.WriteFile(m.Path("f"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	open, err := os.Create(m.Path("open"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := os.Remove(m.Path("open")); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		m.Kill9()
		if _, err := os.ReadFile(m.Path("f")); !errors.Is(err, syscall.ENOTCONN) {
			t.Fatalf("round %d: reading below a dead mount point: %v, want ENOTCONN", round, err)
		}
		m.Up()
		if b, err := os.ReadFile(m.Path("f")); err != nil || !bytes.Equal(b, content) {
			t.Fatalf("round %d: after mounting again the file has %d bytes of %d (%v)", round, len(b), len(content), err)
		}
		if _, err := os.Stat(m.Path("open")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("round %d: the deleted file: %v", round, err)
		}
		if err := os.WriteFile(m.Path("g"), content, 0o644); err != nil {
			t.Errorf("round %d: writing: %v", round, err)
		}
	}
	if _, err := open.Write([]byte("x")); !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("a file opened before the kill: %v, want ENOTCONN", err)
	}
	open.Close()
	m.Down()
}
