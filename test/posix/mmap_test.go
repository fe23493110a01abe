package posix

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var mmapCases = []testCase{
	{name: "mmap/shared-is-coherent", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 20000))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 20000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		for i := range 50 {
			off := i * 397
			s := fmt.Sprintf("<%04d>", i)
			copy(b[off:], s)
			eq(c, c.pread(fd, 6, int64(off)), s, "read after a store")
			s = fmt.Sprintf("[%04d]", i)
			c.pwrite(fd, s, int64(off))
			eq(c, string(b[off:off+6]), s, "load after a write")
		}
		other, err := unix.Mmap(c.open("f", ro), 0, 20000, unix.PROT_READ, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(other)
		b[12345] = 'Z'
		eq(c, other[12345], 'Z', "load by another mapping")
	}},
	{name: "mmap/private", run: func(c *ctx) {
		c.file("f", 0o444, strings.Repeat("0", 8192))
		fd := c.open("f", ro)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		c.is(err, nil, "private and writable, of a descriptor for reading")
		c.do(err)
		defer unix.Munmap(b)
		b[0] = 'p'
		eq(c, c.pread(fd, 1, 0), "0", "the file after a store into a private mapping")
		eq(c, b[0], 'p', "the mapping")
		eq(c, b[4096], '0', "another page")
	}},
	{name: "mmap/errno", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.mkdir("d", 0o755)
		m := func(fd int, prot, flags int) error {
			b, err := unix.Mmap(fd, 0, 4096, prot, flags)
			if err == nil {
				err = unix.Munmap(b)
			}
			return err
		}
		r, w := unix.PROT_READ, unix.PROT_WRITE
		c.is(m(c.open("f", ro), r|w, unix.MAP_SHARED), unix.EACCES, "shared and writable, of a descriptor for reading")
		c.is(m(c.open("f", wo), w, unix.MAP_SHARED), unix.EACCES, "of a descriptor for writing")
		c.is(m(c.open("d", ro), r, unix.MAP_SHARED), unix.ENODEV, "a directory")
		c.is(m(-1, r, unix.MAP_SHARED), unix.EBADF, "no descriptor")
		_, err := unix.Mmap(c.open("f", ro), 100, 4096, r, unix.MAP_SHARED)
		c.is(err, unix.EINVAL, "an offset within a page")
		c.is(m(c.open("f", rw|unix.O_APPEND), r|w, unix.MAP_SHARED), nil, "of a descriptor for appending")
		b, err := unix.Mmap(c.open("f", ro), 0, 4096, r, unix.MAP_SHARED)
		c.do(err)
		c.is(unix.Mprotect(b, r|w), unix.EACCES, "mprotect to writable, of a descriptor for reading")
		c.is(unix.Munmap(b), nil, "munmap")
	}},
	{name: "mmap/tail-of-the-last-page", needs: needsZeroTail, run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		eq(c, string(b[:12]), "0123456789\x00\x00", "content")
		b[50] = 'x' // beyond the end of file: does not become part of the file
		c.do(unix.Msync(b, unix.MS_SYNC))
		c.do(unix.Munmap(b))
		eq(c, c.size("f"), 10, "size")
		c.do(unix.Ftruncate(fd, 4096))
		eq(c, c.pread(fd, 100, 0), "0123456789"+strings.Repeat("\x00", 90), "content after growing")
	}},
	{name: "mmap/grows-under-a-mapping", run: func(c *ctx) {
		c.file("f", 0o644, "x")
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.pwrite(fd, "far", 500000)
		eq(c, string(b[500000:500003]), "far", "what was written behind the old end")
		b[400000] = 'h'
		eq(c, c.pread(fd, 2, 400000), "h\x00", "a store into a hole")
		c.do(unix.Ftruncate(fd, 100))
		c.do(unix.Ftruncate(fd, 1<<20))
		eq(c, b[400000], 0, "after a truncate and back")
	}},
	{name: "mmap/sigbus", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		for _, x := range []struct {
			how  string
			off  int
			want string
		}{{"r", 4095, "read 0"}, {"w", 100, "stored"}, {"r", 4096, "SIGBUS"}, {"w", 4096, "SIGBUS"}, {"r", 500000, "SIGBUS"}} {
			out, err := c.child("peek", "f", x.how, fmt.Sprint(x.off))
			if x.want == "SIGBUS" {
				c.true(err != nil && strings.Contains(out, "SIGBUS"), "%s at %d gets SIGBUS: %v, %.200s", x.how, x.off, err, out)
			} else {
				c.is(err, nil, "%s at %d: %.200s", x.how, x.off, out)
				eq(c, out, x.want, "%s at %d", x.how, x.off)
			}
		}
		eq(c, c.size("f"), 7, "size")
	}},
	{name: "mmap/of-unlinked", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 8192))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		c.do(unix.Unlink("f"))
		c.close(fd)
		b[0], b[4096] = 'a', 'b'
		c.is(unix.Msync(b, unix.MS_SYNC), nil, "msync")
		eq(c, string([]byte{b[0], b[1], b[4096], b[8191]}), "a0b0", "content")
		c.do(unix.Munmap(b))
	}},
	{name: "mmap/closed-descriptor", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 4096))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		c.close(fd)
		copy(b, "stored")
		c.do(unix.Msync(b, unix.MS_SYNC))
		c.do(unix.Munmap(b))
		eq(c, c.content("f")[:7], "stored0", "content")
	}},
	{name: "mmap/munmap-keeps", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.do(unix.Ftruncate(fd, 1<<20))
		b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		for i := range b {
			b[i] = byte(i >> 12)
		}
		c.do(unix.Munmap(b))
		s := c.content("f")
		for i := range s {
			if s[i] != byte(i>>12) {
				c.fatalf("byte %d: %d", i, s[i])
			}
		}
		c.flush(fd)
		c.true(c.fstat(fd).Blocks*512 >= 1<<20, "blocks: %d", c.fstat(fd).Blocks)
	}},
	{name: "mmap/punched-under-a-mapping", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 16384))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		b[5000] = 'y'
		c.do(unix.Fallocate(fd, fPunch|fKeep, 4096, 4096))
		eq(c, b[5000], 0, "load from what was punched")
		eq(c, b[4095], 'x', "before it")
		b[5001] = 'z'
		eq(c, c.pread(fd, 3, 5000), "\x00z\x00", "read after a store into it")
	}},
	{name: "mmap/write-from-a-mapping-of-the-same-file", run: func(c *ctx) {
		c.file("f", 0o644, patterned(16384))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.pwrite(fd, string(b[:4096]), 8192)
		n, err := unix.Pwrite(fd, b[:4096], 4096)
		c.is(err, nil, "writing from a mapping of the file")
		eq(c, n, 4096, "bytes")
		n, err = unix.Pread(fd, b[12288:], 0)
		c.is(err, nil, "reading into a mapping of the file")
		eq(c, n, 4096, "bytes")
		c.true(c.content("f") == strings.Repeat(patterned(16384)[:4096], 4), "content")
	}},
	{name: "mmap/copy-of-a-mapped-file", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 8192))
		c.file("g", 0o644)
		fd, g := c.open("f", rw), c.open("g", rw)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		copy(b[100:], "dirty")
		var from, to int64
		_, err = unix.CopyFileRange(fd, &from, g, &to, 8192, 0)
		c.do(err)
		eq(c, c.pread(g, 5, 100), "dirty", "the copy has what was stored")
		copy(b[100:], "later")
		eq(c, c.pread(g, 5, 100), "dirty", "and not what is stored later")
		mg, err := unix.Mmap(g, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(mg)
		copy(mg[4096:], "copy")
		eq(c, string(b[4096:4100]), "0000", "the source after a store into the copy")
	}},
	{name: "mmap/sync-flag-is-refused-or-works", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 4096))
		b, err := unix.Mmap(c.open("f", rw), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
		if err == nil {
			c.do(unix.Munmap(b))
		} else {
			c.is(err, unix.EOPNOTSUPP, "MAP_SYNC")
		}
	}},
	{name: "mmap/exec-mapping", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("\xc3", 4096))
		b, err := unix.Mmap(c.open("f", ro), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		c.is(err, nil, "PROT_EXEC")
		if err == nil {
			c.do(unix.Munmap(b))
		}
	}},
	{name: "mmap/mlock-and-madvise", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 65536))
		b, err := unix.Mmap(c.open("f", rw), 0, 65536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.is(unix.Mlock(b), nil, "mlock")
		c.is(unix.Munlock(b), nil, "munlock")
		b[0] = 'y'
		for _, a := range []int{unix.MADV_WILLNEED, unix.MADV_DONTNEED, unix.MADV_RANDOM} {
			c.is(unix.Madvise(b, a), nil, "madvise %d", a)
		}
		eq(c, b[0], 'y', "a store after MADV_DONTNEED of a shared mapping")
		c.is(unix.Msync(b, unix.MS_ASYNC), nil, "msync MS_ASYNC")
		c.is(unix.Msync(b, unix.MS_SYNC|unix.MS_INVALIDATE), nil, "msync MS_SYNC|MS_INVALIDATE")
		c.is(unix.Msync(b, unix.MS_SYNC|unix.MS_ASYNC), unix.EINVAL, "msync of both kinds")
	}},
}
