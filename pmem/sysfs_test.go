package pmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// write makes a file and its directories. It adds a newline to content.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// fakeDax makes the sysfs files that the kernel makes for an NVDIMM's device-dax, 252:7.
func fakeDax(t *testing.T, size, align string) (root, dir, region string) {
	root = t.TempDir()
	region = filepath.Join(root, "devices/LNXSYSTM:00/ndbus0/region0")
	dir = filepath.Join(region, "dax0.1/dax0.0")
	write(t, filepath.Join(dir, "size"), size)
	if align != "" {
		write(t, filepath.Join(dir, "align"), align)
	}
	write(t, filepath.Join(dir, "dev"), "252:7")
	write(t, filepath.Join(dir, "resource"), "0x140200000")
	write(t, filepath.Join(region, "resource"), "0x140000000")
	link(t, filepath.Join(root, "bus/dax"), filepath.Join(dir, "subsystem"))
	link(t, dir, filepath.Join(root, "bus/dax/devices/dax0.0"))
	link(t, dir, filepath.Join(root, "dev/char/252:7"))
	return root, dir, region
}

// daxOptions returns options that make a regular file look like the device node 252:7, with size 0
// as on real devices.
func daxOptions(root string) Options {
	return Options{SysfsRoot: root, hooks: hooks{stat: func(st *unix.Stat_t) {
		st.Mode = unix.S_IFCHR | 0o600
		st.Rdev = unix.Mkdev(252, 7)
		st.Size = 0
	}}}
}

func TestDevDax(t *testing.T) {
	root, dir, regionDir := fakeDax(t, "6291456", "2097152")
	node := filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(node, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	region, err := Open(node, daxOptions(root))
	if err != nil {
		t.Fatal(err)
	}
	if region.Kind() != KindDevDax || region.Durability() != DurableFlush || region.Size() != 6<<20 || region.Align() != 2<<20 {
		t.Errorf("%v, %v, size %d, align %d", region.Kind(), region.Durability(), region.Size(), region.Align())
	}
	if err := errors.Join(region.NTStore(6<<20-100, make([]byte, 100)), region.Sync(0, 4096), region.CheckSize(6<<20)); err != nil {
		t.Error(err)
	}
	if err := region.CheckSize(7 << 20); !errors.Is(err, ErrTruncated) {
		t.Error(err)
	}
	if bad, err := region.BadRanges(); bad != nil || err != nil {
		t.Errorf("no list: %v, error %v", bad, err)
	}
	// The device begins 2 MiB into its region, at sector 4096.
	for list, want := range map[string][]Range{
		"":                              nil,
		"0 8":                           nil,
		"4096 1":                        {{0, 512}},
		"4088 16":                       {{0, 4096}},
		"16383 100":                     {{6<<20 - 512, 512}},
		"16384 8":                       nil,
		"4112 8\n4096 8\n4104 4":        {{0, 4096 + 2048}, {8192, 4096}},
		"4096 100\n4100 8\n5000 1\n9 1": {{0, 51200}, {(5000 - 4096) * 512, 512}},
	} {
		write(t, filepath.Join(regionDir, "badblocks"), list)
		if list == "" {
			os.Truncate(filepath.Join(regionDir, "badblocks"), 0)
		}
		if bad, err := region.BadRanges(); err != nil || !slices.Equal(bad, want) {
			t.Errorf("list %q: %v, want %v, error %v", list, bad, want, err)
		}
	}
	for _, list := range []string{"x y", "5", "-1 5"} {
		write(t, filepath.Join(regionDir, "badblocks"), list)
		if _, err := region.BadRanges(); err == nil || !strings.Contains(err.Error(), "badblocks: found") {
			t.Errorf("list %q: error %v", list, err)
		}
	}
	region.Close()

	// Without dev/char, as in a container, the device is found on the bus.
	os.RemoveAll(filepath.Join(root, "dev"))
	region, err = Open(node, daxOptions(root))
	if err != nil {
		t.Fatal(err)
	}
	region.Close()

	// Without align, 2 MiB is assumed.
	os.Remove(filepath.Join(dir, "align"))
	region, err = Open(node, daxOptions(root))
	if err != nil || region.Align() != 2<<20 {
		t.Fatal(err)
	}
	region.Close()
}

func TestDevDaxRefuses(t *testing.T) {
	node := filepath.Join(t.TempDir(), "dax0.0")
	if err := os.WriteFile(node, make([]byte, 6<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		size, align string
		is          error
		says        string
	}{
		{"0", "2097152", ErrTooSmall, "has 0 bytes, at least 2097152"},
		{"2097152", "1073741824", ErrTooSmall, "has 2097152 bytes"},
		{"6291456", "3000", nil, "align of the device is 3000, a power of two"},
		{"6291456", "12288", nil, "power of two"},
		{"much", "2097152", nil, `found "much"`},
	} {
		root, _, _ := fakeDax(t, c.size, c.align)
		_, err := Open(node, daxOptions(root))
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("size %s, align %s: error %v", c.size, c.align, err)
		}
	}
	if _, err := Open(node, daxOptions(t.TempDir())); !errors.Is(err, ErrNotRegion) || !strings.Contains(err.Error(), "252:7") {
		t.Errorf("unknown device: %v", err)
	}
	// The same device number, but in another subsystem.
	root, dir, _ := fakeDax(t, "6291456", "2097152")
	os.Remove(filepath.Join(dir, "subsystem"))
	os.RemoveAll(filepath.Join(root, "bus"))
	link(t, filepath.Join(root, "class/mem"), filepath.Join(dir, "subsystem"))
	if _, err := Open(node, daxOptions(root)); !errors.Is(err, ErrNotRegion) {
		t.Errorf("another subsystem: %v", err)
	}
}

// TestFSDaxBad marks a sector of the file's third page bad on the block device.
func TestFSDaxBad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "region")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	region, err := Open(path, Options{SysfsRoot: root, hooks: hooks{mapSync: func(int) error { return nil }, noSync: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer region.Close()
	if err := region.file.Sync(); err != nil {
		t.Fatal(err)
	}
	extents, err := fileExtents(region.file, region.Size())
	if err != nil || len(extents) == 0 || extents[0].logical != 0 || extents[0].length < 12288 {
		t.Skipf("extents of this filesystem: %v, error %v", extents, err)
	}
	if bad, err := region.BadRanges(); bad != nil || err != nil {
		t.Errorf("no device: %v, error %v", bad, err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(root, "dev/block", fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev)))
	sector := (extents[0].physical + 8192) / sectorSize
	want := []Range{{8192, 512}}

	disk := filepath.Join(root, "devices/pmem0")
	write(t, filepath.Join(disk, "badblocks"), fmt.Sprintf("%d 1", sector))
	link(t, disk, name)
	if bad, err := region.BadRanges(); err != nil || !slices.Equal(bad, want) {
		t.Errorf("disk: %v, error %v", bad, err)
	}
	// For a partition, the list of the whole disk is used.
	os.Remove(name)
	write(t, filepath.Join(disk, "badblocks"), fmt.Sprintf("%d 1", sector+2048))
	write(t, filepath.Join(disk, "pmem0p1/partition"), "1")
	write(t, filepath.Join(disk, "pmem0p1/start"), "2048")
	link(t, filepath.Join(disk, "pmem0p1"), name)
	if bad, err := region.BadRanges(); err != nil || !slices.Equal(bad, want) {
		t.Errorf("partition: %v, error %v", bad, err)
	}
}
