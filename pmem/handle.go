package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Handle is a region that is open and locked but not yet mapped. Programs that decide what to do
// with a region decide by its Handle: a name may lead to another file when it is used again, a
// descriptor may not. It is a Content.
//
// States: acquired -> resized (at most once) -> kept (Keep) -> closed. Close from any other state
// undoes the changes to the file. Region may be called in any state but the last. A Handle is used
// by one goroutine at a time.
//
//   - A file that Acquire makes has no name before Keep, so nothing is left of it however the
//     process ends. On a filesystem without O_TMPFILE it has its name at once, and SIGKILL leaves
//     it.
//   - A file that grows has its new size after Resize, and its old size again if it is not kept.
//   - A file that shrinks is cut by Keep; until then a Region has the larger size.
type Handle struct {
	path string
	file *os.File
	made *madeFile // nil: the file existed
	mode uint32    // st_mode
	old  int64     // size in bytes when it was acquired
	size int64     // size in bytes that Keep leaves
	kept bool
	o    Options
}

// Acquire opens the region at path for reading and writing, and takes its lock; it fails with
// ErrBusy if the region is locked. With create, it makes an empty file if none exists.
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

// Regular reports whether the region is a file, whose size can be changed, and not a device.
func (h *Handle) Regular() bool { return h.mode&unix.S_IFMT == unix.S_IFREG }

// Size returns the size in bytes that the file had when it was acquired; 0 for a device.
func (h *Handle) Size() int64 { return h.old }

// Load is Content.Load of a regular file, which may be too small to be a region.
func (h *Handle) Load(off int64, b []byte) error {
	_, err := h.file.ReadAt(b, off)
	return err
}

// NextData is Content.NextData.
func (h *Handle) NextData(off int64) (lo, hi int64) { return nextData(h.file, off, h.old) }

// ResizeOptions are the options of Resize.
type ResizeOptions struct {
	Size   int64 // bytes
	Sparse bool  // storage is allocated only by stores to it; on a full disk that store is ErrMedia
	// Progress, if not nil, is called with how many of total bytes of storage are allocated.
	Progress func(done, total int64)
	// Cancel, if not nil, ends Resize with ErrCancelled when it is closed.
	Cancel <-chan struct{}
}

// Resize gives a regular file its storage and a size, a multiple of 4096 or the file's present
// size. The file's bytes stay, up to the new size. After an error the file has its old size, but
// holes in it may have been allocated.
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

// Region maps the region. The Region shares the lock, which is released when both are closed.
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

// Keep makes the changes to the file permanent: it cuts the file to its new size, and gives a new
// file its name. It also syncs the stores of a Region of the file. Afterwards, a Region that is
// larger than the file may only be closed.
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

// Close releases the lock, unless a Region shares it. If the file was not kept, Close undoes the
// changes: it removes a file that Acquire made, and cuts a file that has grown to its old size.
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

// undo restores the file's old size, and frees storage that Resize allocated beyond it.
func (h *Handle) undo() {
	if h.size > h.old {
		unix.Ftruncate(int(h.file.Fd()), h.old)
	}
	h.size = h.old
}
