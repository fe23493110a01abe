package main

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// TestAlign checks that daxfsd align lays a scattered file out for large pages, says so, and leaves
// the content and the wish behind.
func TestAlign(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp := filepath.Join(t.TempDir(), "region.dax"), mountPoint(t)
	must(t, "mkfs", "--size", "128MiB", "--sparse", region)
	must(t, "mount", region, mp)
	const size = 24<<20 + 5000
	name, dir := filepath.Join(mp, "f"), filepath.Join(mp, "dir")
	data := make([]byte, size)
	rnd := rand.New(rand.NewSource(1))
	rnd.Read(data)
	writeFile(t, name, nil)
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	between, err := os.Create(filepath.Join(mp, "between"))
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	for i, b := range rnd.Perm((size + 4095) / 4096) { // more than the background may collapse
		for _, err := range []error{
			second(f.WriteAt(data[b*4096:min(size, (b+1)*4096)], int64(b)*4096)),
			second(between.WriteAt([]byte{1}, int64(i)*8192)),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var got []alignment
	if err := json.Unmarshal([]byte(must(t, "align", "--json", name, dir)), &got); err != nil || len(got) != 2 {
		t.Fatalf("%v: %+v", err, got)
	}
	a := got[0]
	if a.File != name || a.Bytes != size || a.PageSize != page2M || a.Directory || a.After != (mappable{In2M: 24 << 20}) || a.Before.In2M > 16<<20 {
		t.Errorf("align --json printed %+v", a)
	}
	if !got[1].Directory || got[1].PageSize != page2M {
		t.Errorf("of a directory, align --json printed %+v", got[1])
	}
	if !bytes.Equal(readFile(t, name), data) {
		t.Error("the file has changed")
	}
	if n, err := direct.PageSize(f); err != nil || n != page2M {
		t.Errorf("the page size is %d, %v", n, err)
	}
	inherits := filepath.Join(dir, "new")
	writeFile(t, inherits, data[:4096])
	if r := must(t, "align", "--page-size", "1GiB", inherits); !strings.Contains(r, "in pages of 1 GiB: 0 B") {
		t.Errorf("align --page-size 1GiB printed %q", r)
	}
	if err := direct.SetPageSize(f, 0); err != nil {
		t.Error(err)
	}
	if n, err := direct.PageSize(f); err != nil || n != 0 {
		t.Errorf("the page size is %d, %v after it was taken back", n, err)
	}
	for _, size := range []int64{-1, 4096, 4 << 20, 3 << 30, 1 << 40} {
		if err := direct.SetPageSize(f, size); err == nil {
			t.Errorf("pages of %d bytes are accepted", size)
		}
	}

	refused(t, daxfsd(t, "align", "--page-size", "4MiB", name), 2, "4 MiB", "2MiB or 1GiB")
	refused(t, daxfsd(t, "align", ""), 2, "empty")
	refused(t, daxfsd(t, "align", "/proc/version"), 1, "/proc/version", "not a file or directory on a mounted daxfsd")
	refused(t, daxfsd(t, "align", filepath.Join(mp, "missing")), 1, "missing", "no such file")
	f.Close()
	between.Close()
	must(t, "umount", mp)
	must(t, "fsck", "-n", region)
}

func second(_ int, err error) error { return err }

// TestAlignRefused checks what align says on a mount that makes no grants.
func TestAlignRefused(t *testing.T) {
	t.Parallel()
	_, mp := mounted(t, "-o", "direct=off")
	name := filepath.Join(mp, "f")
	writeFile(t, name, content)
	refused(t, daxfsd(t, "align", name), 1, name, "direct=off")
}

// TestMappableOf checks what large pages can map of some layouts.
func TestMappableOf(t *testing.T) {
	x := func(logical, region, length uint64) fusefs.Extent {
		return fusefs.Extent{Logical: logical << 20, Region: region << 20, Length: length << 20}
	}
	for _, c := range []struct {
		x          []fusefs.Extent
		in2M, in1G int64 // MiB
	}{
		{nil, 0, 0},
		{[]fusefs.Extent{x(0, 2, 1)}, 0, 0},
		{[]fusefs.Extent{x(0, 2, 2)}, 2, 0},
		{[]fusefs.Extent{x(0, 3, 9)}, 0, 0},
		{[]fusefs.Extent{x(1, 3, 9)}, 8, 0},
		{[]fusefs.Extent{x(0, 2, 1), x(1, 3, 1)}, 2, 0},
		{[]fusefs.Extent{x(0, 2, 1), x(2, 4, 1)}, 0, 0},
		{[]fusefs.Extent{x(0, 2, 1), x(1, 5, 1)}, 0, 0},
		{[]fusefs.Extent{x(0, 1024, 1536)}, 1536, 1024},
		{[]fusefs.Extent{x(0, 1026, 1536)}, 1536, 0},
		{[]fusefs.Extent{x(512, 512, 2048)}, 2048, 1024},
		{[]fusefs.Extent{x(0, 1024, 512), x(512, 1536, 512), x(1024, 4096, 1024)}, 2048, 2048},
	} {
		if m := mappableOf(c.x); m != (mappable{c.in2M << 20, c.in1G << 20}) {
			t.Errorf("%v: %d and %d MiB, expected %d and %d", c.x, m.In2M>>20, m.In1G>>20, c.in2M, c.in1G)
		}
	}
}
