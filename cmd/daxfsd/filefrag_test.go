package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestFilefragPages checks by which pages filefrag says that a file can be mapped, on a region
// whose kernel mapping has 2 MiB pages: a tmpfs that is mounted so.
func TestFilefragPages(t *testing.T) {
	needFUSE(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "huge=always,size=96m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	region, mp := filepath.Join(dir, "region"), mountPoint(t)
	must(t, "mkfs", "--size", "64MiB", region)
	must(t, "mount", region, mp)
	if i, err := askDaemon(mp, probeLimit); err != nil || i.PageSize != 2<<20 {
		t.Fatalf("the region is mapped by pages of %d: %v", i.PageSize, err)
	}
	writeFile(t, mp+"/f", make([]byte, 5<<20))
	files, err := fileExtentsOf(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if p := files.Pages; len(p) != 2 || p[0] != (fusefs.PageBytes{Size: 2 << 20, Bytes: 4 << 20}) || p[1] != (fusefs.PageBytes{Size: 4096, Bytes: 1 << 20}) {
		t.Errorf("pages: %+v of %+v", p, files.Extents)
	}
	// What direct says of the same file.
	m, end := mapFile(t, mp+"/f", 5<<20, true)
	in2M := int64(0)
	for _, p := range m.PageSizes() {
		if p.PageSize == 2<<20 {
			in2M += p.Length
		}
	}
	if in2M != 4<<20 {
		t.Errorf("direct has %d bytes by pages of 2 MiB", in2M)
	}
	pages := grantsOf(t, mp)[0]["pages"].([]any)
	if p := pages[0].(map[string]any); p["size"] != float64(2<<20) || p["bytes"] != float64(4<<20) {
		t.Errorf("leases: %v", pages)
	}
	end()
	out := must(t, "filefrag", mp+"/f")
	if !strings.Contains(out, "a mapping would have pages of 2 MiB: 4 MiB, 4 KiB: 1 MiB") {
		t.Errorf("for people:\n%s", out)
	}
	if err := os.Remove(mp + "/f"); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
}

// TestPageSizes checks which pages each kind of region has.
func TestPageSizes(t *testing.T) {
	inUse := func() int64 { return 2 << 20 }
	for _, c := range []struct {
		kind             pmem.Kind
		align            int64
		granule, largest uint64
	}{
		{pmem.KindDevDax, 1 << 30, 1 << 30, 1 << 30},
		{pmem.KindDevDax, 2 << 20, 2 << 20, 2 << 20},
		{pmem.KindHugetlb, 2 << 20, 2 << 20, 2 << 20},
		{pmem.KindFSDax, 2 << 20, 4096, 2 << 20},
		{pmem.KindTmpfs, 4096, 4096, 2 << 20},
		{pmem.KindFile, 4096, 4096, 2 << 20},
	} {
		if s := pageSizes(c.kind.String(), c.align, inUse); s.Granule != c.granule || s.Largest != c.largest {
			t.Errorf("%v aligned to %d: %+v", c.kind, c.align, s)
		}
	}
}
