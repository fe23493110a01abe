package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

// TestDaxMode checks that the error for a device without memory says why, and what to do.
func TestDaxMode(t *testing.T) {
	sysfs := t.TempDir()
	for name, driver := range map[string]string{"dax0.0": "device_dax", "dax1.0": "kmem", "dax2.0": "", "dax3.0": "fsdev_dax"} {
		dir := filepath.Join(sysfs, "bus/dax/devices", name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if driver != "" {
			if err := os.Symlink("../../drivers/"+driver, filepath.Join(dir, "driver")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, want := range map[string]string{
		"/dev/dax0.0":     "",
		"/dev/dax1.0":     "is in system-ram mode: the kernel uses it as ordinary memory; make it a device again with `daxctl reconfigure-device --mode=devdax dax1.0`",
		"/dev/dax2.0":     "is disabled; enable it with `daxctl enable-device dax2.0`",
		"/dev/dax3.0":     "belongs to the kernel's driver fsdev_dax; make it a device again with `daxctl reconfigure-device --mode=devdax dax3.0`",
		"/dev/dax4.0":     "",
		"/var/tmp/dax2.0": "",
	} {
		if got := daxMode(sysfs, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestAlignError(t *testing.T) {
	want := "region /dev/dax0.0 has an alignment of 1 GiB, and the filesystem on it was made for 2 MiB; " +
		"make the namespace again with `--align 2097152`, or another filesystem with `daxfsd mkfs /dev/dax0.0`"
	if got := superError("/dev/dax0.0", nil, &fs.AlignError{Found: 1 << 30, Want: 2 << 20}).Error(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
