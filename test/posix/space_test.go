package posix

import (
	"math"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fAlloc = 0
	fKeep  = unix.FALLOC_FL_KEEP_SIZE
	fPunch = unix.FALLOC_FL_PUNCH_HOLE
	fZero  = unix.FALLOC_FL_ZERO_RANGE
)

// seek returns the offset of lseek, or -1 for ENXIO.
func (c *ctx) seek(fd int, off int64, whence int) int64 {
	n, err := unix.Seek(fd, off, whence)
	if err == unix.ENXIO {
		return -1
	}
	c.do(err)
	return n
}

// flush makes a target with delayed allocation allocate.
func (c *ctx) flush(fd int) { c.do(unix.Fsync(fd)) }

func (c *ctx) free() uint64 {
	var st unix.Statfs_t
	c.do(unix.Statfs(".", &st))
	return st.Bfree * uint64(st.Bsize)
}

// freed waits until the free space is nearly that of before (both in bytes).
func (c *ctx) freed(before uint64) {
	for start := time.Now(); c.free() < before-(16<<20) && time.Since(start) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
	}
	c.true(c.free() >= before-(16<<20), "what was deleted is free within 10 s")
}

var spaceCases = []testCase{
	{name: "space/fallocate", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, fAlloc, 0, 1<<20), nil, "allocating")
		st := c.fstat(fd)
		eq(c, st.Size, 1<<20, "size")
		c.true(st.Blocks*512 >= 1<<20, "%d blocks hold a MiB", st.Blocks)
		eq(c, c.pread(fd, 10, 0), "content\x00\x00\x00", "content")
		eq(c, c.pread(fd, 10, 1<<19), strings.Repeat("\x00", 10), "what was allocated")
		c.is(unix.Fallocate(fd, fAlloc, 0, 100), nil, "allocating again")
		eq(c, c.fstat(fd).Size, 1<<20, "size")
	}},
	{name: "space/fallocate-keep-size", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, fKeep, 0, 1<<20), nil, "KEEP_SIZE")
		st := c.fstat(fd)
		eq(c, st.Size, 7, "size")
		c.true(st.Blocks*512 >= 1<<20, "%d blocks hold a MiB", st.Blocks)
		c.do(unix.Ftruncate(fd, 7))
		c.do(unix.Ftruncate(fd, 8192))
		eq(c, c.pread(fd, 8192, 0), "content"+strings.Repeat("\x00", 8185), "content")
	}},
	{name: "space/truncate-frees-what-lies-behind", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 8192))
		fd := c.open("f", rw)
		c.do(unix.Fallocate(fd, fKeep, 0, 1<<20))
		c.do(unix.Ftruncate(fd, 4096))
		c.flush(fd)
		c.true(c.fstat(fd).Blocks*512 <= 8192, "a truncate frees what was allocated behind: %d blocks", c.fstat(fd).Blocks)
	}},
	{name: "space/punch-hole", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 40960))
		fd := c.open("f", rw)
		c.flush(fd)
		before := c.fstat(fd).Blocks
		c.is(unix.Fallocate(fd, fPunch|fKeep, 4096, 8192), nil, "punching two blocks")
		eq(c, before-c.fstat(fd).Blocks, 16, "blocks that it freed")
		c.is(unix.Fallocate(fd, fPunch|fKeep, 20000, 100), nil, "punching a hundred bytes")
		want := []byte(strings.Repeat("x", 40960))
		clear(want[4096:12288])
		clear(want[20000:20100])
		c.true(c.content("f") == string(want), "what is left")
		c.is(unix.Fallocate(fd, fPunch|fKeep, 36864, 1<<20), nil, "punching beyond the end")
		eq(c, c.fstat(fd).Size, 40960, "size")
		clear(want[36864:])
		c.true(c.content("f") == string(want), "what is left")
		c.is(unix.Fallocate(fd, fPunch, 0, 4096), unix.EOPNOTSUPP, "PUNCH_HOLE without KEEP_SIZE")
	}},
	{name: "space/zero-range", needs: needsZeroRange, run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 20000))
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, fZero, 100, 10000), nil, "zeroing")
		want := []byte(strings.Repeat("x", 20000))
		clear(want[100:10100])
		c.true(c.content("f") == string(want), "content")
		c.is(unix.Fallocate(fd, fZero|fKeep, 15000, 100000), nil, "zeroing beyond the end, KEEP_SIZE")
		eq(c, c.fstat(fd).Size, 20000, "size")
		c.is(unix.Fallocate(fd, fZero, 15000, 100000), nil, "zeroing beyond the end")
		eq(c, c.fstat(fd).Size, 115000, "size")
		clear(want[15000:])
		c.true(c.content("f") == string(want)+strings.Repeat("\x00", 95000), "content")
		c.is(unix.Fallocate(fd, fZero|fPunch|fKeep, 0, 10), unix.EOPNOTSUPP, "ZERO_RANGE|PUNCH_HOLE")
	}},
	{name: "space/collapse-and-insert", needs: needsCollapse, run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("a", 4096)+strings.Repeat("b", 4096)+strings.Repeat("c", 4096))
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 4096, 4096), nil, "COLLAPSE_RANGE")
		c.true(c.content("f") == strings.Repeat("a", 4096)+strings.Repeat("c", 4096), "content")
		c.is(unix.Fallocate(fd, unix.FALLOC_FL_INSERT_RANGE, 4096, 4096), nil, "INSERT_RANGE")
		c.true(c.content("f") == strings.Repeat("a", 4096)+strings.Repeat("\x00", 4096)+strings.Repeat("c", 4096), "content")
	}},
	{name: "space/fallocate-errno", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		c.do(unix.Mkfifo("p", 0o644))
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, 0, -1, 10), unix.EINVAL, "offset -1")
		c.is(unix.Fallocate(fd, 0, 0, 0), unix.EINVAL, "length 0")
		c.is(unix.Fallocate(fd, 0, 0, -1), unix.EINVAL, "length -1")
		c.is(unix.Fallocate(fd, 0, math.MaxInt64, 10), unix.EFBIG, "beyond 2^63")
		c.is(unix.Fallocate(c.open("f", ro), 0, 0, 10), unix.EBADF, "a descriptor for reading")
		c.is(unix.Fallocate(-1, 0, 0, 10), unix.EBADF, "no descriptor")
		c.is(unix.Fallocate(c.open("d", ro), 0, 0, 10), unix.EBADF, "a directory") // a directory cannot be opened for writing
		c.is(unix.Fallocate(c.open("p", rw), 0, 0, 10), unix.ESPIPE, "a fifo")
		c.is(unix.Fallocate(fd, 0x1000, 0, 10), unix.EOPNOTSUPP, "an unknown mode")
		c.is(unix.Fallocate(fd, 0, 0, 1<<40), unix.ENOSPC, "more than there is")
		c.true(c.fstat(fd).Size < 1<<40, "size after ENOSPC")
	}},
	{name: "space/enospc", run: func(c *ctx) {
		before := c.free()
		c.file("f", 0o644, "first")
		fd := c.open("f", rw)
		buf := make([]byte, 1<<20)
		var off int64
		var err error
		for off < 1<<30 {
			var n int
			if n, err = unix.Pwrite(fd, buf, off); err != nil {
				break
			}
			off += int64(n)
		}
		c.is(err, unix.ENOSPC, "writing until it is full")
		eq(c, c.fstat(fd).Size, off, "size is what was written")
		c.do(unix.Unlink("f"))
		c.close(fd)
		c.is(unix.Mkdir("d", 0o755), nil, "mkdir afterwards")
		c.do(unix.Rmdir("d"))
		c.freed(before)
	}},
	{name: "space/deleted-is-free-at-once", run: func(c *ctx) {
		before := c.free()
		defer c.freed(before)
		for i := range 10 {
			c.file("f", 0o644)
			fd := c.open("f", rw)
			c.is(unix.Fallocate(fd, 0, 0, int64(before/10*8)), nil, "round %d: allocating most of what is free", i)
			c.close(fd)
			c.do(unix.Unlink("f"))
			var st unix.Statfs_t
			c.do(unix.Statfs(".", &st))
			c.true(st.Bfree > st.Blocks/2, "round %d: %d of %d blocks are free after unlink", i, st.Bfree, st.Blocks)
		}
	}},
	{name: "space/statfs", run: func(c *ctx) {
		var st unix.Statfs_t
		c.do(unix.Statfs(".", &st))
		c.true(st.Bsize > 0 && st.Blocks > 0, "there are blocks")
		c.true(st.Bfree <= st.Blocks && st.Bavail <= st.Bfree, "bavail %d <= bfree %d <= blocks %d", st.Bavail, st.Bfree, st.Blocks)
		c.true(st.Ffree <= st.Files, "ffree %d <= files %d", st.Ffree, st.Files)
		var again unix.Statfs_t
		c.do(unix.Fstatfs(c.open(".", ro), &again))
		eq(c, again.Fsid, st.Fsid, "f_fsid by descriptor")
		eq(c, again.Blocks, st.Blocks, "f_blocks by descriptor")
		c.is(unix.Fstatfs(-1, &again), unix.EBADF, "fstatfs of no descriptor")
	}},
	{name: "space/statfs-sums", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		unix.Sync()
		before := c.free()
		c.do(unix.Fallocate(fd, 0, 0, 8<<20))
		blocks := uint64(c.fstat(fd).Blocks) * 512
		used := before - c.free()
		c.true(used >= 8<<20 && used <= 9<<20, "8 MiB take %d", used)
		c.true(blocks >= 8<<20 && blocks <= used+4096, "st_blocks say %d", blocks)
		c.do(unix.Ftruncate(fd, 0))
		c.true(before-c.free() < 1<<20, "which come back: %d less", int64(before-c.free()))
		eq(c, c.fstat(fd).Blocks, 0, "blocks of an empty file")
	}},
	{name: "space/st-blocks", run: func(c *ctx) {
		c.file("f", 0o644)
		eq(c, c.stat("f").Blocks, 0, "blocks of an empty file")
		fd := c.open("f", rw)
		c.pwrite(fd, strings.Repeat("x", 4096), 0)
		c.flush(fd)
		eq(c, c.fstat(fd).Blocks, 8, "blocks of 4 KiB")
		c.pwrite(fd, "x", 1<<20)
		c.flush(fd)
		eq(c, c.fstat(fd).Blocks, 16, "blocks of 4 KiB and a byte far away")
		c.true(c.fstat(fd).Blksize >= 512, "st_blksize")
		c.do(unix.Ftruncate(fd, 1<<30))
		eq(c, c.fstat(fd).Blocks, 16, "blocks after a larger size")
	}},
	{name: "space/sparse", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		for _, off := range []int64{0, 4095, 4097, 1 << 20, 1<<21 - 1, 1 << 30, 1<<32 - 1, 1 << 32, 1 << 40, 1<<43 - 8192} {
			c.pwrite(fd, "xy", off)
			eq(c, c.fstat(fd).Size, off+2, "size")
			eq(c, c.pread(fd, 3, off), "xy", "at %d", off)
			if off > 0 {
				c.true(c.pread(fd, 1, off-1) != "z", "before it")
			}
		}
		eq(c, c.pread(fd, 10, 1<<29), strings.Repeat("\x00", 10), "a hole")
		c.do(unix.Ftruncate(fd, 1<<30+1))
		c.do(unix.Ftruncate(fd, 1<<31))
		eq(c, c.pread(fd, 3, 1<<30), "x\x00\x00", "a tail that was cut is zero")
	}},
	{name: "space/huge-offsets", needs: needsHuge, run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		const top = math.MaxInt64 - 8191 // 2^63-8192
		_, err := unix.Pwrite(fd, []byte("far"), top)
		c.is(err, nil, "writing at 2^63-8192")
		eq(c, c.fstat(fd).Size, top+3, "size")
		eq(c, c.pread(fd, 10, top), "far", "what is there")
		eq(c, c.pread(fd, 3, top-4096), "\x00\x00\x00", "before it")
		c.is(unix.Ftruncate(fd, 1<<62), nil, "truncating to 2^62")
		eq(c, c.fstat(fd).Size, 1<<62, "size")
		_, err = unix.Pwrite(fd, []byte("xx"), math.MaxInt64)
		c.oneOf(err, "writing at 2^63-1", unix.EFBIG, unix.EINVAL)
		_, err = unix.Pwrite(fd, []byte("x"), -1)
		c.is(err, unix.EINVAL, "writing at -1")
		n, err := unix.Pread(fd, make([]byte, 10), math.MaxInt64-10)
		c.is(err, nil, "reading far behind the end")
		eq(c, n, 0, "bytes")
	}},
	{name: "space/efbig", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.is(unix.Ftruncate(fd, -1), unix.EINVAL, "ftruncate to -1")
		if c.target.has&needsHuge == 0 {
			c.is(unix.Ftruncate(fd, math.MaxInt64), unix.EFBIG, "ftruncate to 2^63-1")
			_, err := unix.Pwrite(fd, []byte("x"), 1<<60)
			c.is(err, unix.EFBIG, "writing at 2^60")
		}
		eq(c, c.fstat(fd).Size, 0, "size")
	}},
	{name: "space/truncate-errno", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Mkfifo("p", 0o644))
		c.is(unix.Truncate("f", -1), unix.EINVAL, "to -1")
		c.is(unix.Ftruncate(c.open("f", ro), 0), unix.EINVAL, "a descriptor for reading")
		c.is(unix.Ftruncate(-1, 0), unix.EBADF, "no descriptor")
		c.is(unix.Truncate("p", 0), unix.EINVAL, "a fifo")
		c.is(unix.Ftruncate(c.open("p", rw), 0), unix.EINVAL, "a fifo by descriptor")
		c.as(bob, func() { c.is(unix.Truncate("f", 0), unix.EACCES, "a file that one may not write") })
	}},
	{name: "space/truncate-zeroes", run: func(c *ctx) {
		for _, n := range []int64{0, 1, 511, 512, 4095, 4096, 4097, 8191, 12288} {
			c.file("f", 0o644, strings.Repeat("x", 12288))
			c.do(unix.Truncate("f", n))
			c.do(unix.Truncate("f", 16384))
			c.true(c.content("f") == strings.Repeat("x", int(n))+strings.Repeat("\x00", int(16384-n)), "cut at %d", n)
		}
	}},
	{name: "space/seek-data-hole", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.pwrite(fd, strings.Repeat("x", 8192), 1<<20)
		c.pwrite(fd, "x", 3<<20)
		c.do(unix.Ftruncate(fd, 4<<20))
		c.flush(fd)
		eq(c, c.seek(fd, 0, unix.SEEK_DATA), 1<<20, "first data")
		eq(c, c.seek(fd, 1<<20, unix.SEEK_DATA), 1<<20, "data at data")
		eq(c, c.seek(fd, 1<<20+100, unix.SEEK_DATA), 1<<20+100, "data within data")
		eq(c, c.seek(fd, 1<<20, unix.SEEK_HOLE), 1<<20+8192, "hole behind it")
		eq(c, c.seek(fd, 0, unix.SEEK_HOLE), 0, "hole at a hole")
		eq(c, c.seek(fd, 2<<20, unix.SEEK_DATA), 3<<20, "next data")
		eq(c, c.seek(fd, 3<<20, unix.SEEK_HOLE), 3<<20+4096, "hole behind it")
		eq(c, c.seek(fd, 3<<20+5000, unix.SEEK_DATA), -1, "data where there is none any more")
		eq(c, c.seek(fd, 4<<20-1, unix.SEEK_HOLE), 4<<20-1, "hole before the end")
		eq(c, c.seek(fd, 4<<20, unix.SEEK_HOLE), -1, "hole at the end")
		eq(c, c.seek(fd, 4<<20, unix.SEEK_DATA), -1, "data at the end")
		_, err := unix.Seek(fd, -1, unix.SEEK_DATA)
		c.is(err, unix.ENXIO, "data at -1")
		c.file("g", 0o644, "full")
		g := c.open("g", ro)
		eq(c, c.seek(g, 0, unix.SEEK_HOLE), 4, "the end is a hole")
		c.do(unix.Fallocate(fd, fPunch|fKeep, 1<<20, 4096))
		eq(c, c.seek(fd, 0, unix.SEEK_DATA), 1<<20+4096, "data after a punch")
	}},
	{name: "space/seek-unwritten", needs: needsUnwritten, run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.do(unix.Fallocate(fd, 0, 0, 1<<20))
		eq(c, c.seek(fd, 0, unix.SEEK_DATA), -1, "data in what is only allocated")
		eq(c, c.seek(fd, 0, unix.SEEK_HOLE), 0, "a hole")
		c.pwrite(fd, "x", 40960)
		c.flush(fd)
		eq(c, c.seek(fd, 0, unix.SEEK_DATA), 40960, "data after a write")
		eq(c, c.seek(fd, 40960, unix.SEEK_HOLE), 45056, "hole behind it")
	}},
	{name: "space/lseek", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", rw)
		at := func(off int64, whence int, want int64) {
			n, err := unix.Seek(fd, off, whence)
			c.is(err, nil, "lseek %d %d", off, whence)
			eq(c, n, want, "lseek %d %d", off, whence)
		}
		at(5, unix.SEEK_SET, 5)
		at(2, unix.SEEK_CUR, 7)
		at(-1, unix.SEEK_END, 9)
		at(100, unix.SEEK_END, 110)
		_, err := unix.Seek(fd, -200, unix.SEEK_CUR)
		c.is(err, unix.EINVAL, "before the start")
		_, err = unix.Seek(fd, 0, 9)
		c.is(err, unix.EINVAL, "an unknown whence")
		_, err = unix.Seek(-1, 0, 0)
		c.is(err, unix.EBADF, "no descriptor")
		at(0, unix.SEEK_CUR, 110)
		_, err = unix.Write(fd, []byte("x"))
		c.do(err)
		eq(c, c.size("f"), 111, "size after writing behind the end")
	}},
	{name: "space/rlimit-fsize", run: func(c *ctx) {
		for _, x := range []struct{ what, want string }{
			{"write", "5000 success"}, {"beyond", "-1 EFBIG"}, {"truncate", "0 EFBIG"}, {"fallocate", "0 EFBIG"},
		} {
			out, err := c.child("fsize", x.what, "5000", x.what)
			c.is(err, nil, "the child")
			eq(c, out, x.want, "%s with RLIMIT_FSIZE 5000", x.what)
		}
		eq(c, c.size("write"), 5000, "size of what was written")
		eq(c, c.size("truncate"), 0, "size of what was not truncated")
		out, err := c.execAs(root, "/bin/sh", "-c", "ulimit -f 4; dd if=/dev/zero of=x bs=1024 count=100; echo $?")
		c.true(err == nil && strings.Contains(out, "153") || strings.Contains(out, "File size limit"), "SIGXFSZ ends dd: %s", out)
	}},
}
