package posix

import (
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trim calls FITRIM on the case's filesystem. All arguments are in bytes.
func (c *ctx) trim(start, length, least uint64) error {
	r := [3]uint64{start, length, least}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(c.open(".", ro)), 0xc0185879, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// trimCases checks which arguments of FITRIM are refused.
var trimCases = []testCase{{name: "space/trim", needs: needsTrim, run: func(c *ctx) {
	const all = math.MaxUint64
	c.is(c.trim(0, all, 0), nil, "everything")
	c.is(c.trim(0, 4096, 0), nil, "a block")
	c.is(c.trim(4096, 1<<20, 1<<20), nil, "a piece, extents of 1 MiB at least")
	c.is(c.trim(100, all, 100), nil, "what is not aligned")
	c.is(c.trim(0, all, 128<<20), nil, "extents of 128 MiB at least")
	c.is(c.trim(0, 0, 0), unix.EINVAL, "no bytes")
	c.is(c.trim(0, 4095, 0), unix.EINVAL, "less than a block")
	c.is(c.trim(1<<50, all, 0), unix.EINVAL, "from behind the end on")
	c.is(c.trim(all, all, 0), unix.EINVAL, "from the largest offset on")
	c.is(c.trim(0, all, all), unix.EINVAL, "extents as large as can be said")
	c.is(c.trim(0, all, 1<<40), unix.EINVAL, "extents of 1 TiB at least")
	c.is(c.trim(0, all, 256<<20), unix.EINVAL, "extents of 256 MiB at least")
	c.as(ann, func() {
		c.is(c.trim(0, all, 0), unix.EPERM, "by a user")
		c.is(c.trim(0, 0, 0), unix.EPERM, "nothing, by a user")
	})
}}}
