package posix

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// changing returns all calls that change something, by name, for the tree that prepare makes.
func (c *ctx) changing() map[string]func() error {
	times := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	return map[string]func() error{
		"open for writing":   func() error { return try("f", wo) },
		"open read-write":    func() error { return try("f", rw) },
		"open O_TRUNC":       func() error { return try("f", ro|unix.O_TRUNC) },
		"open O_CREAT":       func() error { return try("new", ro|unix.O_CREAT, 0o644) },
		"O_TMPFILE":          func() error { return try(".", rw|unix.O_TMPFILE, 0o644) },
		"truncate":           func() error { return unix.Truncate("f", 1) },
		"mkdir":              func() error { return unix.Mkdir("new", 0o755) },
		"mknod":              func() error { return unix.Mknod("new", unix.S_IFIFO|0o644, 0) },
		"symlink":            func() error { return unix.Symlink("f", "new") },
		"link":               func() error { return unix.Link("f", "new") },
		"unlink":             func() error { return unix.Unlink("f") },
		"rmdir":              func() error { return unix.Rmdir("d") },
		"rename":             func() error { return unix.Rename("f", "new") },
		"rename over":        func() error { return unix.Rename("f", "g") },
		"exchange":           func() error { return unix.Renameat2(cwd, "f", cwd, "d", unix.RENAME_EXCHANGE) },
		"chmod":              func() error { return unix.Chmod("f", 0o600) },
		"lchown":             func() error { return unix.Lchown("s", 1, 1) },
		"utimens":            func() error { return unix.UtimesNanoAt(cwd, "f", times, 0) },
		"utimens now":        func() error { return unix.UtimesNanoAt(cwd, "f", nil, 0) },
		"setxattr":           func() error { return unix.Setxattr("f", "user.a", []byte("new"), 0) },
		"removexattr":        func() error { return unix.Removexattr("f", "user.a") },
		"setting a list":     func() error { return unix.Setxattr("f", aclAccess, acl("u::6 u:1:6 g::4 m::6 o::4"), 0) },
		"access for writing": func() error { return unix.Access("f", unix.W_OK) },
	}
}

// fill creates a file that takes all space for data.
func (c *ctx) fill(name string) {
	c.file(name, 0o644)
	fd := c.open(name, rw)
	off := int64(0)
	for step := int64(1 << 30); step >= 4096; {
		if err := unix.Fallocate(fd, fKeep, off, step); err == unix.ENOSPC {
			step /= 2
		} else {
			c.do(err)
			off += step
		}
	}
	c.close(fd)
}

// until calls op with new long names until it fails.
func (c *ctx) until(what string, limit int, op func(name string) error) {
	for i := range limit {
		name := fmt.Sprintf("full/%s-%s%d", strings.Fields(what)[0], strings.Repeat("n", 200), i)
		if err := op(name); err != nil {
			c.is(err, unix.ENOSPC, "%s until there is no space", what)
			return
		}
	}
	c.fatalf("%s %d times, and there is still space", what, limit)
}

// writes writes n bytes at byte off.
func (c *ctx) writes(name string, off int64, n int) error {
	fd := c.open(name, rw)
	defer c.close(fd)
	for n > 0 {
		k, err := unix.Pwrite(fd, make([]byte, n), off)
		if err != nil {
			return err
		}
		off, n = off+int64(k), n-k
	}
	return unix.Fsync(fd)
}

// errnoCases checks errors that concern the whole filesystem.
var errnoCases = []testCase{
	{name: "errno/read-only", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.file("g", 0o644)
		c.mkdir("d", 0o755)
		c.do(unix.Symlink("f", "s"))
		c.do(unix.Setxattr("f", "user.a", []byte("old"), 0))
		remount := func(flags uintptr) { c.do(unix.Mount("", c.mounted.dir, "", unix.MS_REMOUNT|flags, "")) }
		remount(unix.MS_RDONLY)
		c.atEnd(func() { _ = unix.Mount("", c.mounted.dir, "", unix.MS_REMOUNT, "") })
		for name, op := range c.changing() {
			c.is(op(), unix.EROFS, "%s on a read-only filesystem", name)
		}
		if c.target.has&needsFlags != 0 {
			c.is(c.setFlags("f", flagNodump), unix.EROFS, "chattr on a read-only filesystem")
		}
		c.is(unix.Access("f", unix.R_OK), nil, "access for reading")
		eq(c, c.content("f"), "content", "content")
		c.is(unix.Mkdir("d", 0o755), unix.EEXIST, "mkdir over what is there")
		remount(0)
		c.is(unix.Unlink("f"), nil, "unlink when it is writable again")
	}},
	{name: "errno/no-space", needs: needsFullMetadata, slow: true, run: func(c *ctx) {
		before := c.free()
		c.mkdir("full", 0o755)
		c.file("f", 0o644, "content")
		c.file("small", 0o644)
		c.fill("filler")
		c.is(c.writes("f", 1<<16, 1<<20), unix.ENOSPC, "a write")
		fd := c.open("f", rw)
		c.is(unix.Fallocate(fd, 0, 1<<20, 1<<20), unix.ENOSPC, "fallocate")
		c.is(unix.Fallocate(fd, fZero, 1<<21, 1<<20), unix.ENOSPC, "zeroing a hole")
		c.close(fd)
		const many = 300_000
		c.until("symlink of a long target", many, func(name string) error { return unix.Symlink(strings.Repeat("t", 4000), name) })
		c.until("setxattr", 10, func(name string) error { return unix.Setxattr("f", "user.b", bytes.Repeat([]byte("v"), 60000), 0) })
		c.until("mkdir", many, func(name string) error { return unix.Mkdir(name, 0o755) })
		c.until("creat", many, func(name string) error { return try(name, wo|unix.O_CREAT|unix.O_EXCL, 0o644) })
		c.until("mknod", many, func(name string) error { return unix.Mknod(name, unix.S_IFIFO|0o644, 0) })
		c.until("link", many, func(name string) error { return unix.Link("small", name) })
		c.until("rename to a longer name", 10, func(name string) error { return unix.Rename("small", name) })
		eq(c, c.content("f"), "content", "content of a file that could not grow")
		c.is(unix.Chmod("f", 0o600), nil, "chmod needs no space")
		c.is(unix.Unlink("filler"), nil, "unlink")
		c.is(unix.Mkdir("full/then", 0o755), nil, "mkdir when there is space again")
		c.is(unix.Rename("small", "full/then/small"), nil, "rename then")
		c.is(c.writes("f", 1<<16, 1<<16), nil, "a write then")
		c.do(os.RemoveAll("full"))
		c.freed(before)
	}},
	{name: "errno/fault", run: func(c *ctx) {
		c.file("f", 0o644)
		at := ^uintptr(99) // cwd, AT_FDCWD
		const bad = 1      // an address that is never mapped
		fd := uintptr(c.open("f", rw))
		for _, o := range []struct {
			what                 string
			call, a1, a2, a3, a4 uintptr
		}{
			{"openat", unix.SYS_OPENAT, at, bad, ro, 0},
			{"mkdirat", unix.SYS_MKDIRAT, at, bad, 0o755, 0},
			{"unlinkat", unix.SYS_UNLINKAT, at, bad, 0, 0},
			{"truncate", unix.SYS_TRUNCATE, bad, 0, 0, 0},
			{"readlinkat", unix.SYS_READLINKAT, at, bad, bad, 10},
			{"setxattr", unix.SYS_SETXATTR, bad, bad, bad, 1},
			{"chdir", unix.SYS_CHDIR, bad, 0, 0, 0},
			{"fstat", unix.SYS_FSTAT, fd, bad, 0, 0},
			{"fstatfs", unix.SYS_FSTATFS, fd, bad, 0, 0},
			{"statfs", unix.SYS_STATFS, bad, bad, 0, 0},
		} {
			_, _, e := unix.Syscall6(o.call, o.a1, o.a2, o.a3, o.a4, 0, 0)
			c.is(e, unix.EFAULT, "%s", o.what)
		}
	}},
	{name: "errno/deadlock", run: func(c *ctx) {
		c.file("a", 0o644)
		c.file("b", 0o644)
		b := c.open("b", rw)
		c.is(posixLock(b, unix.F_SETLKW, lk(unix.F_WRLCK, 0, 1)), nil, "locking one file")
		release := c.hold("a", "posix-then-b")
		time.Sleep(500 * time.Millisecond) // the child has locked a, and waits for b
		a := c.open("a", rw)
		c.is(posixLock(a, unix.F_SETLKW, lk(unix.F_WRLCK, 0, 1)), unix.EDEADLK, "waiting for who waits for us")
		c.is(posixLock(b, unix.F_SETLK, lk(unix.F_UNLCK, 0, 1)), nil, "unlocking")
		release()
		c.is(posixLock(a, unix.F_SETLKW, lk(unix.F_WRLCK, 0, 1)), nil, "locking when the other is gone")
	}},
}
