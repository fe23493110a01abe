package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Handle is a region that is open and locked, and not yet mapped. Programs that decide what to do
// with a region by what it is decide by its Handle: a name may lead to another file by the time it
// is used again, a descriptor may not.
//
// States: acquired -> resized (any number of times) -> closed or discarded. Region may be called in
// any state but the last. A Handle is used by one goroutine at a time.
type Handle struct {
	path string
	file *os.File
	mode uint32 // st_mode
	old  int64  // bytes the file had when it was acquired; -1: Acquire made it
	o    Options
}

// Acquire opens the region at path for reading and writing and takes its lock, or fails with
// ErrBusy. With create, a file that does not exist is made, empty.
func Acquire(path string, create bool) (*Handle, error) {
	h := &Handle{path: path, old: -1, o: Options{SysfsRoot: "/sys"}}
	var err error
	if create {
		h.file, err = openFile(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	}
	if !create || errors.Is(err, os.ErrExist) {
		h.file, err = openSource(path, &h.o)
		h.old = 0
	}
	if err != nil {
		return nil, err
	}
	if err := h.settle(); err != nil {
		if h.Created() {
			undoCreate(h.file, h.old)
		}
		h.file.Close() // a file that somebody else has locked is left alone
		return nil, err
	}
	return h, nil
}

// settle takes the lock and notes what the file is.
func (h *Handle) settle() error {
	if err := lock(h.file); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.file.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: h.path, Err: err}
	}
	h.mode = st.Mode
	if h.old >= 0 {
		h.old = st.Size
	}
	return nil
}

// Regular reports whether it is a file, which has a size that can be changed, and not a device.
func (h *Handle) Regular() bool { return h.mode&unix.S_IFMT == unix.S_IFREG }

// Created reports whether Acquire made the file.
func (h *Handle) Created() bool { return h.old < 0 }

// Size is the file's size in bytes at this moment; 0 for a device.
func (h *Handle) Size() int64 { size, _ := h.sizes(); return size }

// Allocated is how many bytes of storage the file has at this moment. It may be called while
// Resize runs.
func (h *Handle) Allocated() int64 { _, allocated := h.sizes(); return allocated }

func (h *Handle) sizes() (size, allocated int64) {
	var st unix.Stat_t
	if unix.Fstat(int(h.file.Fd()), &st) != nil || !h.Regular() {
		return 0, 0
	}
	return st.Size, st.Blocks * 512
}

// ReadAt reads a regular file, which may be too small to be a region.
func (h *Handle) ReadAt(b []byte, off int64) (int, error) { return h.file.ReadAt(b, off) }

// Resize gives a regular file size bytes, a multiple of 4096. Bytes that it had stay, up to the new
// size. Its storage is allocated, unless sparse. After an error the file has the size it had before.
func (h *Handle) Resize(size int64, sparse bool) error {
	if size < pageSize || size%pageSize != 0 {
		return fmt.Errorf("pmem: resize %s: %w: a size of %d bytes was asked for, a multiple of %d was expected", h.path, ErrTooSmall, size, pageSize)
	}
	if size > MaxSize {
		return fmt.Errorf("pmem: resize %s: %w: a size of %d bytes was asked for, the limit is %d (32 TiB)", h.path, ErrTooLarge, size, int64(MaxSize))
	}
	if !h.Regular() {
		return fmt.Errorf("pmem: resize %s: %w: only regular files can be resized", h.path, ErrNotRegion)
	}
	before := h.Size()
	err := allocate(h.file, before, size, sparse)
	if err == nil && size < before { // last: what is cut does not come back
		if err = unix.Ftruncate(int(h.file.Fd()), size); err != nil {
			err = fmt.Errorf("pmem: set the size of %s to %d bytes: %w", h.path, size, err)
		}
	}
	if err != nil {
		if h.Size() > before {
			unix.Ftruncate(int(h.file.Fd()), before)
		}
		return err
	}
	return syncCreated(h.file, h.Created())
}

// Region maps the region. The Region has the lock, too: it is released when both are closed.
func (h *Handle) Region() (*Region, error) {
	fd, err := unix.FcntlInt(h.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: h.path, Err: err}
	}
	return openRegion(os.NewFile(uintptr(fd), h.path), h.path, &h.o)
}

// Close releases the lock, unless a Region has it, and leaves the file as it is.
func (h *Handle) Close() error {
	if err := h.file.Close(); err != nil {
		return fmt.Errorf("pmem: close %s: %w", h.path, err)
	}
	return nil
}

// Discard takes back what was done to the file, and closes: one that Acquire made is removed, one
// that has grown loses what was added. A name that leads to another file meanwhile stays.
func (h *Handle) Discard() {
	undoCreate(h.file, h.old)
	h.file.Close()
}
