package posix

import (
	"math"
	"strings"

	"golang.org/x/sys/unix"
)

var copyCases = []testCase{
	{name: "copy/aligned-and-not", run: func(c *ctx) {
		src := patterned(100000)
		c.file("a", 0o644, src)
		a := c.open("a", rw)
		for _, x := range [][3]int64{{0, 0, 100000}, {0, 0, 4096}, {4096, 8192, 65536}, {1, 0, 5000}, {0, 1, 5000}, {4095, 4097, 12345}, {99990, 50000, 10}, {8192, 1 << 30, 40960}} {
			c.file("b", 0o644, strings.Repeat("b", 20000))
			b := c.open("b", rw)
			from, to := x[0], x[1]
			left := int(x[2])
			for left > 0 {
				n, err := unix.CopyFileRange(a, &from, b, &to, left, 0)
				c.do(err)
				if n == 0 {
					break
				}
				left -= n
			}
			eq(c, left, 0, "bytes left of %v", x)
			eq(c, from, x[0]+x[2], "offset in the source")
			eq(c, to, x[1]+x[2], "offset in the target")
			got := c.pread(b, int(x[2]), x[1])
			c.true(got == src[x[0]:x[0]+x[2]], "copy %v has the content", x)
			if x[1] > 0 && x[1] < 20000 {
				eq(c, c.pread(b, 1, x[1]-1), "b", "byte before the copy %v", x)
			}
			if end := x[1] + x[2]; end < 20000 {
				eq(c, c.pread(b, 1, end), "b", "byte behind the copy %v", x)
			}
			eq(c, c.fstat(b).Size, max(20000, x[1]+x[2]), "size")
			c.pwrite(b, "changed", x[1])
			c.true(c.content("a") == src, "the source after a write to the copy")
			c.close(b)
			c.do(unix.Unlink("b"))
		}
	}},
	{name: "copy/file-offsets", run: func(c *ctx) {
		c.file("a", 0o644, "0123456789")
		c.file("b", 0o644)
		a, b := c.open("a", ro), c.open("b", wo)
		c.seek(a, 3, unix.SEEK_SET)
		n, err := unix.CopyFileRange(a, nil, b, nil, 4, 0)
		c.is(err, nil, "with the offsets of the descriptors")
		eq(c, n, 4, "bytes")
		eq(c, c.seek(a, 0, unix.SEEK_CUR), 7, "offset of the source")
		eq(c, c.seek(b, 0, unix.SEEK_CUR), 4, "offset of the target")
		eq(c, c.content("b"), "3456", "content")
		n, err = unix.CopyFileRange(a, nil, b, nil, 100, 0)
		c.is(err, nil, "beyond the end")
		eq(c, n, 3, "bytes")
		n, err = unix.CopyFileRange(a, nil, b, nil, 100, 0)
		c.is(err, nil, "at the end")
		eq(c, n, 0, "bytes")
	}},
	{name: "copy/same-file", run: func(c *ctx) {
		src := patterned(40960)
		c.file("f", 0o644, src)
		fd := c.open("f", rw)
		cp := func(from, to int64, n int) error { _, err := unix.CopyFileRange(fd, &from, fd, &to, n, 0); return err }
		c.is(cp(0, 100, 4096), unix.EINVAL, "overlapping")
		c.is(cp(0, 0, 10), unix.EINVAL, "onto itself")
		c.is(cp(4096, 0, 4097), unix.EINVAL, "overlapping by a byte")
		c.is(cp(0, 8192, 8192), nil, "not overlapping")
		c.true(c.content("f") == src[:8192]+src[:8192]+src[16384:], "content")
	}},
	{name: "copy/errno", run: func(c *ctx) {
		c.file("a", 0o644, "0123456789")
		c.file("b", 0o644)
		c.mkdir("d", 0o755)
		c.do(unix.Mkfifo("p", 0o644))
		cp := func(a, b int) error { _, err := unix.CopyFileRange(a, nil, b, nil, 4, 0); return err }
		a, b := c.open("a", ro), c.open("b", rw)
		c.is(cp(a, c.open("b", ro)), unix.EBADF, "to a descriptor for reading")
		c.is(cp(c.open("a", wo), b), unix.EBADF, "from a descriptor for writing")
		c.is(cp(a, c.open("b", wo|unix.O_APPEND)), unix.EBADF, "to a descriptor for appending")
		c.is(cp(c.open("d", ro), b), unix.EISDIR, "from a directory")
		c.is(cp(c.open("p", rw), b), unix.EINVAL, "from a fifo")
		c.is(cp(-1, b), unix.EBADF, "from no descriptor")
		_, err := unix.CopyFileRange(a, nil, b, nil, 4, 1)
		c.is(err, unix.EINVAL, "with flags")
		from, to := int64(0), int64(math.MaxInt64-1)
		n, err := unix.CopyFileRange(a, &from, b, &to, 10, 0)
		c.true(n == 1 || err == unix.EOVERFLOW || err == unix.EFBIG, "to 2^63-2, a byte or none fits: %d, %v", n, err)
	}},
	{name: "copy/of-a-hole", run: func(c *ctx) {
		c.file("a", 0o644)
		a := c.open("a", rw)
		c.pwrite(a, "tail", 1<<20)
		c.file("b", 0o644, strings.Repeat("b", 1<<20+100))
		b := c.open("b", rw)
		var from, to int64
		for left := 1<<20 + 4; left > 0; {
			n, err := unix.CopyFileRange(a, &from, b, &to, left, 0)
			c.do(err)
			if n == 0 {
				break
			}
			left -= n
		}
		c.true(c.content("b") == strings.Repeat("\x00", 1<<20)+"tail"+strings.Repeat("b", 96), "content")
	}},
	{name: "copy/clone", needs: needsClone, run: func(c *ctx) {
		c.file("a", 0o644, "content")
		c.file("b", 0o644)
		c.is(unix.IoctlFileClone(c.open("b", rw), c.open("a", ro)), nil, "FICLONE")
		eq(c, c.content("b"), "content", "content")
	}},
}

// patterned returns n bytes with no two equal pages.
func patterned(n int) string {
	b := make([]byte, n)
	x := uint32(n)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return string(b)
}
