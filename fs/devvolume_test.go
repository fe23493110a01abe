package fs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/fstest"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// devVolume is a filesystem on a file that pmem takes for a device-dax node, and the device's list
// of bad blocks. The file can be truncated while it is mounted.
type devVolume struct {
	*volume
	path, list string
	o          pmem.Options
}

func newDevVolume(t *testing.T, size int64) *devVolume {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	o, list, err := pmem.FakeDevDax(t.TempDir(), path)
	if err != nil {
		t.Fatal(err)
	}
	d := &devVolume{path: path, list: list, o: o}
	t.Cleanup(func() { d.R.Close() })
	d.volume = &volume{fstest.On(t, nil, fs.Options{})}
	d.open()
	if _, err := fs.Mkfs(d.R, fstest.Small); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *devVolume) open() {
	d.Helper()
	r, err := pmem.Open(d.path, d.o)
	if err != nil {
		d.Fatal(err)
	}
	d.R = r
}

// poison puts byte ranges of the region on the kernel's list.
func (d *devVolume) poison(ranges ...pmem.Range) {
	d.Helper()
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d\n", r.Off/512, r.Len/512)
	}
	if err := os.WriteFile(d.list, []byte(b.String()), 0o600); err != nil {
		d.Fatal(err)
	}
}

// lost checks that fsck finds only lost data: one "path offset+bytes" for each range.
func (v *volume) lost(want ...string) *fsck.Report {
	v.Helper()
	rep, err := fsck.Check(v.R, fsck.Options{})
	if err != nil {
		v.Fatal(err)
	}
	got := []string{}
	for _, p := range rep.Problems {
		if p.Code != fsck.LostData {
			v.Errorf("fsck: %v", p)
		}
		if !strings.Contains(p.What, p.Path) {
			v.Errorf("the path is missing in %q", p.What)
		}
		got = append(got, fmt.Sprintf("%s %d+%d", p.Path, p.FileOffset, p.Bytes))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || rep.LostRanges != len(want) || (len(want) > 0) != (rep.ExitCode() == 4) {
		v.Errorf("fsck says that %q is lost, expected %q; exit code %d", got, want, rep.ExitCode())
	}
	return rep
}

func at(e fs.ExtentInfo, block uint64) int64 { return int64(e.Block+block) << layout.BlockShift }
