package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Handle is a region that is open and locked, and not yet mapped. Programs that decide what to do
// with a region by what it is decide by its Handle: a name may lead to another file by the time it
// is used again, a descriptor may not. It is a Content.
//
// States: acquired -> resized (at most once) -> kept (Keep) -> closed; Close from any other state
// undoes what was done to the file. Region may be called in any state but the last. A Handle is
// used by one goroutine at a time.
//
//   - A file that Acquire makes has no name before Keep, so nothing is left of it whatever ends the
//     process. Where its filesystem has no O_TMPFILE it has its name, and SIGKILL leaves it.
//   - A file that grows has its new size after Resize, and its old one again if it is not kept.
//   - A file that is cut is cut by Keep; until then a Region has the larger size.
type Handle struct {
	path string
	file *os.File
	made *madeFile // nil: the file was there
	mode uint32    // st_mode
	old  int64     // bytes the file had when it was acquired
	size int64     // bytes it is to have
	kept bool
	o    Options
}

// Acquire opens the region at path for reading and writing and takes its lock, or fails with
// ErrBusy. With create, a file that does not exist is made, empty.
func Acquire(path string, create bool) (*Handle, error) { return acquire(path, create, hooks{}) }

func acquire(path string, create bool, k hooks) (*Handle, error) {
	h := &Handle{path: path, o: Options{SysfsRoot: "/sys", hooks: k}}
	var err error
	h.file, err = openSource(path, &h.o)
	if create && errors.Is(err, os.ErrNotExist) {
		h.file, h.made, err = makeFile(path, !k.noTmpfile)
	}
	if err != nil {
		return nil, err
	}
	if err := lock(h.file); err != nil {
		h.Close()
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.file.Fd()), &st); err != nil {
		h.Close()
		return nil, &os.PathError{Op: "stat", Path: h.path, Err: err}
	}
	h.mode, h.old, h.size = st.Mode, st.Size, st.Size
	return h, nil
}

// Regular reports whether it is a file, which has a size that can be changed, and not a device.
func (h *Handle) Regular() bool { return h.mode&unix.S_IFMT == unix.S_IFREG }

// Size is the size in bytes that the file had when it was acquired; 0 for a device.
func (h *Handle) Size() int64 { return h.old }

// Load reads a regular file, which may be too small to be a region.
func (h *Handle) Load(off int64, b []byte) error {
	_, err := h.file.ReadAt(b, off)
	return err
}

// NextData makes a Handle a Content.
func (h *Handle) NextData(off int64) (lo, hi int64) { return nextData(h.file, off, h.old) }

// ResizeOptions of Resize.
type ResizeOptions struct {
	Size   int64 // bytes
	Sparse bool  // storage is not allocated before it is stored to; on a full disk that is ErrMedia
	// Progress, if not nil, is told how many bytes of the storage are allocated, of how many.
	Progress func(done, total int64)
	// Cancel, if not nil, ends Resize with ErrCancelled when it is closed.
	Cancel <-chan struct{}
}

// Resize gives a regular file a size, which is a multiple of 4096 unless it is that of the file,
// and storage. Bytes that it had stay, up to the new size. After an error the file has the size it
// had before; holes in it may have been allocated.
func (h *Handle) Resize(o ResizeOptions) error {
	if o.Size < pageSize || o.Size%pageSize != 0 && o.Size != h.old {
		return fmt.Errorf("pmem: resize %s: %w: a size of %d bytes was asked for, a multiple of %d was expected", h.path, ErrTooSmall, o.Size, pageSize)
	}
	if o.Size > MaxSize {
		return fmt.Errorf("pmem: resize %s: %w: a size of %d bytes was asked for, the limit is %d (32 TiB)", h.path, ErrTooLarge, o.Size, int64(MaxSize))
	}
	if !h.Regular() {
		return fmt.Errorf("pmem: resize %s: %w: only regular files can be resized", h.path, ErrNotRegion)
	}
	h.size = o.Size
	if err := allocate(h.file, h.old, &o); err != nil {
		h.undo()
		return err
	}
	return nil
}

// Region maps the region. The Region has the lock, too: it is released when both are closed.
func (h *Handle) Region() (*Region, error) {
	fd, err := unix.FcntlInt(h.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: h.path, Err: err}
	}
	r, err := openRegion(os.NewFile(uintptr(fd), h.path), h.path, &h.o)
	if err == nil {
		r.locked = true
	}
	return r, err
}

// Keep makes what was done to a file stay: it is cut to its new size, and gets its name if it is
// new. What a Region of it stored is synced before. A Region that is larger than the file now may
// only be closed.
//
// Persistence order:
//  1. the file's size and content, fsync
//  2. its name, if it is new; fsync of the directory
func (h *Handle) Keep() error {
	if !h.Regular() || h.kept {
		return nil
	}
	if h.size < h.old {
		if err := unix.Ftruncate(int(h.file.Fd()), h.size); err != nil {
			return fmt.Errorf("pmem: set the size of %s to %d bytes: %w", h.path, h.size, err)
		}
	}
	if err := h.file.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("pmem: sync %s: %w", h.path, err)
	}
	if h.made != nil {
		if err := h.made.link(h.file); err != nil {
			return &os.PathError{Op: "create", Path: h.path, Err: err}
		}
		if err := h.made.syncDir(); err != nil {
			return fmt.Errorf("pmem: sync the directory of %s: %w", h.path, err)
		}
	}
	h.kept = true
	return nil
}

// Close releases the lock, unless a Region has it. If the file was not kept, what was done to it is
// undone: one that Acquire made is removed, one that has grown loses what was added.
func (h *Handle) Close() error {
	if !h.kept {
		h.undo()
		if h.made != nil {
			h.made.unlink(h.file)
		}
	}
	if h.made != nil {
		h.made.dir.Close()
	}
	if err := h.file.Close(); err != nil {
		return fmt.Errorf("pmem: close %s: %w", h.path, err)
	}
	return nil
}

// undo takes from a file what Resize added, also what it allocated behind the end.
func (h *Handle) undo() {
	if h.size > h.old {
		unix.Ftruncate(int(h.file.Fd()), h.old)
	}
	h.size = h.old
}
