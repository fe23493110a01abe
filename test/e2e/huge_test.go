package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestTebibyte checks that a sparse region of 1 TiB mounts, and that the daemon's memory for its
// folios is what the design allows: 8 MiB, and 8 bytes for each 4 KiB that is split.
func TestTebibyte(t *testing.T) {
	m := harness.New(t, 1<<40, 3*time.Minute)
	s := m.Stats()
	if s.FolioTableBytes > 8<<20 {
		t.Errorf("the folio table takes %d bytes, more than 8 MiB per TiB", s.FolioTableBytes)
	}
	if err := os.WriteFile(m.Path("f"), make([]byte, 10<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(m.Path("big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fallocate(f, 300<<30); err != nil {
		t.Fatal(err)
	}
	s = m.Stats()
	if s.Folios1G < 298 || s.SplitTableBytes > 64<<10 {
		t.Errorf("%d folios of 1 GiB in 300 GiB, %d bytes of split table", s.Folios1G, s.SplitTableBytes)
	}
	// Count only the anonymous pages, not those of the region.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	anon := int64(0)
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "RssAnon:") {
			fmt.Sscanf(strings.TrimPrefix(l, "RssAnon:"), "%d", &anon)
		}
	}
	t.Logf("folio table %d KiB, anonymous memory of the daemon %d KiB", s.FolioTableBytes>>10, anon)
	if anon == 0 || anon > 96<<10 {
		t.Errorf("the daemon has %d KiB of anonymous memory", anon)
	}
}

func fallocate(f *os.File, n int64) error { return unix.Fallocate(int(f.Fd()), 0, 0, n) }
