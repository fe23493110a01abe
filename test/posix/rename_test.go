package posix

import (
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

var renameCases = []testCase{
	{name: "rename/matrix", run: func(c *ctx) {
		// Every kind over every kind, and over a directory that is not empty.
		kinds := []string{"reg", "dir", "sym", "fifo", "sock", "chr", "blk", "full"}
		for _, from := range kinds {
			for _, to := range kinds {
				sub := from + "-" + to
				c.kindsIn(sub + "-a")
				c.kindsIn(sub + "-b")
				for _, d := range []string{"-a/full", "-b/full"} {
					c.mkdir(sub+d, 0o755)
					c.file(sub+d+"/x", 0o644)
				}
				a, b := sub+"-a/"+from, sub+"-b/"+to
				isDir := func(k string) bool { return k == "dir" || k == "full" }
				var want error
				switch {
				case isDir(from) && !isDir(to):
					want = unix.ENOTDIR
				case !isDir(from) && isDir(to):
					want = unix.EISDIR
				case to == "full":
					want = unix.ENOTEMPTY
				}
				was, other := c.stat(a), c.stat(b)
				c.is(unix.Renameat2(cwd, a, cwd, b, unix.RENAME_NOREPLACE), unix.EEXIST, "%s over %s, NOREPLACE", from, to)
				c.is(unix.Renameat2(cwd, a, cwd, b, unix.RENAME_EXCHANGE), nil, "%s with %s, EXCHANGE", from, to)
				eq(c, c.stat(b).Ino, was.Ino, "%s with %s: inode of the new name", from, to)
				eq(c, c.stat(a).Ino, other.Ino, "%s with %s: inode of the old name", from, to)
				c.do(unix.Renameat2(cwd, a, cwd, b, unix.RENAME_EXCHANGE))
				c.is(unix.Rename(a, b), want, "%s over %s", from, to)
				if want == nil {
					c.gone(a)
					eq(c, c.stat(b).Ino, was.Ino, "%s over %s: inode", from, to)
					eq(c, c.stat(b).Mode, was.Mode, "%s over %s: mode", from, to)
				} else {
					eq(c, c.stat(a).Ino, was.Ino, "%s over %s: the old name stays", from, to)
					eq(c, c.stat(b).Ino, other.Ino, "%s over %s: the new name stays", from, to)
				}
			}
		}
	}},
	{name: "rename/same", run: func(c *ctx) {
		c.file("f", 0o644)
		c.do(unix.Link("f", "g"))
		c.mkdir("d", 0o755)
		c.is(unix.Rename("f", "f"), nil, "a file to itself")
		c.is(unix.Rename("d", "d"), nil, "a directory to itself")
		c.is(unix.Rename("f", "g"), nil, "a link to another of the same file")
		c.there("f")
		c.there("g")
		eq(c, c.stat("f").Nlink, 2, "links")
		c.is(unix.Renameat2(cwd, "f", cwd, "f", unix.RENAME_EXCHANGE), nil, "a file with itself")
		c.is(unix.Renameat2(cwd, "f", cwd, "f", unix.RENAME_NOREPLACE), unix.EEXIST, "a file to itself, NOREPLACE")
	}},
	{name: "rename/loops", run: func(c *ctx) {
		c.mkdir("a", 0o755)
		c.mkdir("a/b", 0o755)
		c.mkdir("a/b/c", 0o755)
		c.is(unix.Rename("a", "a/x"), unix.EINVAL, "a directory into itself")
		c.is(unix.Rename("a", "a/b/x"), unix.EINVAL, "a directory below itself")
		c.is(unix.Rename("a", "a/b/c"), unix.EINVAL, "a directory over one below itself")
		c.is(unix.Rename("a/b/c", "a/b"), unix.ENOTEMPTY, "a directory over the one it is in")
		c.is(unix.Rename("a/b/c", "a"), unix.ENOTEMPTY, "a directory over one above")
		c.is(unix.Renameat2(cwd, "a", cwd, "a/b", unix.RENAME_EXCHANGE), unix.EINVAL, "exchange with what is below")
		c.is(unix.Renameat2(cwd, "a/b", cwd, "a", unix.RENAME_EXCHANGE), unix.EINVAL, "exchange with what is above")
		c.there("a/b/c")
	}},
	{name: "rename/directory-moves", run: func(c *ctx) {
		for _, d := range []string{"a", "b", "a/d"} {
			c.mkdir(d, 0o755)
		}
		c.file("a/d/f", 0o644, "content")
		fd := c.open("a/d", ro)
		c.do(unix.Rename("a/d", "b/e"))
		eq(c, c.content("b/e/f"), "content", "a file in it")
		eq(c, c.stat("b/e/..").Ino, c.stat("b").Ino, "..")
		var st unix.Stat_t
		c.is(unix.Fstatat(fd, "../e/f", &st, 0), nil, "by a descriptor from before")
		for _, e := range c.list("b/e") {
			if e.name == ".." {
				eq(c, e.ino, c.stat("b").Ino, "inode of .. in the directory")
			}
		}
	}},
	{name: "rename/flags", run: func(c *ctx) {
		c.file("f", 0o644)
		c.file("g", 0o644)
		c.is(unix.Renameat2(cwd, "f", cwd, "g", unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE), unix.EINVAL, "NOREPLACE|EXCHANGE")
		c.is(unix.Renameat2(cwd, "f", cwd, "g", unix.RENAME_WHITEOUT|unix.RENAME_EXCHANGE), unix.EINVAL, "WHITEOUT|EXCHANGE")
		c.is(unix.Renameat2(cwd, "f", cwd, "g", 8), unix.EINVAL, "an unknown flag")
		c.is(unix.Renameat2(cwd, "f", cwd, "none", unix.RENAME_EXCHANGE), unix.ENOENT, "EXCHANGE with nothing")
		c.is(unix.Renameat2(cwd, "none", cwd, "f", unix.RENAME_EXCHANGE), unix.ENOENT, "EXCHANGE of nothing")
		c.is(unix.Renameat2(cwd, "f", cwd, "h", unix.RENAME_NOREPLACE), nil, "NOREPLACE")
		c.gone("f")
		c.there("h")
	}},
	{name: "rename/whiteout", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.is(unix.Renameat2(cwd, "f", cwd, "g", unix.RENAME_WHITEOUT), nil, "WHITEOUT")
		st := c.stat("f")
		eq(c, st.Mode&unix.S_IFMT, unix.S_IFCHR, "type of what is left")
		eq(c, st.Rdev, 0, "its device")
		eq(c, c.content("g"), "content", "what was moved")
		c.file("h", 0o644)
		c.is(unix.Renameat2(cwd, "g", cwd, "h", unix.RENAME_WHITEOUT), nil, "WHITEOUT over a file")
		eq(c, c.stat("g").Mode&unix.S_IFMT, unix.S_IFCHR, "type of what is left")
		c.is(unix.Renameat2(cwd, "h", cwd, "g", unix.RENAME_WHITEOUT|unix.RENAME_NOREPLACE), unix.EEXIST, "WHITEOUT|NOREPLACE over a file")
		c.mkdir("d", 0o755)
		c.is(unix.Renameat2(cwd, "d", cwd, "e", unix.RENAME_WHITEOUT), nil, "WHITEOUT of a directory")
		eq(c, c.stat("d").Mode&unix.S_IFMT, unix.S_IFCHR, "type of what is left")
	}},
	{name: "rename/whiteout-by-a-user", run: func(c *ctx) {
		c.mkdir("d", 0o777)
		c.file("d/f", 0o644)
		c.as(bob, func() {
			c.is(unix.Renameat2(cwd, "d/f", cwd, "d/g", unix.RENAME_WHITEOUT), nil, "WHITEOUT, for which Linux 5.8 needs no right")
		})
		eq(c, c.stat("d/f").Mode&unix.S_IFMT, unix.S_IFCHR, "type of what is left")
	}},
	{name: "rename/directory-without-write-permission", run: func(c *ctx) {
		// Moving a directory to another parent changes its "..", so it needs write permission on
		// the directory.
		c.mkdir("a", 0o777)
		c.mkdir("b", 0o777)
		c.mkdir("a/d", 0o555)
		c.chown("a/d", bob.uid, bob.gid)
		c.as(bob, func() {
			c.is(unix.Rename("a/d", "a/e"), nil, "within its directory")
			c.is(unix.Rename("a/e", "b/e"), unix.EACCES, "to another directory")
		})
	}},
	{name: "rename/atomic-replace", run: func(c *ctx) {
		// No reader ever finds the name missing or the content incomplete.
		c.file("f", 0o644, strings.Repeat("a", 5000))
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() {
			c.inThread(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					fd, err := unix.Open("f", ro, 0)
					if err != nil {
						c.fatalf("open during rename: %v", err)
					}
					s := make([]byte, 6000)
					n, err := unix.Read(fd, s)
					unix.Close(fd)
					if n != 5000 || err != nil || s[0] != s[4999] {
						c.fatalf("read during rename: %d, %v", n, err)
					}
				}
			})
		})
		for i := range 500 {
			n := fmt.Sprintf("new%d", i)
			c.file(n, 0o644, strings.Repeat(string(rune('a'+i%26)), 5000))
			c.do(unix.Rename(n, "f"))
		}
		close(stop)
		wg.Wait()
	}},
	{name: "rename/concurrent-directories", run: func(c *ctx) {
		// Concurrent crossing renames must neither hang nor make a loop.
		c.mkdir("a", 0o755)
		c.mkdir("b", 0o755)
		c.mkdir("a/x", 0o755)
		var wg sync.WaitGroup
		for _, m := range [][2]string{{"a/x", "b/x"}, {"b/x", "a/x"}, {"a", "b/x/a"}, {"b", "a/x/b"}, {"b/x/a", "a"}, {"a/x/b", "b"}} {
			wg.Go(func() {
				c.inThread(func() {
					for range 300 {
						_ = unix.Rename(m[0], m[1])
					}
				})
			})
		}
		wg.Wait()
		n := 0
		var count func(d string)
		count = func(d string) {
			if n++; n > 10 {
				return
			}
			for _, e := range c.list(d) {
				if e.name != "." && e.name != ".." {
					count(d + "/" + e.name)
				}
			}
		}
		count(".")
		eq(c, n, 4, "directories that can be reached")
	}},
}
