package vm

import (
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/vm/machine"
)

// TestRegions runs TestRegion of test/vm/guest on each kind of region, in a guest for each.
func TestRegions(t *testing.T) {
	for _, k := range []struct {
		name    string
		devices func(t *testing.T) []machine.Device
	}{
		{"devdax-2M", func(t *testing.T) []machine.Device { return []machine.Device{nvdimm(t, 1)} }},
		{"devdax-1G", func(t *testing.T) []machine.Device { return []machine.Device{nvdimm(t, 3)} }}, // 2 GiB of the 3 are aligned to 1 GiB
		{"fsdax-ext4", func(t *testing.T) []machine.Device { return []machine.Device{nvdimm(t, 1)} }},
		{"fsdax-xfs", func(t *testing.T) []machine.Device { return []machine.Device{nvdimm(t, 2)} }},
		{"virtio-pmem", func(t *testing.T) []machine.Device {
			d := nvdimm(t, 1)
			d.Virtio = true
			return []machine.Device{d}
		}},
		{"tmpfs", func(*testing.T) []machine.Device { return nil }},
	} {
		t.Run(k.name, func(t *testing.T) {
			inGuest(t, 4*time.Minute, "TestRegion/^"+k.name+"$", nil, k.devices(t)...)
		})
	}
}

// TestMisuse runs TestMisuse of test/vm/guest.
func TestMisuse(t *testing.T) {
	inGuest(t, 3*time.Minute, "TestMisuse", nil, nvdimm(t, 3))
}

// TestDirect runs TestDirect of test/vm/guest on devices of each alignment, in a guest for each,
// and after a reboot TestDirectReboot.
func TestDirect(t *testing.T) {
	t.Run("devdax-2M", func(t *testing.T) {
		d := nvdimm(t, 2)
		inGuest(t, 3*time.Minute, "^TestDirect$/^devdax-2M$", nil, d)
		inGuest(t, time.Minute, "^TestDirectReboot$", nil, d)
	})
	t.Run("devdax-1G", func(t *testing.T) { // 4 GiB of the 5 are aligned, and the middle two of these have no metadata
		inGuest(t, 3*time.Minute, "^TestDirect$/^devdax-1G$", nil, nvdimm(t, 5))
	})
}

// TestShrunk boots again with a smaller device than daxfsd mkfs has formatted.
func TestShrunk(t *testing.T) {
	d := nvdimm(t, 2)
	inGuest(t, time.Minute, "TestFormat", nil, d)
	d.Size = 1 << 30
	inGuest(t, time.Minute, "TestShrunk", nil, d)
}

// TestNFS runs TestNFS of test/vm/guest in a guest with an NFS server.
func TestNFS(t *testing.T) {
	inGuest(t, 6*time.Minute, "TestNFS", []string{"nfs"})
}

// TestPosix runs the whole of test/posix, over both transports, on device-dax.
func TestPosix(t *testing.T) {
	if !*long {
		t.Skip("only with -long; TestRegions has a part of it")
	}
	inGuest(t, 80*time.Minute, "TestPosix", nil, nvdimm(t, 1))
}
