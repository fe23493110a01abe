package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Hugetlbfs mounts a hugetlbfs of n pages of page bytes for regions, until the test ends, and
// returns its directory. Mounts of regions in it must end before, so they are made in a subtest. If
// the kernel has not so many pages in one piece, it reports that the test was not run, and skips
// it.
func Hugetlbfs(t *testing.T, page, n int64) (dir string) {
	t.Helper()
	if !takeHugepages(t, page, n) {
		fmt.Fprintf(os.Stderr, "%s: NOT RUN: this machine has no %d free pages of %d MiB in one piece\n", t.Name(), n, page>>20)
		t.SkipNow()
	}
	return MemoryFS(t, "hugetlbfs", fmt.Sprintf("pagesize=%d", page))
}

// MemoryFS mounts a filesystem that needs no device for regions, until the test ends, and returns
// its directory.
func MemoryFS(t *testing.T, fstype, options string) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "daxfsd-"+fstype+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs after the unmount below
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("none", dir, fstype, 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("umount of %s: %v", fstype, err)
		}
	})
	return dir
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
