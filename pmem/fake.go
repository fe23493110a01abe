package pmem

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FakeDevDax makes, below root, the sysfs files of an NVDIMM's device-dax. With the options that it
// returns, Open takes the regular file at path for that device. It is for tests of other packages,
// on machines without such a device. badblocks is the path of the device's list, which may be
// rewritten at any time: lines of "first sector, number of sectors" of 512 bytes, counted from the
// start of the file.
func FakeDevDax(root, path string) (o Options, badblocks string, err error) {
	const major, minor, base = 252, 7, "0x140000000"
	st, err := os.Stat(path)
	if err != nil {
		return o, "", err
	}
	region := filepath.Join(root, "devices/region0")
	dir := filepath.Join(region, "dax0.0")
	badblocks = filepath.Join(region, "badblocks")
	node := fmt.Sprintf("dev/char/%d:%d", major, minor)
	for _, d := range []string{"bus/dax", "dev/char", "devices/region0/dax0.0"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return o, "", err
		}
	}
	for name, s := range map[string]string{
		filepath.Join(dir, "size"): fmt.Sprint(st.Size()), filepath.Join(dir, "align"): "4096", filepath.Join(dir, "resource"): base,
		filepath.Join(region, "resource"): base, badblocks: "",
	} {
		if err := os.WriteFile(name, []byte(s), 0o644); err != nil {
			return o, "", err
		}
	}
	if err := os.Symlink(filepath.Join(root, "bus/dax"), filepath.Join(dir, "subsystem")); err != nil {
		return o, "", err
	}
	if err := os.Symlink(dir, filepath.Join(root, node)); err != nil {
		return o, "", err
	}
	return Options{SysfsRoot: root, hooks: hooks{stat: func(st *unix.Stat_t) {
		st.Mode, st.Rdev, st.Size = unix.S_IFCHR|0o600, unix.Mkdev(major, minor), 0
	}}}, badblocks, nil
}
