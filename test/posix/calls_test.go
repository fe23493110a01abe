package posix

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The functions below are calls that most cases make. Names are relative to the case's directory. A
// call without an error result must succeed.

const cwd = unix.AT_FDCWD

// open opens a file. The descriptor is closed at the end of the case.
func (c *ctx) open(name string, flags int, mode ...uint32) int {
	m := uint32(0)
	if len(mode) > 0 {
		m = mode[0]
	}
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, m)
	if err != nil {
		c.fatalf("open %.60q: %v", name, err)
	}
	return c.keep(fd)
}

// keep registers a descriptor to be closed at the end of the case.
func (c *ctx) keep(fd int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fds = append(c.fds, fd)
	return fd
}

// close closes a descriptor before the end of the case.
func (c *ctx) close(fd int) {
	c.mu.Lock()
	for i, f := range c.fds {
		if f == fd {
			c.fds = append(c.fds[:i:i], c.fds[i+1:]...)
			break
		}
	}
	c.mu.Unlock()
	c.do(unix.Close(fd))
}

// try opens and closes a file, and returns the error of open.
func try(name string, flags int, mode ...uint32) error {
	m := uint32(0)
	if len(mode) > 0 {
		m = mode[0]
	}
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, m)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// file creates or truncates a file, writes content, and sets the mode.
func (c *ctx) file(name string, mode uint32, content ...string) {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o600)
	if err != nil {
		c.fatalf("creating %.60q: %v", name, err)
	}
	defer unix.Close(fd)
	for _, s := range content {
		if n, err := unix.Write(fd, []byte(s)); n != len(s) {
			c.fatalf("writing %.60q: %d, %v", name, n, err)
		}
	}
	c.do(unix.Fchmod(fd, mode))
}

// mkdir creates a directory and sets the mode.
func (c *ctx) mkdir(name string, mode uint32) {
	if err := unix.Mkdir(name, 0o700); err != nil {
		c.fatalf("mkdir %.60q: %v", name, err)
	}
	c.do(unix.Chmod(name, mode))
}

func (c *ctx) chown(name string, uid, gid int) { c.do(unix.Lchown(name, uid, gid)) }

func (c *ctx) stat(name string) (st unix.Stat_t) {
	if err := unix.Lstat(name, &st); err != nil {
		c.fatalf("lstat %.60q: %v", name, err)
	}
	return st
}

func (c *ctx) fstat(fd int) (st unix.Stat_t) {
	c.do(unix.Fstat(fd, &st))
	return st
}

// mode returns the permission bits with set-user-ID, set-group-ID and sticky.
func (c *ctx) mode(name string) uint32 { return c.stat(name).Mode & 0o7777 }

func (c *ctx) size(name string) int64 { return c.stat(name).Size }

func (c *ctx) statx(name string) (st unix.Statx_t) {
	c.do(unix.Statx(cwd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st))
	return st
}

func (c *ctx) content(name string) string {
	b, err := os.ReadFile(c.dir + "/" + name)
	if err != nil {
		c.fatalf("%v", err)
	}
	return string(b)
}

func (c *ctx) pread(fd int, n int, off int64) string {
	b := make([]byte, n)
	n, err := unix.Pread(fd, b, off)
	c.do(err)
	return string(b[:n])
}

func (c *ctx) pwrite(fd int, s string, off int64) {
	n, err := unix.Pwrite(fd, []byte(s), off)
	if n != len(s) {
		c.fatalf("pwrite: %d of %d, %v", n, len(s), err)
	}
}

// gone requires that the name does not exist.
func (c *ctx) gone(name string) {
	var st unix.Stat_t
	c.is(unix.Lstat(name, &st), unix.ENOENT, "lstat of %.40q, which is gone", name)
}

// there requires that the name exists.
func (c *ctx) there(name string) {
	var st unix.Stat_t
	c.is(unix.Lstat(name, &st), nil, "lstat of %.40q", name)
}

// tick waits until the kernel's coarse clock has advanced.
func tick() { time.Sleep(12 * time.Millisecond) }

func nano(ts unix.Timespec) int64 { return ts.Nano() }

// An entry is a directory entry of getdents64.
type entry struct {
	ino  uint64
	off  int64
	kind byte
	name string
}

// getdents makes one call with a buffer of size bytes and returns its entries.
func (c *ctx) getdents(fd, size int) (l []entry) {
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	c.do(err)
	for buf = buf[:n]; len(buf) > 0; {
		e := entry{ino: binary.NativeEndian.Uint64(buf), off: int64(binary.NativeEndian.Uint64(buf[8:])), kind: buf[18]}
		rec := binary.NativeEndian.Uint16(buf[16:])
		name := buf[19:rec]
		if i := bytes.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		e.name = string(name)
		l = append(l, e)
		buf = buf[rec:]
	}
	return l
}

// list returns all entries of a directory.
func (c *ctx) list(name string) (all []entry) {
	fd := c.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	defer c.close(fd)
	for {
		l := c.getdents(fd, 32<<10)
		if len(l) == 0 {
			return all
		}
		all = append(all, l...)
	}
}

// names returns the sorted names in a directory without "." and "..", separated by spaces.
func (c *ctx) names(name string) string {
	var l []string
	for _, e := range c.list(name) {
		if e.name != "." && e.name != ".." {
			l = append(l, e.name)
		}
	}
	slices.Sort(l)
	return strings.Join(l, " ")
}

// kinds creates one file of every type and returns their names.
func (c *ctx) kinds() []string {
	c.file("reg", 0o644, "content")
	c.mkdir("dir", 0o755)
	c.do(unix.Symlink("reg", "sym"))
	c.do(unix.Mkfifo("fifo", 0o644))
	c.do(unix.Mknod("sock", unix.S_IFSOCK|0o644, 0))
	c.do(unix.Mknod("chr", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
	c.do(unix.Mknod("blk", unix.S_IFBLK|0o644, int(unix.Mkdev(60, 7))))
	return []string{"reg", "dir", "sym", "fifo", "sock", "chr", "blk"}
}
