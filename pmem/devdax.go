package pmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// daxDevice returns the sysfs directory of the device-dax instance with device number rdev. st_size
// and lseek return 0 for such a device, so only sysfs has its size and page size.
func daxDevice(sysfs string, rdev uint64) (dir string, err error) {
	num := fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
	if dir, err := filepath.EvalSymlinks(filepath.Join(sysfs, "dev/char", num)); err == nil {
		if s, err := filepath.EvalSymlinks(filepath.Join(dir, "subsystem")); err == nil && filepath.Base(s) == "dax" {
			return dir, nil
		}
	}
	// A container may see the bus but not dev/char.
	names, _ := filepath.Glob(filepath.Join(sysfs, "bus/dax/devices/*"))
	for _, name := range names {
		if b, err := os.ReadFile(filepath.Join(name, "dev")); err == nil && strings.TrimSpace(string(b)) == num {
			return filepath.EvalSymlinks(name)
		}
	}
	return "", fmt.Errorf("it is the character device %s, which is not device-dax", num)
}

// devDaxSource returns the source of an open device-dax node, from sysfs.
func devDaxSource(f *os.File, rdev uint64, o *Options) (source, error) {
	dir, err := daxDevice(o.SysfsRoot, rdev)
	if err != nil {
		return source{}, fmt.Errorf("pmem: %s: %w: %w", f.Name(), ErrNotRegion, err)
	}
	size, err := sysfsNumber(filepath.Join(dir, "size"))
	if err != nil {
		return source{}, fmt.Errorf("pmem: %s: size of the device: %w", f.Name(), err)
	}
	// Older kernels have align in the parent directory, if at all.
	align, err := sysfsNumber(filepath.Join(dir, "align"))
	if errors.Is(err, os.ErrNotExist) {
		align, err = sysfsNumber(filepath.Join(filepath.Dir(dir), "align"))
	}
	if errors.Is(err, os.ErrNotExist) {
		align, err = 2<<20, nil
	}
	if err != nil {
		return source{}, fmt.Errorf("pmem: %s: align of the device: %w", f.Name(), err)
	}
	if align < pageSize || align&(align-1) != 0 {
		return source{}, fmt.Errorf("pmem: %s: align of the device is %d, a power of two of at least %d was expected", f.Name(), align, pageSize)
	}
	if size < align {
		return source{}, fmt.Errorf("pmem: %s: %w: the device has %d bytes, at least %d were expected", f.Name(), ErrTooSmall, size, align)
	}
	return source{file: f, kind: KindDevDax, size: size &^ (align - 1), align: align, daxDir: dir}, checkMaxSize(f, size)
}

// sysfsNumber reads a file that holds one number, decimal or 0x hexadecimal.
func sysfsNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: found %q, a number was expected", path, strings.TrimSpace(string(b)))
	}
	return n, nil
}
