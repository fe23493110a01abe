package pmem

import (
	"errors"
	"fmt"
	"os"

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
	defer h.Close()
	if old := h.Size(); old > size {
		return fmt.Errorf("pmem: create %s: %w: it has %d bytes, %d were asked for; remove it first if it may go", path, ErrWouldShrink, old, size)
	}
	if err := h.Resize(ResizeOptions{Size: size, Sparse: sparse}); err != nil {
		return err
	}
	return h.Keep()
}

// allocate gives a file of old bytes its storage and, if it grows, its size.
func allocate(f *os.File, old int64, o *ResizeOptions) error {
	fd := int(f.Fd())
	if err := checkFileLimit(f, o.Size); err != nil {
		return err
	}
	if !o.Sparse {
		err := fallocate(f, o)
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			// No allocation on this filesystem: write what is new. Holes below
			// stay, since filling them could destroy what they border on.
			err = writeZeros(f, old, o)
		}
		switch {
		case err == nil:
		case errors.Is(err, ErrNoRoom), errors.Is(err, ErrCancelled):
			return err
		case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
			var fs unix.Statfs_t
			unix.Fstatfs(fd, &fs)
			return fmt.Errorf("pmem: allocate %d bytes for %s: its filesystem has %d free: %w", o.Size, f.Name(), saturated(fs.Bavail, uint64(fs.Bsize)), err)
		default:
			return fmt.Errorf("pmem: allocate %d bytes for %s: %w", o.Size, f.Name(), err)
		}
	}
	if o.Size > old {
		if err := unix.Ftruncate(fd, o.Size); err != nil {
			return fmt.Errorf("pmem: set the size of %s to %d bytes: %w", f.Name(), o.Size, err)
		}
	}
	return nil
}

// allocPiece is how many bytes are allocated between two questions whether there is room. Others
// take memory, too.
const allocPiece = 256 << 20

// fallocate allocates the whole file, leaving what is there and the file's size. Go's own signals
// interrupt it, and tmpfs then starts over from nothing: so, in pieces.
func fallocate(f *os.File, o *ResizeOptions) error {
	for off := int64(0); off < o.Size; {
		if err := o.step(f, off); err != nil {
			return err
		}
		n := min(allocPiece, o.Size-off)
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// writeZeros writes what lies behind byte off.
func writeZeros(f *os.File, off int64, o *ResizeOptions) error {
	zero := make([]byte, 1<<20)
	for first := off; off < o.Size; {
		if (off-first)%allocPiece == 0 {
			if err := o.step(f, off); err != nil {
				return err
			}
		}
		n, err := f.WriteAt(zero[:min(int64(len(zero)), o.Size-off)], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}

// step comes before each piece of an allocation, when done bytes are allocated.
func (o *ResizeOptions) step(f *os.File, done int64) error {
	select {
	case <-o.Cancel:
		return fmt.Errorf("pmem: %s: %w", f.Name(), ErrCancelled)
	default:
	}
	if o.Progress != nil {
		o.Progress(done, o.Size)
	}
	return checkRoom(f, o.Size)
}
