package pmem

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// madeFile is the directory and the name of a file that makeFile made.
//
// States: unnamed -> named. On a filesystem without O_TMPFILE it begins as named.
type madeFile struct {
	dir   *os.File // O_PATH
	base  string
	named bool
}

// makeFile makes a file that does not exist. With tmpfile, the file has no name if the filesystem
// can do that.
func makeFile(path string, tmpfile bool) (f *os.File, m *madeFile, err error) {
	name := filepath.Dir(path)
	dir, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	m = &madeFile{dir: os.NewFile(uintptr(dir), name), base: filepath.Base(path)}
	fail := func(err error) (*os.File, *madeFile, error) {
		m.dir.Close()
		return nil, nil, &os.PathError{Op: "create", Path: path, Err: err}
	}
	var st unix.Stat_t
	if unix.Fstatat(dir, m.base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return fail(unix.ENOENT) // a dangling symbolic link
	}
	const flags = unix.O_RDWR | unix.O_CLOEXEC
	fd, err := -1, error(unix.EOPNOTSUPP)
	if tmpfile {
		fd, err = unix.Openat(dir, ".", flags|unix.O_TMPFILE, 0o600)
	}
	if err == unix.EOPNOTSUPP || err == unix.EISDIR || err == unix.EINVAL {
		m.named = true
		fd, err = unix.Openat(dir, m.base, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	}
	if err != nil {
		return fail(err)
	}
	return os.NewFile(uintptr(fd), path), m, nil
}

// link gives f its name. It fails if another file has that name by now.
func (m *madeFile) link(f *os.File) error {
	if m.named {
		return nil
	}
	fd, dir := int(f.Fd()), int(m.dir.Fd())
	err := unix.Linkat(fd, "", dir, m.base, unix.AT_EMPTY_PATH) // before Linux 6.10 for root only
	if err == unix.ENOENT || err == unix.EPERM {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, m.base, unix.AT_SYMLINK_FOLLOW)
	}
	m.named = err == nil
	return err
}

// unlink removes the name, unless it leads to another file by now.
func (m *madeFile) unlink(f *os.File) {
	var mine, named unix.Stat_t
	if m.named && unix.Fstat(int(f.Fd()), &mine) == nil &&
		unix.Fstatat(int(m.dir.Fd()), m.base, &named, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		named.Dev == mine.Dev && named.Ino == mine.Ino {
		unix.Unlinkat(int(m.dir.Fd()), m.base, 0)
	}
}

// syncDir makes the name durable. It does nothing if the directory may not be read, since it cannot
// be synced then.
func (m *madeFile) syncDir() error {
	fd, err := unix.Openat(int(m.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	if err := unix.Fsync(fd); err != nil && err != unix.EINVAL {
		return err
	}
	return nil
}
