package guest

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A kind describes a kind of region, and what daxfsd info must print about it.
type kind struct {
	name       string
	make       func(t *testing.T) (region string, size int64)
	kind       string
	align      int64
	durability string
	page       int64 // bytes of the pages that map it, as far as the memory is aligned
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

var kinds = []kind{
	{"devdax-2M", func(t *testing.T) (string, int64) { return devdax(t, 2*mib) }, "device-dax", 2 * mib, "flush", 2 * mib},
	{"devdax-1G", func(t *testing.T) (string, int64) { return devdax(t, gib) }, "device-dax", gib, "flush", gib},
	{"fsdax-ext4", func(t *testing.T) (string, int64) {
		fsdax(t)
		return inExt4(t)
	}, "fsdax", 2 * mib, "flush", 2 * mib},
	{"fsdax-xfs", func(t *testing.T) (string, int64) {
		fsdax(t)
		run(t, "modprobe", "xfs")
		run(t, "mkfs.xfs", "-q", "-f", "-m", "reflink=0", "-d", "su=2m,sw=1", "/dev/pmem0")
		return inMount(t, "xfs", "/dev/pmem0", "dax=always")
	}, "fsdax", 2 * mib, "flush", 2 * mib},
	// Durability takes an fsync on virtio-pmem, so the kernel refuses MAP_SYNC.
	{"virtio-pmem", inExt4, "file", 4096, "daemon", 2 * mib},
	{"tmpfs", func(t *testing.T) (string, int64) { return inMount(t, "tmpfs", "tmpfs", "huge=always,size=768m") }, "tmpfs", 4096, "volatile", 2 * mib},
}

// devdax makes a device-dax of the first namespace, with an alignment in bytes. It returns its path
// and its usable size in bytes.
func devdax(t *testing.T, align int64) (string, int64) {
	t.Helper()
	run(t, "ndctl", "create-namespace", "-f", "-e", "namespace0.0", "-m", "devdax", "--align", strconv.FormatInt(align, 10))
	return "/dev/dax0.0", daxSize(t, align)
}

// daxSize returns how many bytes of /dev/dax0.0 can be mapped by pages of align bytes.
func daxSize(t *testing.T, align int64) int64 {
	t.Helper()
	b, err := os.ReadFile("/sys/bus/dax/devices/dax0.0/size")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < align {
		t.Fatalf("dax0.0 has %q bytes (%v), want %d", b, err, align)
	}
	return n &^ (align - 1)
}

func fsdax(t *testing.T) {
	t.Helper()
	run(t, "ndctl", "create-namespace", "-f", "-e", "namespace0.0", "-m", "fsdax")
}

func inExt4(t *testing.T) (string, int64) {
	t.Helper()
	run(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "stride=512,stripe_width=512", "/dev/pmem0")
	return inMount(t, "ext4", "/dev/pmem0", "dax=always")
}

// inMount mounts a filesystem until the end of the test. It returns the path of a file there and a
// size in bytes.
func inMount(t *testing.T, fstype, device, options string) (string, int64) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(device, dir, fstype, 0, options); err != nil {
		t.Fatalf("mounting %s with %s: %v", device, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting the %s below the region: %v", fstype, err)
		}
	})
	return filepath.Join(dir, "region"), 512 * mib
}
