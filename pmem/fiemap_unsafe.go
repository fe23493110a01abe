package pmem

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// extent is a piece of a file on its block device: offsets and length in bytes.
type extent struct{ logical, physical, length int64 }

// fiemap mirrors struct fiemap and fiemapExtent struct fiemap_extent of
// linux/fiemap.h.
type fiemap struct {
	start, length          uint64
	flags, mapped, room, _ uint32
	extents                [64]fiemapExtent
}

type fiemapExtent struct {
	logical, physical, length uint64
	_                         [2]uint64
	flags                     uint32
	_                         [3]uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(fiemapExtent{})-56]

const (
	fsIocFiemap      = 0xC020660B
	fiemapLast       = 0x1
	fiemapUnknown    = 0x2 // the location is not known
	fiemapEncoded    = 0x8
	fiemapNotAligned = 0x100
)

// fileExtents returns where the first size bytes of a file are on its block device.
func fileExtents(f *os.File, size int64) ([]extent, error) {
	var out []extent
	var m fiemap
	for at := uint64(0); at < uint64(size); {
		m.start, m.length, m.mapped, m.room = at, uint64(size)-at, 0, uint32(len(m.extents))
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m))); errno != 0 {
			return nil, fmt.Errorf("extents of the file: %w", errno)
		}
		if m.mapped == 0 {
			return out, nil
		}
		for _, e := range m.extents[:m.mapped] {
			if e.flags&(fiemapUnknown|fiemapEncoded|fiemapNotAligned) == 0 {
				out = append(out, extent{int64(e.logical), int64(e.physical), int64(e.length)})
			}
			if at = e.logical + e.length; e.flags&fiemapLast != 0 {
				return out, nil
			}
		}
	}
	return out, nil
}
