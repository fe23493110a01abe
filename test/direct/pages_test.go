package direct

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

const page = 2 << 20

// smaps returns figures of this process's mapping that holds the first byte of b, in bytes.
func smaps(t *testing.T, b []byte) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	addr := address(b)
	figures := map[string]int64{}
	found := false
	for _, l := range strings.Split(string(text), "\n") {
		var lo, hi uintptr
		if n, _ := fmt.Sscanf(l, "%x-%x ", &lo, &hi); n == 2 {
			found = lo <= addr && addr < hi
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		var kib int64
		if _, err := fmt.Sscan(value, &kib); found && ok && err == nil {
			figures[name] = kib << 10
		}
	}
	if len(figures) == 0 {
		t.Fatalf("no mapping at %#x", addr)
	}
	return figures
}

// mapPages maps a file of n bytes in pages of 2 MiB, and touches each page.
func mapPages(t *testing.T, path string, n int64, write bool) *direct.Mapping {
	t.Helper()
	d := open(t, path, os.O_RDWR)
	m, err := d.Map(0, n, direct.MapOptions{Write: write, PageSize: page})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if p := m.PageSizes(); len(p) != 1 || p[0] != (direct.Piece{Length: n, PageSize: page}) {
		t.Errorf("pieces %+v, want one in pages of 2 MiB", p)
	}
	sum := byte(0)
	for i := int64(0); i < n; i += 4096 {
		sum += m.Bytes()[i]
	}
	if sum != byte(n/4096) {
		t.Error("the mapping does not show what the file has")
	}
	return m
}

// TestHugetlbPages checks that a file on a region in hugetlbfs is mapped in its pages.
func TestHugetlbPages(t *testing.T) {
	dir := harness.Hugetlbfs(t, page, 32)
	t.Run("mounted", func(t *testing.T) {
		m := harness.NewOn(t, filepath.Join(dir, "region"), 32*page, limit)
		create(t, m.Path("f"), 1, 8*page)
		for _, write := range []bool{false, true} {
			mp := mapPages(t, m.Path("f"), 8*page, write)
			if s := smaps(t, mp.Bytes()); s["KernelPageSize"] != page {
				t.Errorf("write %v: the mapping has pages of %d bytes", write, s["KernelPageSize"])
			}
			mp.Close()
		}
		// A small file is read by copying, but not mapped next to others: its page holds other
		// files.
		create(t, m.Path("small"), 7, 8192)
		d := open(t, m.Path("small"), os.O_RDWR)
		b := make([]byte, 8192)
		if _, err := d.ReadAt(b, 0); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{7}, 8192)) || d.Normal() != 0 {
			t.Errorf("ReadAt: %v, %d went the normal way", err, d.Normal())
		}
		if _, err := d.WriteAt([]byte{8}, 5000); err != nil || d.Normal() != 0 {
			t.Errorf("WriteAt: %v, %d went the normal way", err, d.Normal())
		}
	})
}

// TestTmpfsPages checks that a file on a region in tmpfs with huge pages is mapped in pages of 2
// MiB.
func TestTmpfsPages(t *testing.T) {
	dir := harness.MemoryFS(t, "tmpfs", "huge=always,size=80m")
	t.Run("mounted", func(t *testing.T) {
		m := harness.NewOn(t, filepath.Join(dir, "region"), 32*page, limit)
		create(t, m.Path("f"), 1, 8*page)
		mp := mapPages(t, m.Path("f"), 8*page, true)
		if s := smaps(t, mp.Bytes()); s["ShmemPmdMapped"] != 8*page {
			t.Errorf("%d of %d bytes are mapped in pages of 2 MiB: %v", s["ShmemPmdMapped"], 8*page, s)
		}
		d := open(t, m.Path("f"), os.O_RDWR)
		for i := range int64(8) {
			if _, err := d.ReadAt(make([]byte, 1), i*page); err != nil {
				t.Fatal(err)
			}
		}
	})
}
