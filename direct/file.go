package direct

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// File is an open file of a daxfsd mount, which is read and written by copying, directly where
// possible. All methods may be called from several goroutines at once.
type File struct {
	conn      *conn
	readers   *table // immutable; nil: the file is not open for reading
	writers   *table // immutable; nil: not for writing
	appending bool   // immutable: O_APPEND
	closed    atomic.Bool
	normal    atomic.Int64 // calls that took the normal way
}

// Open returns a File for f, an open file of a daxfsd mount, which the caller may close at once. It
// refuses in one sentence if nothing of the file could be done directly: ErrNotDaxfsd, ErrVersion,
// ErrRefused, ErrRegion. What is left then is f itself.
//
// A File opened for writing may turn out not to be writable directly, because this process may only
// read the region, say: WriteAt then goes the normal way.
func Open(f *os.File) (*File, error) { return open(f, nil) }

// open is Open with another way to send ioctls, in tests.
func open(f *os.File, send func(cmd uint, arg []byte) error) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrRefused, f.Name())
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return nil, &os.PathError{Op: "fcntl", Path: f.Name(), Err: err}
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "dup", Path: f.Name(), Err: err}
	}
	c := &conn{file: os.NewFile(uintptr(fd), f.Name()), ioctl: send}
	if send == nil {
		c.ioctl = func(cmd uint, arg []byte) error { return ioctl(c.file, cmd, arg) }
	}
	c.users.Store(1)
	d := &File{conn: c, appending: flags&unix.O_APPEND != 0}
	mode := flags & unix.O_ACCMODE
	if mode != unix.O_WRONLY {
		d.readers = newTable(c, 0)
	}
	if mode != unix.O_RDONLY {
		d.writers = newTable(c, protocol.Write)
	}
	if err := d.probe(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// beyond is behind the end of every file, in bytes.
const beyond = 1<<44 - 4096

// probe asks whether the mount makes grants of the file at all, and whether this process may open
// the region. It keeps no lease, which would keep the file's blocks from being moved for large
// pages.
func (f *File) probe() error {
	q := protocol.GrantRequest{Length: 4096}
	if f.readers == nil { // a grant to write would change the file, so it is asked for beyond the end
		q.Flags, q.Offset = protocol.Write, beyond
	}
	g, err := f.conn.grant(&q)
	if err == nil {
		_, err = f.conn.mapper(g)
		_ = f.conn.command(protocol.IocRelease, protocol.Command{ID: g.ID})
	}
	// Nothing there yet, or no room now: it may be different later.
	if errors.Is(err, ErrRange) || errors.Is(err, ErrBudget) || errors.Is(err, ErrChanging) {
		return nil
	}
	return err
}

func (f *File) closedError(op string) error {
	return &os.PathError{Op: op, Path: f.Name(), Err: os.ErrClosed}
}

// Name returns the name of the file as it was opened.
func (f *File) Name() string { return f.conn.file.Name() }

// ReadAt reads len(p) bytes from byte offset off, as os.File.ReadAt does: n < len(p) only with an
// error, which at the end of the file is io.EOF. Holes are zeros. It allocates nothing.
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if f.closed.Load() {
		return 0, f.closedError("read")
	}
	if f.readers == nil || off < 0 {
		return f.conn.file.ReadAt(p, off) // which has the error
	}
	for n < len(p) {
		w := f.readers.find(off+int64(n), int64(len(p)-n))
		if w == nil && f.readers.beyondEnd(off+int64(n)) {
			return n, io.EOF
		}
		if w == nil {
			w = f.readers.open(off + int64(n))
		}
		if w == nil {
			k, err := f.readNormally(p[n:], off+int64(n))
			return n + k, err
		}
		k, fresh, err := w.read(p[n:], off+int64(n))
		w.put()
		switch {
		case err != nil: // a fault: the daemon records it, and has the right error
			k, err = f.readNormally(p[n:], off+int64(n))
			return n + k, err
		case !fresh:
			f.readers.stale(w)
			k, err = f.retryRead(p[n:], off+int64(n))
			if err != nil {
				return n + k, err
			}
		case k == 0:
			return n, io.EOF
		}
		n += k
	}
	return n, nil
}

// retryRead reads after a window was stale: from another one, else the normal way. n may be less
// than len(p) without an error.
func (f *File) retryRead(p []byte, off int64) (n int, err error) {
	if w := f.readers.open(off); w != nil {
		n, fresh, err := w.read(p, off)
		w.put()
		if fresh && err == nil && n > 0 {
			return n, nil
		}
	}
	return f.readNormally(p, off)
}

func (f *File) readNormally(p []byte, off int64) (int, error) {
	f.normal.Add(1)
	return f.conn.file.ReadAt(p, off)
}

// WriteAt writes len(p) bytes at byte offset off, as os.File.WriteAt does. It is durable when it
// returns. It allocates nothing where the file has blocks and does not grow.
func (f *File) WriteAt(p []byte, off int64) (n int, err error) {
	if f.closed.Load() {
		return 0, f.closedError("write")
	}
	if f.writers == nil || off < 0 || f.appending {
		return f.conn.file.WriteAt(p, off)
	}
	for tries := 0; n < len(p); {
		w := f.writers.find(off+int64(n), 0)
		if w == nil && tries < 2 && !f.writers.beyondEnd(off+int64(n)) {
			tries++
			w = f.writers.open(off + int64(n))
		}
		if w == nil {
			break
		}
		k, fresh, err := w.write(p[n:], off+int64(n))
		w.put()
		if !fresh {
			f.writers.stale(w)
			continue
		}
		if err != nil || k == 0 {
			break
		}
		n += k
	}
	if n < len(p) {
		f.normal.Add(1)
		k, err := f.conn.file.WriteAt(p[n:], off+int64(n))
		return n + k, err
	}
	return n, nil
}

// Normal returns how many calls of ReadAt and WriteAt have gone the normal way, with a system call.
func (f *File) Normal() int64 { return f.normal.Load() }

// Size returns the size of the file in bytes.
func (f *File) Size() (int64, error) {
	if f.readers != nil {
		if w := f.readers.find(0, 0); w != nil {
			size, fresh, err := w.look()
			w.put()
			if fresh && err == nil {
				return size, nil
			}
		}
	}
	info, err := f.conn.file.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Truncate changes the size of the file to size bytes. What it gains is a hole.
func (f *File) Truncate(size int64) error { return f.conn.file.Truncate(size) }

// Grow makes the file at least size bytes long, and gives it blocks: WriteAt and Map can then use
// what it has gained, which reads as zeros.
func (f *File) Grow(size int64) error {
	has, err := f.Size()
	if err != nil || has >= size {
		return err
	}
	c, err := f.conn.file.SyscallConn()
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) {
		for {
			if err = unix.Fallocate(int(fd), 0, has, size-has); err != unix.EINTR {
				return
			}
		}
	}); e != nil {
		return e
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

// Sync tells the daemon what was stored, so that the file's times change and programs that map the
// file through the mount see it, and then does as fsync(2): on a region in an ordinary file, it
// writes the file's bytes to the disk.
func (f *File) Sync() error {
	var err error
	if f.writers != nil {
		err = f.writers.commit()
	}
	return errors.Join(err, f.conn.file.Sync())
}

// Close ends direct access, and tells the daemon what was stored. Mappings of the file stay.
func (f *File) Close() error {
	if f.closed.Swap(true) {
		return f.closedError("close")
	}
	var err error
	if f.writers != nil {
		err = f.writers.commit()
		f.writers.close()
	}
	if f.readers != nil {
		f.readers.close()
	}
	f.conn.put()
	return err
}
