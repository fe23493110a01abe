package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
			if !takeHugepages(t, row.page, row.pages) {
				fmt.Fprintf(os.Stderr, "%s: NOT RUN: this machine has no %d free pages of %d MiB in one piece\n", t.Name(), row.pages, row.page>>20)
				t.SkipNow()
			}
			dir, err := os.MkdirTemp("", "daxfsd-hugetlb-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // runs after the unmount below
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
			if err := unix.Mount("none", dir, "hugetlbfs", 0, fmt.Sprintf("pagesize=%d", row.page)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Errorf("umount of hugetlbfs: %v", err)
				}
			})
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

// takeHugepages enlarges the kernel's pool of pages of page bytes by n pages until the test ends.
// It returns false if the kernel could not.
func takeHugepages(t *testing.T, page, n int64) bool {
	t.Helper()
	path := fmt.Sprintf("/sys/kernel/mm/hugepages/hugepages-%dkB/nr_hugepages", page>>10)
	pool := func() int64 {
		b, err := os.ReadFile(path)
		if err != nil {
			return -1
		}
		v, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		return v
	}
	old := pool()
	if old < 0 {
		return false
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, []byte(strconv.FormatInt(old, 10)), 0o644); err != nil || pool() != old {
			t.Errorf("the pool of huge pages is %d, was %d (%v)", pool(), old, err)
		}
	})
	if err := os.WriteFile(path, []byte(strconv.FormatInt(old+n, 10)), 0o644); err != nil {
		return false
	}
	return pool() >= old+n
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
