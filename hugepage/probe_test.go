package hugepage

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mapping maps a new memory file.
func mapping(t *testing.T, flags int, size int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("probe", flags)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func TestPageSize(t *testing.T) {
	b := mapping(t, unix.MFD_CLOEXEC, 8<<20)
	b[5<<20] = 7
	for _, touch := range []bool{false, true} {
		size, by, err := PageSize(b, touch)
		if err != nil || size != BlockSize && size != 2<<20 || touch && size == BlockSize && by != ByFaults {
			t.Errorf("touch %t: %d by %q, %v", touch, size, by, err)
		}
	}
	if b[5<<20] != 7 {
		t.Error("the probe lost what was stored")
	}
	for _, bad := range [][]byte{nil, {}} {
		if _, _, err := PageSize(bad, true); !errors.Is(err, ErrProbe) {
			t.Errorf("empty mapping: %v", err)
		}
	}
	// Unreadable memory is an error, and does not end the process.
	gone := mapping(t, unix.MFD_CLOEXEC, 4<<20)
	if err := unix.Mprotect(gone, unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	if _, _, err := PageSize(gone, true); !errors.Is(err, ErrProbe) {
		t.Errorf("unreadable mapping: %v", err)
	}
}

// TestPageSizeHuge checks that the page size in hugetlbfs comes from smaps.
func TestPageSizeHuge(t *testing.T) {
	const pool, pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 4
	read := func() int {
		b, err := os.ReadFile(pool)
		if err != nil {
			t.Skipf("no pool of 2 MiB pages: %v", err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return n
	}
	old := read()
	if err := os.WriteFile(pool, []byte(strconv.Itoa(old+pages)), 0o644); err != nil {
		t.Skipf("the pool of 2 MiB pages cannot be changed: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(pool, []byte(strconv.Itoa(old)), 0o644); err != nil || read() != old {
			t.Errorf("the pool has %d pages, had %d (%v)", read(), old, err)
		}
	})
	if read() < old+pages {
		t.Skipf("the machine gives %d of %d pages of 2 MiB", read()-old, pages)
	}
	b := mapping(t, unix.MFD_CLOEXEC|unix.MFD_HUGETLB, pages<<21)
	if size, by, err := PageSize(b, true); size != 2<<20 || by != BySmaps || err != nil {
		t.Errorf("%d by %q, %v", size, by, err)
	}
	// Faults are counted, as on a filesystem mounted with DAX, where smaps says 4 KiB.
	if size, err := faultPageSize(b); size != 2<<20 || err != nil {
		t.Errorf("counted: %d, %v", size, err)
	}
}

func TestSmaps(t *testing.T) {
	const text = "1000-3000 r--s 0 00:00 1 /a\nSize: 8 kB\nKernelPageSize:        4 kB\nFilePmdMapped:         0 kB\n" +
		"200000-400000 rw-s 0 00:00 2 /b\nKernelPageSize:        4 kB\nShmemPmdMapped:     2048 kB\n" +
		"40000000-80000000 rw-s 0 00:06 3 /dev/dax0.0\nKernelPageSize:  1048576 kB\nMMUPageSize:     1048576 kB\n"
	for at, want := range map[uint64]int64{0x1000: 4096, 0x2fff: 4096, 0x3000: 0, 0x200000: 2 << 20, 0x7fffffff: 1 << 30, 0x80000000: 0} {
		if got, err := smapsPageSize(strings.NewReader(text), at); got != want || (err != nil) != (want == 0) {
			t.Errorf("%#x: %d, %v", at, got, err)
		}
	}
	for _, c := range [][3]int64{{64 << 20, 32, 2 << 20}, {64 << 20, 16384, 4096}, {64 << 20, 1024, 4096}, {2 << 30, 2, 1 << 30}, {64 << 20, 0, 2 << 20}} {
		if got := pageSizeOf(c[0], c[1]); got != c[2] {
			t.Error(fmt.Sprint(c, got))
		}
	}
}
