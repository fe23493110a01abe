package direct

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Children{
		"hold-and-fork": holdAndFork,
		"as-nobody":     asNobody,
	})
}

const limit = 2 * time.Minute

// open opens a file of a mount directly.
func open(t *testing.T, path string, flags int) *direct.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// create makes a file with n bytes b.
func create(t *testing.T, path string, b byte, n int) {
	t.Helper()
	if err := os.WriteFile(path, bytes.Repeat([]byte{b}, n), 0o600); err != nil {
		t.Fatal(err)
	}
}
