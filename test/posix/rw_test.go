package posix

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var rwCases = []testCase{
	{name: "rw/errno", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		buf := make([]byte, 5)
		_, err := unix.Read(c.open("f", wo), buf)
		c.is(err, unix.EBADF, "read by a descriptor for writing")
		_, err = unix.Write(c.open("f", ro), buf)
		c.is(err, unix.EBADF, "write by a descriptor for reading")
		_, err = unix.Pread(c.open("f", ro), buf, -1)
		c.is(err, unix.EINVAL, "pread at -1")
		_, err = unix.Pwrite(c.open("f", rw), buf, -1)
		c.is(err, unix.EINVAL, "pwrite at -1")
		_, err = unix.Read(-1, buf)
		c.is(err, unix.EBADF, "read of no descriptor")
		c.do(unix.Mkfifo("p", 0o644))
		_, err = unix.Pread(c.open("p", rw), buf, 0)
		c.is(err, unix.ESPIPE, "pread of a fifo")
	}},
	{name: "rw/efault", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 10000))
		b, err := unix.Mmap(-1, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		c.do(err)
		c.do(unix.Mprotect(b[4096:], unix.PROT_NONE))
		defer unix.Munmap(b)
		fd := c.open("f", rw)
		_, err = unix.Pread(fd, b[4096:], 0)
		c.is(err, unix.EFAULT, "reading into what is not there")
		_, err = unix.Pwrite(fd, b[4096:], 0)
		c.is(err, unix.EFAULT, "writing from what is not there")
		n, err := unix.Pwrite(fd, b, 0)
		c.true(err == unix.EFAULT || n > 0 && n <= 4096, "writing from what is there by half: %d, %v", n, err)
		eq(c, c.fstat(fd).Size, 10000, "size")
		eq(c, c.pread(fd, 4, 5000), "xxxx", "what lies behind")
	}},
	{name: "rw/short-at-the-end", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", ro)
		eq(c, c.pread(fd, 100, 5), "56789", "pread over the end")
		eq(c, c.pread(fd, 100, 10), "", "at the end")
		eq(c, c.pread(fd, 100, 1<<40), "", "behind the end")
	}},
	{name: "rw/vectors", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		n, err := unix.Writev(fd, [][]byte{[]byte("abc"), nil, []byte("defg"), []byte("h")})
		c.is(err, nil, "writev")
		eq(c, n, 8, "bytes")
		n, err = unix.Pwritev(fd, [][]byte{[]byte("XY"), []byte("Z")}, 2)
		c.is(err, nil, "pwritev")
		eq(c, n, 3, "bytes")
		a, b := make([]byte, 3), make([]byte, 10)
		n, err = unix.Preadv(fd, [][]byte{a, b}, 1)
		c.is(err, nil, "preadv")
		eq(c, n, 7, "bytes")
		eq(c, string(a)+string(b[:4]), "bXYZfgh", "content")
		var many [][]byte
		for range 1024 {
			many = append(many, []byte("0123456789"))
		}
		n, err = unix.Pwritev(fd, many, 0)
		c.is(err, nil, "1024 vectors")
		eq(c, n, 10240, "bytes")
		_, err = unix.Pwritev(fd, append(many, []byte("x")), 0)
		c.is(err, unix.EINVAL, "1025 vectors")
	}},
	{name: "rw/preadv2-flags", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", rw)
		b := make([]byte, 4)
		_, err := unix.Preadv2(fd, [][]byte{b}, 2, unix.RWF_HIPRI)
		c.is(err, nil, "RWF_HIPRI")
		eq(c, string(b), "2345", "content")
		c.seek(fd, 5, unix.SEEK_SET)
		n, err := unix.Preadv2(fd, [][]byte{b}, -1, 0)
		c.is(err, nil, "offset -1, which is the descriptor's")
		eq(c, string(b[:max(n, 0)]), "5678", "content")
		eq(c, c.seek(fd, 0, unix.SEEK_CUR), 9, "offset")
		for _, fl := range []int{unix.RWF_DSYNC, unix.RWF_SYNC, unix.RWF_DSYNC | unix.RWF_HIPRI} {
			_, err = unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, fl)
			c.is(err, nil, "pwritev2 with flags %#x", fl)
		}
		_, err = unix.Pwritev2(fd, [][]byte{[]byte("end")}, 0, unix.RWF_APPEND)
		c.is(err, nil, "RWF_APPEND")
		eq(c, c.content("f"), "x123456789end", "content")
		_, err = unix.Preadv2(fd, [][]byte{b}, 0, 0x8000)
		c.is(err, unix.EOPNOTSUPP, "an unknown flag")
	}},
	{name: "rw/rwf-noappend", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", rw|unix.O_APPEND)
		_, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 3, unix.RWF_NOAPPEND)
		c.is(err, nil, "RWF_NOAPPEND")
		eq(c, c.content("f"), "012x456789", "content")
		_, err = unix.Pwritev2(fd, [][]byte{[]byte("x")}, 3, unix.RWF_NOAPPEND|unix.RWF_APPEND)
		c.is(err, unix.EINVAL, "RWF_NOAPPEND|RWF_APPEND")
	}},
	{name: "rw/rwf-nowait", needs: needsNowait, run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		b := make([]byte, 4)
		n, err := unix.Preadv2(c.open("f", ro), [][]byte{b}, 0, unix.RWF_NOWAIT)
		c.true(err == nil && n == 4 || err == unix.EAGAIN, "RWF_NOWAIT: %d, %v", n, err)
	}},
	{name: "rw/large", run: func(c *ctx) {
		s := patterned(9<<20 + 12345)
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.pwrite(fd, s, 777)
		c.true(c.pread(fd, len(s), 777) == s, "9 MiB in one call come back")
		eq(c, c.pread(fd, 777, 0), strings.Repeat("\x00", 777), "before them")
		c.true(c.content("f")[777:] == s, "and in many")
	}},
	{name: "rw/odd-pieces", run: func(c *ctx) {
		want := make([]byte, 300000)
		c.file("f", 0o644)
		fd := c.open("f", rw)
		src := patterned(70000)
		x := uint32(1)
		size := 0
		for range 300 {
			x = x*1664525 + 1013904223
			off := int(x>>8) % 230000
			x = x*1664525 + 1013904223
			n := int(x>>8) % 5000
			if x&1 == 0 {
				n = int(x>>8) % 70000
			}
			c.pwrite(fd, src[:n], int64(off))
			copy(want[off:], src[:n])
			if n > 0 {
				size = max(size, off+n)
			}
		}
		c.true(c.content("f") == string(want[:size]), "what 300 writes left")
	}},
	{name: "rw/shared-offset", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", ro)
		other, err := unix.Dup(fd)
		c.do(err)
		c.keep(other)
		b := make([]byte, 4)
		_, _ = unix.Read(fd, b)
		_, _ = unix.Read(other, b)
		eq(c, string(b), "4567", "read by the duplicate")
	}},
	{name: "rw/read-sees-write-of-another", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 10000))
		w, r := c.open("f", wo), c.open("f", ro)
		for i := range 100 {
			s := fmt.Sprintf("%04d", i)
			c.pwrite(w, s, int64(i*97))
			eq(c, c.pread(r, 4, int64(i*97)), s, "read after write %d", i)
		}
		c.do(unix.Ftruncate(w, 5))
		eq(c, len(c.pread(r, 100, 0)), 5, "bytes after a truncate")
	}},
	{name: "rw/fadvise-and-readahead", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 100000))
		fd := c.open("f", ro)
		for _, a := range []int{unix.FADV_NORMAL, unix.FADV_SEQUENTIAL, unix.FADV_RANDOM, unix.FADV_WILLNEED, unix.FADV_DONTNEED, unix.FADV_NOREUSE} {
			c.is(unix.Fadvise(fd, 0, 0, a), nil, "posix_fadvise %d", a)
		}
		c.is(unix.Fadvise(fd, 0, 0, 99), unix.EINVAL, "unknown advice")
		eq(c, c.pread(fd, 5, 50000), "xxxxx", "content")
	}},
}
