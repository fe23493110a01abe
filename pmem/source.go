package pmem

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// source is a region that was recognised and opened, but not mapped.
type source struct {
	file   *os.File
	kind   Kind
	size   int64  // bytes
	align  int64  // mapping granule, bytes
	daxDir string // sysfs directory; KindDevDax only
}

// openSource opens the file at path. It does not open a file that cannot be a region, since opening
// some devices has effects.
func openSource(path string, o *Options) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	if err := checkType(path, &st, o); err != nil {
		return nil, err
	}
	flags := unix.O_RDWR
	if o.ReadOnly {
		flags = unix.O_RDONLY
	}
	f, err := openFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	// The name may lead to another file since.
	if err = unix.Fstat(int(f.Fd()), &st); err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	} else {
		err = checkType(path, &st, o)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// findSource recognises the kind of an open file.
func findSource(f *os.File, o *Options) (source, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return source{}, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if err := checkType(f.Name(), &st, o); err != nil {
		return source{}, err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		return devDaxSource(f, st.Rdev, o)
	}
	return fileSource(f, st.Size, o)
}

// openFile opens without blocking, even if path is a pipe by now.
func openFile(path string, flags int, perm uint32) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, perm)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		unix.SetNonblock(fd, false)
		return os.NewFile(uintptr(fd), path), nil
	}
}

// checkType returns an error for a file that can never be a region. The test's hook may change st
// first.
func checkType(path string, st *unix.Stat_t, o *Options) error {
	if o.hooks.stat != nil {
		o.hooks.stat(st)
	}
	what := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFCHR:
		if _, err := daxDevice(o.SysfsRoot, st.Rdev); err != nil {
			return fmt.Errorf("pmem: %s: %w: %w", path, ErrNotRegion, err)
		}
		return nil
	case unix.S_IFBLK:
		what = "a block device; use a file on a filesystem mounted with -o dax from it, or a device-dax namespace (/dev/daxX.Y)"
	case unix.S_IFDIR:
		what = "a directory; a region is a file or a device-dax node"
	case unix.S_IFSOCK:
		what = "a socket; a region is a file or a device-dax node"
	case unix.S_IFIFO:
		what = "a pipe; a region is a file or a device-dax node"
	default:
		what = fmt.Sprintf("of file type %#o; a region is a file or a device-dax node", st.Mode&unix.S_IFMT)
	}
	return fmt.Errorf("pmem: %s: %w: it is %s", path, ErrNotRegion, what)
}

// fileSource returns the source of a regular file of size bytes, with its kind.
func fileSource(f *os.File, size int64, o *Options) (source, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return source{}, &os.PathError{Op: "statfs", Path: f.Name(), Err: err}
	}
	if o.hooks.statfs != nil {
		o.hooks.statfs(&fs)
	}
	src := source{file: f, align: max(pageSize, int64(os.Getpagesize()))}
	unit := int64(pageSize) // bytes; the mapping's length must be a multiple
	switch uint32(fs.Type) {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		src.kind = KindTmpfs
	case unix.HUGETLBFS_MAGIC:
		src.kind = KindHugetlb
		src.align = max(src.align, int64(fs.Bsize))
		unit = src.align
	default:
		dax, err := acceptsMapSync(f, size, o)
		if err != nil {
			return source{}, err
		}
		src.kind = KindFile
		if dax {
			src.kind, src.align = KindFSDax, max(src.align, 2<<20)
		}
	}
	src.size = size &^ (unit - 1)
	if size == 0 {
		return source{}, fmt.Errorf("pmem: %s: %w, at least %d were expected", f.Name(), ErrEmpty, unit)
	}
	if src.size == 0 {
		return source{}, fmt.Errorf("pmem: %s: %w: it has %d bytes, at least %d were expected", f.Name(), ErrTooSmall, size, unit)
	}
	return src, checkMaxSize(f, src.size)
}

// checkMaxSize refuses a region whose size in bytes is too large to map.
func checkMaxSize(f *os.File, size int64) error {
	if size > MaxSize {
		return fmt.Errorf("pmem: %s: %w: it has %d bytes, the limit is %d (32 TiB)", f.Name(), ErrTooLarge, size, int64(MaxSize))
	}
	if int64(int(size)) != size {
		return fmt.Errorf("pmem: %s: %w: its %d bytes do not fit this machine's addresses", f.Name(), ErrTooLarge, size)
	}
	return nil
}

// acceptsMapSync reports whether the file can be mapped with MAP_SYNC, by mapping one page. The
// kernel accepts MAP_SYNC only where the file's own memory is mapped and every fault leaves the
// file's metadata durable.
func acceptsMapSync(f *os.File, size int64, o *Options) (bool, error) {
	if size < pageSize {
		return false, nil
	}
	try := tryMapSync
	if o.hooks.mapSync != nil {
		try = o.hooks.mapSync
	}
	err := try(int(f.Fd()))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		return false, nil
	}
	return false, fmt.Errorf("pmem: map %s: %w", f.Name(), err)
}

func tryMapSync(fd int) error {
	b, err := unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
	if err != nil {
		return err
	}
	return unix.Munmap(b)
}
