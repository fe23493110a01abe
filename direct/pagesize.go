package direct

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// The ioctls that keep an extent size hint, as other filesystems have them, and struct fsxattr:
// FS_XFLAG_*, the hint in bytes, and 20 bytes more.
const (
	iocGetXAttr = 0x801c581f // FS_IOC_FSGETXATTR
	iocSetXAttr = 0x401c5820 // FS_IOC_FSSETXATTR
	xattrSize   = 28

	xflagExtSize        = 0x800  // of a file
	xflagExtSizeInherit = 0x1000 // of a directory
)

// SetPageSize says in pages of which size f will be mapped: 2 MiB, 1 GiB, or 0 for no wish. From
// now on, what is allocated for the file lies where pages of that size can map it, from its first
// block on. What it has already stays where it is until Promote, or a Map in pages of that size.
// New files in a directory inherit the wish. It is the extent size hint of FS_IOC_FSSETXATTR, and
// only the owner of the file, or root, may set it.
func SetPageSize(f *os.File, size int64) error {
	x, dir, err := hint(f)
	if err != nil {
		return err
	}
	flags, own := binary.NativeEndian.Uint32(x)&^(xflagExtSize|xflagExtSizeInherit), uint32(xflagExtSize)
	if dir {
		own = xflagExtSizeInherit
	}
	if size != 0 {
		flags |= own
	}
	if size < 0 || size > math.MaxUint32 {
		return &os.PathError{Op: "set the page size of", Path: f.Name(), Err: unix.EINVAL}
	}
	binary.NativeEndian.PutUint32(x, flags)
	binary.NativeEndian.PutUint32(x[4:], uint32(size))
	err = ioctl(f, iocSetXAttr, x)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("%s cannot have pages of %d bytes: expected 2 MiB, 1 GiB or 0: %w", f.Name(), size, err)
	}
	if err != nil {
		return &os.PathError{Op: "set the page size of", Path: f.Name(), Err: err}
	}
	return nil
}

// PageSize returns what SetPageSize has set; 0: nothing.
func PageSize(f *os.File) (int64, error) {
	x, _, err := hint(f)
	if err != nil || binary.NativeEndian.Uint32(x)&(xflagExtSize|xflagExtSizeInherit) == 0 {
		return 0, err
	}
	return int64(binary.NativeEndian.Uint32(x[4:])), nil
}

// hint returns the struct fsxattr of f, and whether f is a directory.
func hint(f *os.File) (x []byte, dir bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	x = make([]byte, xattrSize)
	if err := ioctl(f, iocGetXAttr, x); errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, false, fmt.Errorf("%w: %s", ErrNotDaxfsd, f.Name())
	} else if err != nil {
		return nil, false, &os.PathError{Op: "read the page size of", Path: f.Name(), Err: err}
	}
	return x, info.IsDir(), nil
}

// Promote moves the blocks of n bytes of f from byte offset off on, so that pages of a size can map
// them, as far as that can be had now: not where the file has holes, or blocks that other files
// share, or that programs map. f must be open for reading. The whole pages in the range are moved;
// to one that has the end of the file belong blocks that were allocated behind the end. It may take
// a second for each GiB.
func Promote(f *os.File, off, n, size int64) error {
	// The grant is never confirmed: it ends with the open file.
	own, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return fmt.Errorf("opening %s again: %w", f.Name(), err)
	}
	defer own.Close()
	lo, end := off&^4095, (off+n+4095)&^4095
	b := make([]byte, protocol.GrantSize)
	(&protocol.GrantRequest{Offset: uint64(lo), Length: uint64(end - lo), PageSize: uint64(size)}).Encode(b)
	switch err := ioctl(own, protocol.IocGrant, b); {
	case err == nil:
		var g protocol.Grant
		return g.Decode(b, &protocol.GrantRequest{Offset: uint64(lo), Length: uint64(end - lo)})
	case errors.Is(err, unix.ENOLCK): // for the grant there is no room; what it asked for is done
		return nil
	case errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("%w: %s", ErrNotDaxfsd, f.Name())
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %s; the mount may have direct=off or dax=never", ErrRefused, f.Name())
	case errors.Is(err, unix.ENXIO):
		return nil // the file ends before
	default:
		return &os.PathError{Op: "ask for a grant of", Path: f.Name(), Err: err}
	}
}
