package posix

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var tmpfileCases = []testCase{
	{name: "tmpfile/link", run: func(c *ctx) {
		fd := c.open(".", unix.O_TMPFILE|rw, 0o640)
		st := c.fstat(fd)
		eq(c, st.Nlink, 0, "links")
		c.oct(st.Mode, unix.S_IFREG|0o640, "O_TMPFILE")
		eq(c, c.names("."), "", "the directory")
		c.pwrite(fd, "content", 0)
		c.is(unix.Linkat(cwd, fmt.Sprintf("/proc/thread-self/fd/%d", fd), cwd, "f", unix.AT_SYMLINK_FOLLOW), nil, "linkat by /proc")
		eq(c, c.content("f"), "content", "content")
		eq(c, c.fstat(fd).Nlink, 1, "links")
		c.is(unix.Linkat(fd, "", cwd, "g", unix.AT_EMPTY_PATH), nil, "linkat AT_EMPTY_PATH by root")
		eq(c, c.stat("g").Nlink, 2, "links")
		c.is(unix.Linkat(fd, "", cwd, "g", unix.AT_EMPTY_PATH), unix.EEXIST, "over a name")
	}},
	{name: "tmpfile/excl", run: func(c *ctx) {
		fd := c.open(".", unix.O_TMPFILE|unix.O_EXCL|rw, 0o640)
		c.is(unix.Linkat(cwd, fmt.Sprintf("/proc/thread-self/fd/%d", fd), cwd, "f", unix.AT_SYMLINK_FOLLOW), unix.ENOENT, "linkat")
		c.gone("f")
	}},
	{name: "tmpfile/errno", run: func(c *ctx) {
		c.file("f", 0o644)
		c.is(try(".", unix.O_TMPFILE|ro, 0o644), unix.EINVAL, "for reading only")
		c.is(try("f", unix.O_TMPFILE|rw, 0o644), unix.ENOTDIR, "in a file")
		c.is(try("none", unix.O_TMPFILE|rw, 0o644), unix.ENOENT, "in nothing")
		c.is(try(".", unix.O_TMPFILE|wo, 0o644), nil, "for writing only")
		c.is(try(".", unix.O_TMPFILE|rw|unix.O_CREAT, 0o644), unix.EINVAL, "with O_CREAT")
	}},
	{name: "tmpfile/atomic-write", run: func(c *ctx) {
		c.file("f", 0o600, "old")
		fd := c.open(".", unix.O_TMPFILE|rw, 0o644)
		c.pwrite(fd, "new", 0)
		c.do(unix.Fchown(fd, 5, 6))
		c.do(unix.Fsetxattr(fd, "user.a", []byte("v"), 0))
		c.do(unix.Linkat(cwd, fmt.Sprintf("/proc/thread-self/fd/%d", fd), cwd, "t", unix.AT_SYMLINK_FOLLOW))
		c.do(unix.Rename("t", "f"))
		eq(c, c.content("f"), "new", "content")
		eq(c, c.stat("f").Uid, 5, "owner")
		eq(c, c.getxattr("f", "user.a"), "v", "attribute")
	}},
	{name: "tmpfile/many", run: func(c *ctx) {
		for i := range 200 {
			fd := c.open(".", unix.O_TMPFILE|rw, 0o640)
			c.pwrite(fd, strings.Repeat("x", i*100), 0)
			if i%2 == 0 {
				c.close(fd)
			}
		}
		eq(c, c.names("."), "", "the directory")
	}},
}
