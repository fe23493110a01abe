package pmem

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mapper is a region that another process has mounted, and of which this process maps parts. It
// holds a descriptor that leads to the region whatever its name is, and takes no lock.
type Mapper struct {
	base  *os.File
	kind  Kind
	size  int64 // bytes
	align int64 // mapping granule, bytes
}

// Identity is what the process that has mounted a region says about it.
type Identity struct {
	FileID
	Size    int64  // of the region, bytes
	Granule int64  // of its mappings, bytes
	Path    string // a hint; the region may have another name for this process
}

// OpenMapper opens the region with the given identity. It tries the path of the identity, and for a
// device its ordinary name in /dev. Its errors wrap ErrNotRegion if neither leads there, or the
// error of open(2). write opens it for mappings to write, too.
func OpenMapper(id Identity, write bool) (*Mapper, error) {
	path, err := findRegion(id)
	if err != nil {
		return nil, err
	}
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	f, err := openFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	m := &Mapper{base: f, kind: KindDevDax, size: id.Size, align: id.Granule}
	var st unix.Stat_t
	switch err = unix.Fstat(int(f.Fd()), &st); {
	case err != nil:
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	case !id.is(&st): // the name leads to another file since
		err = id.notAt(path)
	case id.Ino != 0:
		var src source
		if src, err = fileSource(f, st.Size, new(Options)); err == nil {
			m.kind, m.align = src.kind, max(m.align, src.align)
			if src.size < id.Size {
				err = fmt.Errorf("pmem: %s: %w: it has %d bytes, %d were expected", path, ErrTruncated, src.size, id.Size)
			}
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// is reports whether st describes the region.
func (id *Identity) is(st *unix.Stat_t) bool {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return id.Ino == 0 && uint64(st.Rdev) == id.Dev
	case unix.S_IFREG:
		return id.Ino != 0 && st.Ino == id.Ino && uint64(st.Dev) == id.Dev
	}
	return false
}

func (id *Identity) notAt(path string) error {
	return fmt.Errorf("pmem: %s: %w: the region is %s, which this name does not lead to", path, ErrNotRegion, id.String())
}

// String describes the region in words.
func (id *Identity) String() string {
	if id.Ino == 0 {
		return fmt.Sprintf("the device %d:%d", unix.Major(id.Dev), unix.Minor(id.Dev))
	}
	return fmt.Sprintf("inode %d of device %d:%d", id.Ino, unix.Major(id.Dev), unix.Minor(id.Dev))
}

// findRegion returns a name of the region.
func findRegion(id Identity) (string, error) {
	names := []string{id.Path}
	if id.Ino == 0 {
		link := fmt.Sprintf("/sys/dev/char/%d:%d", unix.Major(id.Dev), unix.Minor(id.Dev))
		if dir, err := os.Readlink(link); err == nil {
			names = append(names, filepath.Join("/dev", filepath.Base(dir)))
		}
	}
	err := id.notAt(id.Path)
	for _, name := range names {
		var st unix.Stat_t
		switch e := unix.Stat(name, &st); {
		case e == nil && id.is(&st):
			return name, nil
		case e != nil && !errors.Is(e, unix.ENOENT):
			err = &os.PathError{Op: "open", Path: name, Err: e}
		}
	}
	return "", err
}

// Open opens the region once more: a new open file description, for the locks and mappings of one
// lease. With write it can be mapped for writing.
func (m *Mapper) Open(write bool) (*os.File, error) {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	f, err := openFile(fmt.Sprintf("/proc/self/fd/%d", m.base.Fd()), flags, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	if f, err = openFile(m.base.Name(), flags, 0); err != nil {
		return nil, err
	}
	// Without /proc by its name, which may lead to another file by now.
	var was, is unix.Stat_t
	err = unix.Fstat(int(m.base.Fd()), &was)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &is)
	}
	if err == nil && (was.Dev != is.Dev || was.Ino != is.Ino) {
		err = ErrNotRegion
	}
	if err != nil {
		f.Close()
		return nil, &os.PathError{Op: "open", Path: m.base.Name(), Err: err}
	}
	return f, nil
}

// Path returns the name by which the region was opened.
func (m *Mapper) Path() string { return m.base.Name() }

// Kind returns the kind of memory that the region is in.
func (m *Mapper) Kind() Kind { return m.kind }

// Size returns the size of the region in bytes.
func (m *Mapper) Size() int64 { return m.size }

// Align returns the mapping granule in bytes, see Region.Align.
func (m *Mapper) Align() int64 { return m.align }

// Close closes the descriptor. Descriptors that Open returned, and Windows, stay.
func (m *Mapper) Close() error { return m.base.Close() }
