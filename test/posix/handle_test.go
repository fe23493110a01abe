package posix

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// byHandle opens a file by its handle.
func (c *ctx) byHandle(h *unix.FileHandle, flags int) (int, error) {
	fd, err := unix.OpenByHandleAt(c.open(".", ro|unix.O_DIRECTORY), *h, flags|unix.O_CLOEXEC)
	if err == nil {
		c.keep(fd)
	}
	return fd, err
}

func (c *ctx) handle(name string) *unix.FileHandle {
	h, _, err := unix.NameToHandleAt(cwd, name, 0)
	c.do(err)
	return &h
}

var handleCases = []testCase{
	{name: "handle/every-kind", run: func(c *ctx) {
		for _, k := range c.kinds() {
			h := c.handle(k)
			flags := unix.O_PATH
			if k == "reg" || k == "dir" {
				flags = ro
			}
			fd, err := c.byHandle(h, flags)
			c.is(err, nil, "open of the handle of %s", k)
			if err == nil {
				eq(c, c.fstat(fd).Ino, c.stat(k).Ino, "inode of %s", k)
			}
			eq(c, string(c.handle(k).Bytes()), string(h.Bytes()), "the handle of %s again", k)
		}
		fd, err := c.byHandle(c.handle("reg"), rw)
		c.do(err)
		eq(c, c.pread(fd, 7, 0), "content", "content")
		_, err = c.byHandle(c.handle("sym"), ro)
		c.is(err, unix.ELOOP, "a symbolic link")
		_, err = c.byHandle(c.handle("dir"), rw)
		c.is(err, unix.EISDIR, "a directory for writing")
	}},
	{name: "handle/survives-rename", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.mkdir("d", 0o755)
		h, hd := c.handle("f"), c.handle("d")
		c.do(unix.Rename("f", "d/g"))
		c.do(unix.Rename("d", "e"))
		fd, err := c.byHandle(h, ro)
		c.is(err, nil, "a file that was renamed")
		if err == nil {
			eq(c, c.pread(fd, 7, 0), "content", "content")
		}
		fd, err = c.byHandle(hd, ro)
		c.is(err, nil, "a directory that was renamed")
		if err == nil {
			var st unix.Stat_t
			c.is(unix.Fstatat(fd, "../e/g", &st, 0), nil, "its ..")
		}
	}},
	{name: "handle/stale", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		h, hd := c.handle("f"), c.handle("d")
		c.do(unix.Unlink("f"))
		c.do(unix.Rmdir("d"))
		_, err := c.byHandle(h, ro)
		c.is(err, unix.ESTALE, "a file that is gone")
		_, err = c.byHandle(hd, ro)
		c.is(err, unix.ESTALE, "a directory that is gone")
		for i := range 200 { // one of them gets its inode number
			c.file(fmt.Sprint(i), 0o644)
		}
		_, err = c.byHandle(h, ro)
		c.is(err, unix.ESTALE, "a file that is gone, its number another's")
		_, err = c.byHandle(hd, ro)
		c.is(err, unix.ESTALE, "a directory that is gone, its number another's")
	}},
	{name: "handle/of-open-unlinked", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		h := c.handle("f")
		fd := c.open("f", ro)
		c.do(unix.Unlink("f"))
		again, err := c.byHandle(h, ro)
		if err != nil { // filesystems differ; both are correct
			c.is(err, unix.ESTALE, "a file without a name that is open")
		} else {
			eq(c, c.fstat(again).Ino, c.fstat(fd).Ino, "inode")
		}
	}},
	{name: "handle/other-type", needs: needsHandleTypes, run: func(c *ctx) {
		c.file("f", 0o644)
		_, err := unix.OpenByHandleAt(c.open(".", ro), unix.NewFileHandle(99, c.handle("f").Bytes()), ro)
		c.is(err, unix.ESTALE, "a handle of another type")
	}},
	{name: "handle/errno", run: func(c *ctx) {
		c.file("f", 0o644)
		h := c.handle("f")
		_, _, err := unix.NameToHandleAt(cwd, "none", 0)
		c.is(err, unix.ENOENT, "of nothing")
		_, _, err = unix.NameToHandleAt(cwd, "f", 0x8)
		c.is(err, unix.EINVAL, "with an unknown flag")
		_, err = unix.OpenByHandleAt(-1, *h, ro)
		c.is(err, unix.EBADF, "open in no filesystem")
		fd := c.open(".", ro)
		c.as(bob, func() {
			_, err := unix.OpenByHandleAt(fd, *h, ro)
			c.is(err, unix.EPERM, "open by a user")
		})
		_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(h.Type(), append(slices.Clone(h.Bytes()[:len(h.Bytes())-1]), 0x5a)), ro)
		c.true(err == nil || err == unix.ESTALE, "open of a handle that was changed: %v", err)
		h2, _, err := unix.NameToHandleAt(c.open("f", unix.O_PATH), "", unix.AT_EMPTY_PATH)
		c.is(err, nil, "AT_EMPTY_PATH")
		eq(c, string(h2.Bytes()), string(h.Bytes()), "the handle")
	}},
}
