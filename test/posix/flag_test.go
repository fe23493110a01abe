package posix

import (
	"golang.org/x/sys/unix"
)

// Flags of FS_IOC_SETFLAGS, as in linux/fs.h.
const (
	flagSync      = 0x08
	flagImmutable = 0x10
	flagAppend    = 0x20
	flagNodump    = 0x40
	flagNoatime   = 0x80
	allFlags      = flagSync | flagImmutable | flagAppend | flagNodump | flagNoatime
)

// setFlags sets a file's flags to exactly the given ones, as chattr = does.
func (c *ctx) setFlags(name string, flags int) error {
	fd, err := unix.Open(name, ro|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	got, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(got)&^allFlags|flags)
}

func (c *ctx) flags(name string) int {
	fd := c.open(name, ro)
	defer c.close(fd)
	got, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	c.do(err)
	return int(got) & allFlags
}

// flagged sets flags that are cleared when the case ends.
func (c *ctx) flagged(name string, flags int) {
	c.do(c.setFlags(name, flags))
	c.atEnd(func() { _ = c.setFlags(c.dir+"/"+name, 0) })
}

var flagCases = []testCase{
	{name: "flag/immutable-file", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.file("g", 0o644)
		c.flagged("f", flagImmutable)
		eq(c, c.flags("f"), flagImmutable, "flags")
		perm := func(err error, what string) { c.is(err, unix.EPERM, "%s of an immutable file", what) }
		perm(try("f", wo), "open for writing")
		perm(try("f", rw|unix.O_TRUNC), "open O_TRUNC")
		perm(unix.Truncate("f", 0), "truncate")
		perm(unix.Chmod("f", 0o600), "chmod")
		perm(unix.Chown("f", 1, 1), "chown")
		perm(unix.Unlink("f"), "unlink")
		perm(unix.Rename("f", "h"), "rename")
		perm(unix.Rename("g", "f"), "rename over it")
		perm(unix.Renameat2(cwd, "g", cwd, "f", unix.RENAME_EXCHANGE), "exchange")
		perm(unix.Link("f", "h"), "link")
		perm(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0), "times given")
		perm(unix.Setxattr("f", "user.a", []byte("v"), 0), "setxattr")
		perm(unix.Setxattr("f", aclAccess, acl("u::6 u:1:6 g::4 m::6 o::4"), 0), "setting a list")
		eq(c, c.content("f"), "content", "content")
		c.do(c.setFlags("f", 0))
		c.is(try("f", wo), nil, "open when it is no longer immutable")
		c.is(unix.Unlink("f"), nil, "unlink then")
	}},
	{name: "flag/immutable-utimes-now", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644)
		c.flagged("f", flagImmutable)
		err := unix.UtimesNanoAt(cwd, "f", nil, 0)
		c.oneOf(err, "times now", unix.EPERM, unix.EACCES)
	}},
	{name: "flag/immutable-access", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o666)
		c.flagged("f", flagImmutable)
		c.is(unix.Access("f", unix.R_OK), nil, "access R_OK")
		c.is(unix.Access("f", unix.W_OK), unix.EPERM, "access W_OK")
	}, known: kernelsFlags},
	{name: "flag/immutable-directory", needs: needsFlags, run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.file("d/f", 0o644, "content")
		c.file("g", 0o644)
		c.flagged("d", flagImmutable)
		no := func(err error, what string) { c.oneOf(err, what+" in an immutable directory", unix.EPERM, unix.EACCES) }
		no(try("d/new", wo|unix.O_CREAT, 0o644), "creating")
		no(unix.Mkdir("d/new", 0o755), "mkdir")
		no(unix.Symlink("x", "d/new"), "symlink")
		no(unix.Mknod("d/new", unix.S_IFIFO|0o644, 0), "mknod")
		no(unix.Link("g", "d/new"), "link")
		no(unix.Unlink("d/f"), "unlink")
		no(unix.Rename("d/f", "h"), "rename out")
		no(unix.Rename("g", "d/h"), "rename in")
		no(unix.Rmdir("d"), "rmdir")
		no(try("d", unix.O_TMPFILE|rw, 0o644), "O_TMPFILE")
		c.is(try("d/f", rw|unix.O_TRUNC), nil, "writing to a file in it")
	}},
	{name: "flag/immutable-who", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o666)
		c.chown("f", ann.uid, ann.gid)
		c.as(ann, func() {
			c.is(c.setFlags("f", flagImmutable), unix.EPERM, "setting i by the owner")
			c.is(c.setFlags("f", flagAppend), unix.EPERM, "setting a by the owner")
			c.is(c.setFlags("f", flagNodump), nil, "setting d by the owner")
		})
		c.as(bob, func() { c.oneOf(c.setFlags("f", 0), "changing another's", unix.EPERM, unix.EACCES) })
		c.flagged("f", flagImmutable)
		c.as(ann, func() { c.is(c.setFlags("f", 0), unix.EPERM, "taking i away by the owner") })
	}},
	{name: "flag/append-file", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagAppend)
		perm := func(err error, what string) { c.is(err, unix.EPERM, "%s of an append-only file", what) }
		perm(try("f", wo), "open for writing")
		perm(try("f", wo|unix.O_APPEND|unix.O_TRUNC), "open O_TRUNC")
		perm(unix.Truncate("f", 0), "truncate")
		perm(unix.Chmod("f", 0o600), "chmod")
		perm(unix.Unlink("f"), "unlink")
		perm(unix.Rename("f", "g"), "rename")
		perm(unix.Link("f", "g"), "link")
		perm(unix.UtimesNanoAt(cwd, "f", []unix.Timespec{{Sec: 1}, {Sec: 1}}, 0), "times given")
		c.is(unix.UtimesNanoAt(cwd, "f", nil, 0), nil, "times now")
		fd := c.open("f", wo|unix.O_APPEND)
		_, err := unix.Write(fd, []byte(" more"))
		c.is(err, nil, "appending")
		perm(unix.Ftruncate(fd, 0), "ftruncate")
		perm(unix.Fallocate(fd, fPunch|fKeep, 0, 4096), "punching a hole")
		eq(c, c.content("f"), "content more", "content")
	}},
	{name: "flag/append-setfl", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagAppend)
		fd := c.open("f", wo|unix.O_APPEND)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
		c.is(err, unix.EPERM, "taking O_APPEND away by fcntl")
	}, known: kernelsFlags},
	{name: "flag/append-mmap", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagAppend)
		fd := c.open("f", rw|unix.O_APPEND)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.is(err, unix.EACCES, "a shared writable mapping of an append-only file")
		if err == nil {
			_ = unix.Munmap(b)
		}
	}, known: kernelsFlags},
	{name: "flag/append-is-never-overwritten", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagAppend)
		fd := c.open("f", rw|unix.O_APPEND)
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0)
		_, _ = unix.Pwrite(fd, []byte("XX"), 0)
		_, _ = unix.Pwritev2(fd, [][]byte{[]byte("YY")}, 2, unix.RWF_NOAPPEND)
		eq(c, c.pread(c.open("f", ro), 7, 0), "content", "content after writing in place by a descriptor for appending")
	}},
	{name: "flag/append-is-never-overwritten-by-mmap", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagAppend)
		if b, err := unix.Mmap(c.open("f", rw|unix.O_APPEND), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			b[0] = 'X'
			_ = unix.Msync(b, unix.MS_SYNC)
			_ = unix.Munmap(b)
		}
		fd := c.open("f", ro)
		eq(c, c.pread(fd, 7, 0), "content", "content after a store")
		c.do(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
		eq(c, c.pread(fd, 7, 0), "content", "content when the kernel has dropped the page")
	}, known: cachedPages},
	{name: "flag/append-noatime", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, ann.gid)
		c.flagged("f", flagAppend)
		c.as(ann, func() { c.is(try("f", ro|unix.O_NOATIME), nil, "O_NOATIME by the owner") })
	}},
	{name: "flag/append-directory", needs: needsFlags, run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.file("d/f", 0o644)
		c.flagged("d", flagAppend)
		c.is(try("d/new", wo|unix.O_CREAT, 0o644), nil, "creating")
		c.is(unix.Mkdir("d/sub", 0o755), nil, "mkdir")
		c.is(unix.Unlink("d/f"), unix.EPERM, "unlink")
		c.is(unix.Rmdir("d/sub"), unix.EPERM, "rmdir")
		c.is(unix.Rename("d/f", "d/g"), unix.EPERM, "rename within")
		c.is(unix.Rename("d/f", "g"), unix.EPERM, "rename out")
		c.file("h", 0o644)
		c.is(unix.Rename("h", "d/h"), nil, "rename in")
	}},
	{name: "flag/nodump-and-noatime", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagNodump|flagNoatime)
		eq(c, c.flags("f"), flagNodump|flagNoatime, "flags")
		c.changes(func() { c.content("f") }, "f", "")
		c.pwrite(c.open("f", wo), "C", 0)
		eq(c, c.content("f"), "Content", "content")
	}},
	{name: "flag/sync", needs: needsFlagsSync, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.flagged("f", flagSync)
		eq(c, c.flags("f"), flagSync, "flags")
		c.pwrite(c.open("f", wo), "C", 0)
		eq(c, c.content("f"), "Content", "content")
	}},
	{name: "flag/unknown", needs: needsFlagsSync, run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", ro)
		c.is(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0x01000000), unix.EOPNOTSUPP, "flags that nobody has")
		_, err := unix.IoctlGetInt(fd, 0x5a01)
		c.is(err, unix.ENOTTY, "an ioctl of nobody's")
	}},
	{name: "flag/changes-ctime", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644)
		c.changes(func() { c.do(c.setFlags("f", flagNodump)) }, "f", "c")
	}},
	{name: "flag/fsxattr", needs: needsFlags, run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		c.flagged("d", flagAppend|flagNodump)
		eq(c, c.flags("d"), flagAppend|flagNodump, "flags of a directory")
		eq(c, c.flags("f"), 0, "flags of a new file")
	}},
	{name: "flag/statx", needs: needsFlags | needsStatxFlags, run: func(c *ctx) {
		c.file("f", 0o644)
		c.flagged("f", flagImmutable)
		st := c.statx("f")
		c.true(st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0, "statx says immutable: %#x", st.Attributes)
	}},
	{name: "flag/open-before", needs: needsFlagsOpen, run: func(c *ctx) {
		c.file("f", 0o644, "content")
		fd := c.open("f", rw)
		c.flagged("f", flagImmutable)
		_, err := unix.Pwrite(fd, []byte("x"), 0)
		c.oneOf(err, "writing by a descriptor from before", 0, unix.EPERM)
		c.is(unix.Ftruncate(fd, 0), unix.EPERM, "ftruncate by it")
		c.is(unix.Fallocate(fd, 0, 0, 10000), unix.EPERM, "fallocate by it")
		c.is(unix.Fchmod(fd, 0o600), unix.EPERM, "fchmod by it")
	}},
}
