package pmem

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Content is the bytes of a region, or of a file that is to become one. Reading them allocates no
// storage and no memory, which a load from a mapped hole of a file would.
type Content interface {
	Size() int64 // bytes
	// Load reads len(b) bytes from byte offset off.
	Load(off int64, b []byte) error
	// NextData returns the first range [lo, hi) of bytes at or after off that may hold anything but
	// zeros. lo is Size if there is none.
	NextData(off int64) (lo, hi int64)
}

// NextData is Content.NextData.
func (r *Region) NextData(off int64) (lo, hi int64) {
	if r.file == nil || r.kind == KindDevDax {
		return min(off, r.size), r.size
	}
	return nextData(r.file, off, r.size)
}

// nextData is NextData of a file of size bytes. If the filesystem cannot report holes, the file has
// none.
func nextData(f *os.File, off, size int64) (lo, hi int64) {
	lo, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size
	case err != nil:
		return min(off, size), size
	}
	if hi, err = unix.Seek(int(f.Fd()), lo, unix.SEEK_HOLE); err != nil {
		hi = size
	}
	return min(lo, size), min(hi, size)
}
