package fs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// devVolume is a filesystem on a file that is taken for a device-dax node, and the device's list of
// bad blocks. The file can be truncated under it.
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
	d := &devVolume{volume: &volume{t: t}, path: path, list: list, o: o}
	d.open()
	t.Cleanup(func() { d.r.Close() })
	if _, err := fs.Mkfs(d.r, fs.MkfsOptions{ChunkShift: 15, PUDShift: 18, Now: 1, UUID: [16]byte{1}}); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *devVolume) open() {
	d.t.Helper()
	r, err := pmem.Open(d.path, d.o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.r = r
}

// poison puts the bytes of the region on the kernel's list.
func (d *devVolume) poison(ranges ...pmem.Range) {
	d.t.Helper()
	var b strings.Builder
	for _, r := range ranges {
		fmt.Fprintf(&b, "%d %d\n", r.Off/512, r.Len/512)
	}
	if err := os.WriteFile(d.list, []byte(b.String()), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// get reads as a transport does.
func (v *volume) get(ino uint64, off int64, n int) ([]byte, syscall.Errno) {
	r := v.fs.NewPinnedRead()
	defer r.Free()
	if e := v.fs.Read(&v.ctx, ino, off, n, r); e != 0 {
		return nil, e
	}
	b := make([]byte, n)
	m, e := r.Take(b)
	return b[:m], e
}

// lost checks that fsck finds nothing but that files lost data: "path offset+bytes" each.
func (v *volume) lost(want ...string) *fsck.Report {
	v.t.Helper()
	rep, err := fsck.Check(v.r, fsck.Options{})
	if err != nil {
		v.t.Fatal(err)
	}
	got := []string{}
	for _, p := range rep.Problems {
		if p.Code != fsck.LostData {
			v.t.Errorf("fsck: %v", p)
		}
		if !strings.Contains(p.What, p.Path) {
			v.t.Errorf("the path is missing in %q", p.What)
		}
		got = append(got, fmt.Sprintf("%s %d+%d", p.Path, p.FileOffset, p.Bytes))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || rep.LostRanges != len(want) || (len(want) > 0) != (rep.ExitCode() == 4) {
		v.t.Errorf("fsck says that %q is lost, expected %q; exit code %d", got, want, rep.ExitCode())
	}
	return rep
}

func at(e fs.ExtentInfo, block uint64) int64 { return int64(e.Block+block) << layout.BlockShift }
