package races

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	page = 4096
	slot = 512 // bytes of the page that one operation changes: the smallest O_DIRECT request to a loop device
)

// race is one file on which two operations race.
type race struct {
	name   string
	fd     int // O_RDWR
	app    int // O_RDWR|O_APPEND
	direct int // O_RDWR|O_DIRECT
	other  int // descriptor of a file to copy from
	copied int // descriptor of a file to copy to
	m      []byte
	size   int64 // bytes when the race begins
	async  bool  // AIO and io_uring use the O_DIRECT descriptor
}

func open(name string, flags int) (int, error) {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// newRace creates the file with size bytes of zeros, and maps two pages of it.
func newRace(name string, size int64) (r *race, err error) {
	r = &race{name: name, size: size, fd: -1, app: -1, direct: -1, other: -1, copied: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if err := unix.Unlink(name); err != nil && err != unix.ENOENT {
		return r, err
	}
	if r.fd, err = open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != nil {
		return r, err
	}
	if _, err = unix.Pwrite(r.fd, make([]byte, size), 0); err != nil {
		return r, err
	}
	if r.app, err = open(name, unix.O_RDWR|unix.O_APPEND); err != nil {
		return r, err
	}
	if r.direct, err = open(name, unix.O_RDWR|unix.O_DIRECT); err != nil {
		return r, err
	}
	if r.other, err = open(name+".other", unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC); err != nil {
		return r, err
	}
	if r.copied, err = open(name+".copied", unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC); err != nil {
		return r, err
	}
	if _, err = unix.Pwrite(r.other, make([]byte, page), 0); err != nil {
		return r, err
	}
	r.m, err = unix.Mmap(r.fd, 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return r, err
}

func (r *race) close() {
	if r.m != nil {
		_ = unix.Munmap(r.m)
		r.m = nil
	}
	for _, fd := range []*int{&r.fd, &r.app, &r.direct, &r.other, &r.copied} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// contents returns the file's first two pages as read in each way, the last time after all
// descriptors were closed. It closes the race.
func (r *race) contents() (map[string][]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return nil, err
	}
	n := min(st.Size, 2*page)
	all := map[string][]byte{"the mapping": bytes.Clone(r.m[:n])}
	read := func(what string, fd int, b []byte) error {
		k, err := unix.Pread(fd, b, 0)
		if err == nil && k < int(n) {
			err = fmt.Errorf("%d bytes of %d", k, n)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		all[what] = b[:n]
		return nil
	}
	if err := read("read", r.fd, make([]byte, 2*page)); err != nil {
		return nil, err
	}
	if err := read("O_DIRECT", r.direct, aligned(2*page)); err != nil {
		return nil, err
	}
	if err := unix.Fsync(r.fd); err != nil {
		return nil, err
	}
	r.close()
	fd, err := open(r.name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// Drop the cached pages, so that the filesystem's own bytes are read.
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return nil, err
	}
	return all, read("another open", fd, make([]byte, 2*page))
}

func word(b []byte, off int64) uint64 {
	if off+8 > int64(len(b)) {
		return 0
	}
	return binary.NativeEndian.Uint64(b[off:])
}

// filled fills b with words of v and returns it.
func filled(b []byte, v uint64) []byte {
	for i := 0; i < len(b); i += 8 {
		binary.NativeEndian.PutUint64(b[i:], v)
	}
	return b
}

// progress counts the changes of a changing operation.
type progress struct {
	begun, done atomic.Uint64 // changes that have begun, and that have returned
}
