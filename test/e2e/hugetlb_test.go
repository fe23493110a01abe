package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestHugetlb checks that on a region in hugetlbfs the daemon's mapping has pages of the hugetlbfs
// size, and that a file of 1 GiB is one folio at a multiple of 1 GiB.
func TestHugetlb(t *testing.T) {
	for _, row := range []struct {
		page, pages int64
		file        int64
	}{
		{2 << 20, 64, 32 << 20},
		{1 << 30, 3, 1 << 30},
		{1 << 30, 2, 512 << 20}, // for a machine without three free pages: both ends of the region hold metadata
	} {
		t.Run(fmt.Sprintf("%d of %dM", row.pages, row.page>>20), func(t *testing.T) {
			dir := harness.Hugetlbfs(t, row.page, row.pages)
			t.Run("mounted", func(t *testing.T) { // a subtest, so that its cleanup runs first
				mount := harness.NewOn(t, filepath.Join(dir, "region"), row.page*row.pages, 2*time.Minute)
				if got := kernelPageSize(t, mount.PID(), mount.Region); got != row.page {
					t.Errorf("the daemon's mapping has pages of %d bytes, expected %d", got, row.page)
				}
				if now := mount.Stats(); now.PageSize != row.page {
					t.Errorf("the daemon says %d", now.PageSize)
				}
				file, err := os.Create(mount.Path("f"))
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				if err := fallocate(file, row.file); err != nil {
					t.Fatal(err)
				}
				data := bytes.Repeat([]byte("hugetlb!"), 1<<16)
				if _, err := file.WriteAt(data, row.file-int64(len(data))); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(data))
				if _, err := file.ReadAt(got, row.file-int64(len(data))); err != nil || !bytes.Equal(got, data) {
					t.Errorf("wrong content (%v)", err)
				}
				stats := mount.Stats()
				if stats.Folios2M+stats.Folios1G<<9 < uint64(row.file>>21) || stats.Folios1G != uint64(row.file>>30) {
					t.Errorf("%d folios of 2 MiB and %d of 1 GiB: %+v", stats.Folios2M, stats.Folios1G, stats)
				}
			})
		})
	}
}

// kernelPageSize returns the page size in bytes of a process's first mapping of a file, from smaps.
func kernelPageSize(t *testing.T, pid int, file string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, "-") && strings.Contains(l, " r") {
			found = strings.HasSuffix(l, file)
		}
		if found && strings.HasPrefix(l, "KernelPageSize:") {
			var kib int64
			fmt.Sscanf(strings.TrimPrefix(l, "KernelPageSize:"), "%d", &kib)
			return kib << 10
		}
	}
	t.Fatalf("process %d has no mapping of %s", pid, file)
	return 0
}
