package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Create makes the file at path an emulated region of size bytes, a multiple of 4096, or extends an
// existing file to that size. The content of an existing file stays. A larger file is refused with
// ErrWouldShrink, a file in use with ErrBusy.
//
// Create allocates the file's storage, so that a store never finds the disk full (which would be a
// SIGBUS). With sparse, it does not. After an error, an existing file has its old size, and a new
// file is gone.
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

// allocate allocates the storage of a file that has old bytes, and grows the file to o.Size.
func allocate(f *os.File, old int64, o *ResizeOptions) error {
	fd := int(f.Fd())
	if err := checkFileLimit(f, o.Size); err != nil {
		return err
	}
	if !o.Sparse {
		err := fallocate(f, o)
		if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
			// This filesystem cannot allocate: write the new bytes. Holes before them stay, since
			// filling them could destroy data next to them.
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

// allocPiece is how many bytes are allocated between two checks of the room, since others take
// memory, too.
const allocPiece = 256 << 20

// fallocate allocates the whole file, and changes neither its content nor its size. It works in
// pieces: Go's own signals interrupt fallocate(2), and tmpfs then starts over from the beginning.
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

// writeZeros writes zeros from byte off to o.Size.
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

// step is called before each piece of an allocation, when done bytes are allocated. It reports
// progress, and checks for Cancel and for room.
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
