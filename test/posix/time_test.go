package posix

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// changes runs op and requires which times of each name it changes, and that the changed ones are
// now. The arguments are pairs: a name and its changed times, some of "amc". A name may be gone
// after op.
func (c *ctx) changes(op func(), what ...string) {
	type watched struct {
		name, want string
		fd         int
		before     unix.Stat_t
	}
	var l []watched
	old := []unix.Timespec{{Sec: 1e9, Nsec: 5}, {Sec: 1e9, Nsec: 6}}
	for i := 0; i < len(what); i += 2 {
		w := watched{name: what[i], want: what[i+1], fd: c.open(what[i], unix.O_PATH|unix.O_NOFOLLOW)}
		c.do(unix.UtimesNanoAt(cwd, w.name, old, unix.AT_SYMLINK_NOFOLLOW))
		l = append(l, w)
	}
	tick()
	for i := range l {
		l[i].before = c.fstat(l[i].fd)
	}
	start := time.Now().Add(-10 * time.Millisecond).UnixNano() // the coarse clock lags by a tick
	op()
	end := time.Now().UnixNano()
	for _, w := range l {
		after := c.fstat(w.fd)
		got := ""
		for _, x := range []struct {
			letter string
			b, a   unix.Timespec
		}{{"a", w.before.Atim, after.Atim}, {"m", w.before.Mtim, after.Mtim}, {"c", w.before.Ctim, after.Ctim}} {
			if x.a != x.b {
				got += x.letter
				c.true(nano(x.a) >= start && nano(x.a) <= end, "%stime of %s is now: it is %v off", x.letter, w.name, time.Duration(nano(x.a)-end))
			}
		}
		if got != w.want {
			c.errorf("times of %s that changed: %q, want %q", w.name, got, w.want)
		}
		c.close(w.fd)
	}
}

var timeCases = []testCase{
	{name: "time/utimensat", run: func(c *ctx) {
		c.file("f", 0o644)
		set := func(a, m unix.Timespec) { c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{a, m}, 0)) }
		set(unix.Timespec{Sec: 1, Nsec: 2}, unix.Timespec{Sec: 3, Nsec: 999999999})
		st := c.stat("f")
		eq(c, st.Atim, unix.Timespec{Sec: 1, Nsec: 2}, "atime")
		eq(c, st.Mtim, unix.Timespec{Sec: 3, Nsec: 999999999}, "mtime")
		set(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: 5})
		st = c.stat("f")
		eq(c, st.Atim, unix.Timespec{Sec: 1, Nsec: 2}, "atime, left")
		eq(c, st.Mtim, unix.Timespec{Sec: 5}, "mtime")
		set(unix.Timespec{Sec: 6}, unix.Timespec{Nsec: unix.UTIME_OMIT})
		st = c.stat("f")
		eq(c, st.Atim, unix.Timespec{Sec: 6}, "atime")
		eq(c, st.Mtim, unix.Timespec{Sec: 5}, "mtime, left")
		before := st.Ctim
		tick()
		set(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_OMIT})
		eq(c, c.stat("f").Ctim, before, "ctime after both were left")
		now := time.Now().Add(-20 * time.Millisecond).UnixNano()
		set(unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Sec: 9})
		st = c.stat("f")
		c.true(nano(st.Atim) >= now, "atime is now")
		eq(c, st.Mtim, unix.Timespec{Sec: 9}, "mtime")
		c.true(nano(st.Ctim) >= now, "ctime is now")
		set(unix.Timespec{Sec: 9}, unix.Timespec{Nsec: unix.UTIME_NOW})
		c.true(nano(c.stat("f").Mtim) >= now, "mtime is now")
		set(unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_NOW})
		eq(c, c.stat("f").Mtim, c.stat("f").Atim, "both now are the same")
	}},
	{name: "time/far", run: func(c *ctx) {
		c.file("f", 0o644)
		for _, s := range []int64{0, -1, -2147483647, 2147483647, 2147483648, 4294967295, 4294967296, 1e9, -1e9, 9e9} {
			c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: s, Nsec: 123456789}, {Sec: s, Nsec: 987654321}}, 0))
			st := c.stat("f")
			eq(c, st.Atim, unix.Timespec{Sec: s, Nsec: 123456789}, "atime")
			eq(c, st.Mtim, unix.Timespec{Sec: s, Nsec: 987654321}, "mtime")
		}
	}},
	{name: "time/very-far", needs: needsFarTimes, run: func(c *ctx) {
		c.file("f", 0o644)
		for _, s := range []int64{-1e10, 1e10, 1e11, -1e11} {
			c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: s}, {Sec: s}}, 0))
			eq(c, c.stat("f").Mtim, unix.Timespec{Sec: s}, "mtime")
		}
	}},
	{name: "time/symlink", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Symlink("f", "l"))
		c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: 10}, {Sec: 10}}, 0))
		c.do(unix.UtimesNanoAt(cwd, "l", []unix.Timespec{{Sec: 20}, {Sec: 30}}, unix.AT_SYMLINK_NOFOLLOW))
		eq(c, c.stat("f").Mtim.Sec, 10, "mtime of the target")
		eq(c, c.stat("l").Mtim.Sec, 30, "mtime of the link")
		c.do(unix.UtimesNanoAt(cwd, "l", []unix.Timespec{{Sec: 40}, {Sec: 50}}, 0))
		eq(c, c.stat("f").Mtim.Sec, 50, "mtime of the target")
		eq(c, c.stat("l").Mtim.Sec, 30, "mtime of the link")
		c.is(unix.UtimesNanoAt(cwd, "f", make([]unix.Timespec, 2), 0x8000), unix.EINVAL, "an unknown flag")
	}},
	{name: "time/btime", needs: needsBtime, run: func(c *ctx) {
		before := time.Now().Add(-20 * time.Millisecond).UnixNano()
		c.file("f", 0o644)
		st := c.statx("f")
		c.true(st.Mask&unix.STATX_BTIME != 0, "statx says STATX_BTIME")
		birth := st.Btime
		got := birth.Sec*1e9 + int64(birth.Nsec)
		c.true(got >= before && got <= time.Now().UnixNano(), "birth is now")
		tick()
		c.do(unix.UtimesNanoAt(cwd, "f", make([]unix.Timespec, 2), 0))
		c.do(unix.Rename("f", "g"))
		c.do(unix.Chmod("g", 0o600))
		c.file("g", 0o600, "x")
		eq(c, c.statx("g").Btime, birth, "birth, later")
	}},
	{name: "time/statx-is-stat", run: func(c *ctx) {
		for _, k := range c.kinds() {
			st, sx := c.stat(k), c.statx(k)
			eq(c, uint32(sx.Mode), st.Mode, "mode of %s", k)
			eq(c, sx.Size, uint64(st.Size), "size of %s", k)
			eq(c, sx.Ino, st.Ino, "inode of %s", k)
			eq(c, sx.Blocks, uint64(st.Blocks), "blocks of %s", k)
			eq(c, uint64(sx.Nlink), uint64(st.Nlink), "links of %s", k)
			eq(c, unix.Mkdev(sx.Rdev_major, sx.Rdev_minor), st.Rdev, "device of %s", k)
			eq(c, sx.Mtime.Nsec, uint32(st.Mtim.Nsec), "mtime of %s", k)
			eq(c, sx.Mask&unix.STATX_BASIC_STATS, unix.STATX_BASIC_STATS, "mask of %s", k)
		}
		var st unix.Statx_t
		c.is(unix.Statx(cwd, "reg", unix.AT_STATX_FORCE_SYNC|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st), unix.EINVAL, "both sync flags")
		c.is(unix.Statx(cwd, "reg", 0, 0x80000000, &st), unix.EINVAL, "STATX__RESERVED")
		c.is(unix.Statx(cwd, "reg", 0x8000, 0, &st), unix.EINVAL, "an unknown flag")
		c.is(unix.Statx(cwd, "reg", unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st), nil, "FORCE_SYNC")
	}},
	{name: "time/relatime", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		read := func() { c.content("f") }
		set := func(a, m time.Time) {
			c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{unix.NsecToTimespec(a.UnixNano()), unix.NsecToTimespec(m.UnixNano())}, 0))
			eq(c, nano(c.stat("f").Atim), a.UnixNano(), "atime just set")
		}
		future := time.Now().Add(time.Hour)
		set(future, time.Now().Add(-time.Hour)) // atime is later than mtime and ctime, and less than a day old
		before := c.stat("f").Atim
		tick()
		read()
		eq(c, c.stat("f").Atim, before, "atime after a read, later than mtime and ctime")
		set(time.Now().Add(-48*time.Hour), time.Now().Add(-72*time.Hour))
		before = c.stat("f").Atim
		tick()
		read()
		c.true(nano(c.stat("f").Atim) > nano(before), "atime of two days ago is updated")
		before = c.stat("f").Atim
		tick()
		read()
		eq(c, c.stat("f").Atim, before, "atime after a second read")
		c.pwrite(c.open("f", wo), "x", 0)
		tick()
		read()
		c.true(nano(c.stat("f").Atim) > nano(before), "atime after a write and a read")
	}, known: cachedPages},
	{name: "time/noatime-flag", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.changes(func() { c.pread(c.open("f", ro|unix.O_NOATIME), 5, 0) }, "f", "")
	}},
	{name: "time/monotonic-across-writes", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", wo)
		var last int64
		for i := range 50 {
			c.pwrite(fd, "x", int64(i))
			now := nano(c.fstat(fd).Mtim)
			c.true(now >= last, "mtime goes forward")
			last = now
		}
	}},
	{name: "time/of-new", run: func(c *ctx) {
		start := time.Now().Add(-20 * time.Millisecond).UnixNano()
		for _, k := range c.kinds() {
			st := c.stat(k)
			c.true(nano(st.Atim) >= start, "atime of new %s is now", k)
			c.true(nano(st.Mtim) >= start, "mtime of new %s is now", k)
			c.true(nano(st.Ctim) >= start, "ctime of new %s is now", k)
			c.true(nano(st.Ctim) <= time.Now().UnixNano(), "ctime of new %s is not later", k)
		}
	}},
}

// timeChanges lists calls and the times that they change, of the file f with content, the directory
// d and the case's directory.
var timeChanges = []struct {
	name  string
	op    func(c *ctx)
	what  []string
	needs need
	known []known
}{
	{"stat", func(c *ctx) { c.stat("f"); c.statx("d") }, []string{"f", "", "d", ""}, 0, nil},
	{"open", func(c *ctx) { c.open("f", rw) }, []string{"f", "", ".", ""}, 0, nil},
	{"open-creat-existing", func(c *ctx) { c.open("f", rw|unix.O_CREAT, 0o644) }, []string{"f", "", ".", ""}, 0, nil},
	{"open-trunc", func(c *ctx) { c.open("f", rw|unix.O_TRUNC) }, []string{"f", "mc", ".", ""}, 0, nil},
	{"open-trunc-empty", func(c *ctx) { c.open("empty", rw|unix.O_TRUNC) }, []string{"empty", "mc"}, 0, nil},
	{"creat", func(c *ctx) { c.open("new", rw|unix.O_CREAT, 0o644) }, []string{".", "mc"}, 0, nil},
	{"read", func(c *ctx) { c.pread(c.open("f", ro), 5, 0) }, []string{"f", "a"}, 0, nil},
	{"read-at-the-end", func(c *ctx) { c.pread(c.open("f", ro), 5, 1000000) }, []string{}, 0, nil},
	{"read-nothing", func(c *ctx) { _, err := unix.Read(c.open("f", ro), nil); c.do(err) }, []string{"f", ""}, needsExactAtime, nil},
	{"write", func(c *ctx) { c.pwrite(c.open("f", rw), "x", 0) }, []string{"f", "mc", ".", ""}, 0, nil},
	{"write-nothing", func(c *ctx) { c.pwrite(c.open("f", rw), "", 0) }, []string{"f", ""}, 0, nil},
	{"append", func(c *ctx) { c.pwrite(c.open("f", rw), "x", 100000) }, []string{"f", "mc"}, 0, nil},
	{"write-direct", func(c *ctx) {
		if c.target.has&needsDirect != 0 {
			_, err := unix.Pwrite(c.open("f", rw|unix.O_DIRECT), aligned(4096), 0)
			c.do(err)
		}
	}, []string{"f", "mc"}, 0, nil},
	{"write-failed", func(c *ctx) { _, err := unix.Write(c.open("f", ro), []byte("x")); c.is(err, unix.EBADF, "write") }, []string{"f", ""}, 0, nil},
	{"ftruncate", func(c *ctx) { c.do(unix.Ftruncate(c.open("f", rw), 1)) }, []string{"f", "mc"}, 0, nil},
	{"ftruncate-larger", func(c *ctx) { c.do(unix.Ftruncate(c.open("f", rw), 99999)) }, []string{"f", "mc"}, 0, nil},
	{"ftruncate-same", func(c *ctx) { c.do(unix.Ftruncate(c.open("f", rw), 7)) }, []string{"f", "mc"}, 0, nil},
	{"truncate", func(c *ctx) { c.do(unix.Truncate("f", 1)) }, []string{"f", "mc"}, 0, nil},
	{"fallocate-extends", func(c *ctx) { c.do(unix.Fallocate(c.open("f", rw), 0, 0, 20000)) }, []string{"f", "mc"}, 0, nil},
	{"punch-hole", func(c *ctx) {
		c.do(unix.Fallocate(c.open("f", rw), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096))
	}, []string{"f", "mc"}, 0, nil},
	{"copy-file-range", func(c *ctx) {
		var from, to int64
		_, err := unix.CopyFileRange(c.open("f", ro), &from, c.open("g", wo), &to, 7, 0)
		c.do(err)
	}, []string{"f", "a", "g", "mc"}, 0, nil},
	{"sendfile", func(c *ctx) { _, err := unix.Sendfile(c.open("g", wo), c.open("f", ro), nil, 7); c.do(err) }, []string{"f", "a", "g", "mc"}, 0, nil},
	{"chmod", func(c *ctx) { c.do(unix.Chmod("f", 0o600)) }, []string{"f", "c", ".", ""}, 0, nil},
	{"chmod-same", func(c *ctx) { c.do(unix.Chmod("f", 0o644)) }, []string{"f", "c"}, 0, nil},
	{"chown", func(c *ctx) { c.do(unix.Chown("f", 1, 1)) }, []string{"f", "c", ".", ""}, 0, nil},
	{"chown-nothing", func(c *ctx) { c.do(unix.Chown("f", -1, -1)) }, []string{"f", "c"}, 0, nil},
	{"chown-same", func(c *ctx) { c.do(unix.Chown("f", 0, 0)) }, []string{"f", "c"}, 0, nil},
	{"link", func(c *ctx) { c.do(unix.Link("f", "d/l")) }, []string{"f", "c", "d", "mc", ".", ""}, 0, nil},
	{"unlink", func(c *ctx) { c.do(unix.Unlink("f")) }, []string{"f", "c", ".", "mc"}, 0, nil},
	{"unlink-one-of-two", func(c *ctx) { c.do(unix.Unlink("two")) }, []string{"two2", "c", ".", "mc"}, 0, nil},
	{"rename", func(c *ctx) { c.do(unix.Rename("f", "d/f")) }, []string{"f", "c", ".", "mc", "d", "mc"}, 0, nil},
	{"rename-within", func(c *ctx) { c.do(unix.Rename("f", "h")) }, []string{"f", "c", ".", "mc", "d", ""}, 0, nil},
	{"rename-over", func(c *ctx) { c.do(unix.Rename("f", "g")) }, []string{"f", "c", "g", "c", ".", "mc"}, 0, nil},
	{"rename-directory", func(c *ctx) { c.do(unix.Rename("d", "e/d")) }, []string{"d", "c", ".", "mc", "e", "mc"}, 0, nil},
	{"rename-to-itself", func(c *ctx) { c.do(unix.Rename("f", "f")) }, []string{"f", "", ".", ""}, 0, nil},
	{"exchange", func(c *ctx) { c.do(unix.Renameat2(cwd, "f", cwd, "d/in", unix.RENAME_EXCHANGE)) },
		[]string{"f", "c", "d/in", "c", ".", "mc", "d", "mc"}, 0, nil},
	{"mkdir", func(c *ctx) { c.do(unix.Mkdir("d/new", 0o755)) }, []string{"d", "mc", ".", ""}, 0, nil},
	{"rmdir", func(c *ctx) { c.do(unix.Rmdir("e")) }, []string{".", "mc"}, 0, nil},
	{"symlink", func(c *ctx) { c.do(unix.Symlink("f", "d/l")) }, []string{"d", "mc", "f", ""}, 0, nil},
	{"mknod", func(c *ctx) { c.do(unix.Mknod("d/p", unix.S_IFIFO, 0)) }, []string{"d", "mc"}, 0, nil},
	{"tmpfile", func(c *ctx) { c.open("d", unix.O_TMPFILE|rw, 0o644) }, []string{"d", ""}, 0, nil},
	{"mkdir-failed", func(c *ctx) { c.is(unix.Mkdir("d", 0o755), unix.EEXIST, "mkdir") }, []string{"d", "", ".", ""}, 0, nil},
	{"unlink-failed", func(c *ctx) { c.is(unix.Unlink("d"), unix.EISDIR, "unlink") }, []string{"d", "", ".", ""}, 0, nil},
	{"readdir", func(c *ctx) { c.list("d") }, []string{"d", "a"}, 0, nil},
	{"readlink", func(c *ctx) { _, err := unix.Readlink("l", make([]byte, 9)); c.do(err) }, []string{"l", "a", "f", ""}, 0, nil},
	{"lchown-of-link", func(c *ctx) { c.do(unix.Lchown("l", 1, 1)) }, []string{"l", "c", "f", ""}, 0, nil},
	{"utimensat", func(c *ctx) { c.do(unix.UtimesNanoAt(cwd, "d", nil, 0)) }, []string{"d", "amc"}, 0, nil},
	{"mmap-read", func(c *ctx) {
		b, err := unix.Mmap(c.open("f", ro), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		c.do(err)
		_ = string(b[:1])
		c.do(unix.Munmap(b))
	}, []string{"f", "a"}, 0, nil},
	{"mmap-write-and-msync", func(c *ctx) {
		b, err := unix.Mmap(c.open("f", rw), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		b[0] = 'x'
		c.do(unix.Msync(b, unix.MS_SYNC))
		c.do(unix.Munmap(b))
	}, []string{"f", "mc"}, 0, nil},
	{"fsync", func(c *ctx) { c.do(unix.Fsync(c.open("f", rw))) }, []string{"f", ""}, 0, nil},
	{"close", func(c *ctx) { c.close(c.open("f", rw)) }, []string{"f", ""}, 0, nil},
	{"lseek", func(c *ctx) { _, err := unix.Seek(c.open("f", ro), 0, unix.SEEK_DATA); c.do(err) }, []string{"f", ""}, 0, nil},
	{"exec", func(c *ctx) { out, err := c.execAs(root, "./prog"); c.is(err, nil, "%s", out) }, []string{"prog", "a"}, 0, nil},
}

// timeChangeCases has a case for each of timeChanges.
var timeChangeCases = func() (l []testCase) {
	for _, x := range timeChanges {
		l = append(l, testCase{name: "time/change/" + x.name, needs: x.needs, known: x.known, run: func(c *ctx) {
			c.file("f", 0o644, "content")
			c.file("g", 0o644, strings.Repeat("another content", 1000))
			c.file("empty", 0o644)
			c.file("two", 0o644)
			c.do(unix.Link("two", "two2"))
			c.mkdir("d", 0o755)
			c.mkdir("e", 0o755)
			c.file("d/in", 0o644)
			c.do(unix.Symlink("f", "l"))
			if x.name == "exec" {
				c.copyProgram("/usr/bin/true", "prog")
			}
			if x.name == "mmap-write-and-msync" {
				c.mmapTimes()
				return
			}
			c.changes(func() { x.op(c) }, x.what...)
		}})
	}
	return l
}()

// mmapTimes checks that a store through a mapping sets mtime and ctime between the store and the
// end of msync. It may set atime.
func (c *ctx) mmapTimes() {
	c.do(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}, 0))
	tick()
	before := c.stat("f")
	fd := c.open("f", rw)
	b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	c.do(err)
	b[0] = 'x'
	c.do(unix.Msync(b, unix.MS_SYNC))
	c.do(unix.Munmap(b))
	after := c.stat("f")
	c.true(nano(after.Mtim) > nano(before.Mtim), "mtime after a store and msync: %s", fmt.Sprint(after.Mtim))
	c.true(nano(after.Ctim) > nano(before.Ctim), "ctime after a store and msync")
}
