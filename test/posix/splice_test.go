package posix

import (
	"strings"

	"golang.org/x/sys/unix"
)

var spliceCases = []testCase{
	{name: "splice/to-and-from-a-pipe", run: func(c *ctx) {
		src := patterned(50000)
		c.file("a", 0o644, src)
		c.file("b", 0o644)
		var p [2]int
		c.do(unix.Pipe2(p[:], unix.O_CLOEXEC))
		c.keep(p[0])
		c.keep(p[1])
		a, b := c.open("a", ro), c.open("b", wo)
		for total := 0; total < len(src); {
			n, err := unix.Splice(a, nil, p[1], nil, 30000, 0)
			c.do(err)
			if n == 0 {
				break
			}
			for left := int(n); left > 0; {
				m, err := unix.Splice(p[0], nil, b, nil, left, unix.SPLICE_F_MOVE)
				c.do(err)
				left -= int(m)
			}
			total += int(n)
		}
		c.true(c.content("b") == src, "content")
		off := int64(40000)
		n, err := unix.Splice(a, &off, p[1], nil, 100, 0)
		c.is(err, nil, "with an offset")
		eq(c, int(n), 100, "bytes")
		eq(c, off, 40100, "offset")
		_, err = unix.Splice(a, nil, b, nil, 10, 0)
		c.is(err, unix.EINVAL, "without a pipe")
		_, err = unix.Splice(p[0], nil, c.open("b", wo|unix.O_APPEND), nil, 10, 0)
		c.is(err, unix.EINVAL, "to a descriptor for appending")
		_, err = unix.Splice(p[0], nil, c.open("b", ro), nil, 10, 0)
		c.is(err, unix.EBADF, "to a descriptor for reading")
	}},
	{name: "splice/what-was-spliced-does-not-change", run: func(c *ctx) {
		c.file("a", 0o644, strings.Repeat("0", 8192))
		var p [2]int
		c.do(unix.Pipe2(p[:], unix.O_CLOEXEC))
		c.keep(p[0])
		c.keep(p[1])
		_, err := unix.Splice(c.open("a", ro), nil, p[1], nil, 4096, 0)
		c.do(err)
		c.do(unix.Unlink("a"))
		b := make([]byte, 4096)
		n, err := unix.Read(p[0], b)
		c.do(err)
		c.true(string(b[:n]) == strings.Repeat("0", 4096), "content after the file is gone")
	}},
	{name: "splice/sendfile", run: func(c *ctx) {
		src := patterned(200000)
		c.file("a", 0o644, src)
		c.file("b", 0o644)
		a, b := c.open("a", ro), c.open("b", wo)
		for total := 0; total < len(src); {
			n, err := unix.Sendfile(b, a, nil, len(src))
			c.do(err)
			if n == 0 {
				break
			}
			total += n
		}
		c.true(c.content("b") == src, "content")
		off := int64(100)
		n, err := unix.Sendfile(b, a, &off, 50)
		c.is(err, nil, "with an offset")
		eq(c, n, 50, "bytes")
		eq(c, off, 150, "offset")
		eq(c, c.size("b"), 200050, "size")
		s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		c.do(err)
		c.keep(s[0])
		c.keep(s[1])
		off = 0
		n, err = unix.Sendfile(s[0], a, &off, 10000)
		c.is(err, nil, "to a socket")
		got := make([]byte, 10000)
		m, err := unix.Read(s[1], got)
		c.do(err)
		c.true(string(got[:m]) == src[:m] && n > 0, "content")
		_, err = unix.Sendfile(b, c.open("b", wo), nil, 10)
		c.is(err, unix.EBADF, "from a descriptor for writing")
		_, err = unix.Sendfile(c.open("b", ro), a, nil, 10)
		c.is(err, unix.EBADF, "to a descriptor for reading")
	}},
}
