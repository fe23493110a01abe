package pmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Create makes the file at path an emulated region of size bytes, a multiple of
// 4096, or extends an existing file to that size. What a file holds stays: one that
// is larger is refused with ErrWouldShrink, one in use with ErrBusy.
//
// Its storage is allocated, so that a store never finds the disk full (which would
// be a SIGBUS); sparse leaves that out. After an error, a file that was there has
// its old size, and one that was not is gone.
func Create(path string, size int64, sparse bool) error {
	if size < pageSize || size%pageSize != 0 {
		return fmt.Errorf("pmem: create %s: %w: a size of %d bytes was asked for, a multiple of %d was expected", path, ErrTooSmall, size, pageSize)
	}
	if size > MaxSize {
		return fmt.Errorf("pmem: create %s: %w: a size of %d bytes was asked for, the limit is %d (32 TiB)", path, ErrTooLarge, size, int64(MaxSize))
	}
	h, err := Acquire(path, true)
	if err != nil {
		return err
	}
	if old := h.Size(); old > size {
		err = fmt.Errorf("pmem: create %s: %w: it has %d bytes, %d were asked for; remove it first if it may go", path, ErrWouldShrink, old, size)
	} else {
		err = h.Resize(size, sparse)
	}
	if err != nil {
		h.Discard()
		return err
	}
	return h.Close()
}

// allocate extends the file from old to size bytes and fills its holes.
func allocate(f *os.File, old, size int64, sparse bool) error {
	fd := int(f.Fd())
	if sparse {
		if err := unix.Ftruncate(fd, size); err != nil {
			return fmt.Errorf("pmem: set the size of %s to %d bytes: %w", f.Name(), size, err)
		}
		return nil
	}
	err := fallocate(fd, size)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		// No allocation on this filesystem: write what is new. Holes below
		// stay, since filling them could destroy what they border on.
		err = writeZeros(f, old, size)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		var fs unix.Statfs_t
		unix.Fstatfs(fd, &fs)
		return fmt.Errorf("pmem: allocate %d bytes for %s: its filesystem has %d free: %w", size, f.Name(), int64(fs.Bavail)*int64(fs.Bsize), err)
	}
	return fmt.Errorf("pmem: allocate %d bytes for %s: %w", size, f.Name(), err)
}

// fallocate allocates [0, size), leaving what is there. Go's own signals interrupt
// it, and tmpfs then starts over from nothing: so, in pieces.
func fallocate(fd int, size int64) error {
	const piece = 1 << 30
	for off := int64(0); off < size; {
		n := min(piece, size-off)
		if err := unix.Fallocate(fd, 0, off, n); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		off += n
	}
	return nil
}

func writeZeros(f *os.File, off, end int64) error {
	zero := make([]byte, 1<<20)
	for off < end {
		n, err := f.WriteAt(zero[:min(int64(len(zero)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// syncCreated makes the file's size and, if it is new, its name durable.
func syncCreated(f *os.File, isNew bool) error {
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("pmem: sync %s: %w", f.Name(), err)
	}
	if !isNew {
		return nil
	}
	dir, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return nil // a directory that may not be read cannot be synced either
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("pmem: sync the directory of %s: %w", f.Name(), err)
	}
	return nil
}

// undoCreate takes back what a failed Create did to the file: a new one is removed,
// an old one loses what was added. A name that was replaced meanwhile is not ours.
func undoCreate(f *os.File, old int64) {
	var mine, named unix.Stat_t
	if unix.Fstat(int(f.Fd()), &mine) != nil {
		return
	}
	if old >= 0 {
		if mine.Size > old {
			unix.Ftruncate(int(f.Fd()), old)
		}
		return
	}
	if unix.Lstat(f.Name(), &named) == nil && named.Dev == mine.Dev && named.Ino == mine.Ino {
		unix.Unlink(f.Name())
	}
}
