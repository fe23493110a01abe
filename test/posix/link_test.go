package posix

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

var linkCases = []testCase{
	{name: "link/hard", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.mkdir("d", 0o755)
		c.do(unix.Link("f", "g"))
		c.do(unix.Link("g", "d/h"))
		for _, n := range []string{"f", "g", "d/h"} {
			st := c.stat(n)
			eq(c, st.Ino, c.stat("f").Ino, "inode of %s", n)
			eq(c, st.Nlink, 3, "links of %s", n)
			eq(c, c.content(n), "content", "%s", n)
		}
		c.do(unix.Unlink("f"))
		eq(c, c.stat("g").Nlink, 2, "links")
		c.file("g", 0o600, "new")
		eq(c, c.content("d/h"), "new", "by the other name")
	}},
	{name: "link/hard-of-every-kind", run: func(c *ctx) {
		for _, k := range c.kinds() {
			if k == "dir" {
				c.is(unix.Link(k, "ldir"), unix.EPERM, "link of a directory")
				continue
			}
			c.is(unix.Link(k, "l"+k), nil, "link of %s", k)
			eq(c, c.stat("l"+k).Ino, c.stat(k).Ino, "inode of %s", k)
			eq(c, c.stat("l"+k).Mode, c.stat(k).Mode, "mode of %s", k)
			eq(c, c.stat(k).Nlink, 2, "links of %s", k)
		}
		eq(c, c.stat("lsym").Mode&unix.S_IFMT, unix.S_IFLNK, "link(2) does not follow")
		c.is(unix.Linkat(cwd, "sym", cwd, "followed", unix.AT_SYMLINK_FOLLOW), nil, "linkat AT_SYMLINK_FOLLOW")
		eq(c, c.stat("followed").Ino, c.stat("reg").Ino, "which does")
		c.is(unix.Linkat(cwd, "reg", cwd, "x", 0x8000), unix.EINVAL, "linkat with an unknown flag")
	}},
	{name: "link/emlink-not-before-65001", needs: needsManyLinks, slow: true, run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		for i := range 65000 {
			if err := unix.Link("f", fmt.Sprintf("d/%d", i)); err != nil {
				c.fatalf("link %d: %v", i+2, err)
			}
		}
		eq(c, c.stat("f").Nlink, 65001, "links")
		for i := range 1000 {
			c.do(unix.Unlink(fmt.Sprintf("d/%d", i)))
		}
		eq(c, c.stat("f").Nlink, 64001, "links")
	}},
	{name: "link/directory-nlink", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		eq(c, c.stat("d").Nlink, 2, "links of an empty directory")
		for i := range 5 {
			c.mkdir(fmt.Sprintf("d/%d", i), 0o755)
		}
		c.file("d/f", 0o644)
		eq(c, c.stat("d").Nlink, 7, "links with five directories in it")
		c.mkdir("e", 0o755)
		c.do(unix.Rename("d/0", "e/0"))
		eq(c, c.stat("d").Nlink, 6, "links after one moved away")
		eq(c, c.stat("e").Nlink, 3, "links of where it went")
		c.do(unix.Rename("d/1", "e/0"))
		eq(c, c.stat("e").Nlink, 3, "links after one was replaced")
		c.do(unix.Renameat2(cwd, "d/2", cwd, "f2", unix.RENAME_NOREPLACE))
		c.file("x", 0o644)
		c.do(unix.Renameat2(cwd, "d/3", cwd, "x", unix.RENAME_EXCHANGE))
		eq(c, c.stat("d").Nlink, 3, "links after one was exchanged with a file")
		c.do(unix.Rmdir("d/4"))
		eq(c, c.stat("d").Nlink, 2, "links in the end")
	}},
	{name: "link/many-directories", run: func(c *ctx) {
		for i := range 3000 {
			c.do(unix.Mkdir(fmt.Sprint(i), 0o755))
		}
		c.oneOf(func() error {
			if n := c.stat(".").Nlink; n != 3002 && n != 1 {
				return unix.Errno(n)
			}
			return unix.Errno(0)
		}(), "links of a directory with 3000 in it", 0)
		for i := range 3000 {
			c.do(unix.Rmdir(fmt.Sprint(i)))
		}
	}},
	{name: "link/symlink-lengths", run: func(c *ctx) {
		for _, n := range []int{1, 10, 59, 60, 61, 100, 255, 256, 1000, 2047, 4000, 4094, 4095} {
			target := strings.Repeat("t", n)
			name := fmt.Sprint(n)
			err := unix.Symlink(target, name)
			if n > 4000 && c.target.control && err == unix.ENAMETOOLONG {
				continue // ext4 also stores the final NUL in the block
			}
			c.is(err, nil, "symlink of %d bytes", n)
			b := make([]byte, 5000)
			got, err := unix.Readlink(name, b)
			c.is(err, nil, "readlink of %d bytes", n)
			c.true(got == n && string(b[:got]) == target, "the link of %d bytes comes back", n)
			eq(c, c.size(name), int64(n), "st_size")
			got, err = unix.Readlink(name, b[:1])
			c.is(err, nil, "readlink into a byte")
			eq(c, got, 1, "which is cut")
		}
		c.is(unix.Symlink(strings.Repeat("t", 4096), "x"), unix.ENAMETOOLONG, "a link of 4096 bytes")
		c.is(unix.Symlink("", "x"), unix.ENOENT, "an empty link")
	}},
	{name: "link/symlink-any-bytes", run: func(c *ctx) {
		for i, s := range []string{"\xff\x01\n", "//x//", "..", ".", "/", "a/../b"} {
			n := fmt.Sprint(i)
			c.do(unix.Symlink(s, n))
			b := make([]byte, 100)
			got, _ := unix.Readlink(n, b)
			eq(c, string(b[:got]), s, "link %d", i)
		}
	}},
	{name: "link/symlink-follow", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.file("d/f", 0o644, "content")
		c.do(unix.Symlink("d", "ld"))
		c.do(unix.Symlink("d/f", "lf"))
		c.do(unix.Symlink("../d/f", "d/up"))
		c.do(unix.Symlink(c.dir+"/d/f", "abs"))
		for _, n := range []string{"ld/f", "lf", "d/up", "ld/up", "abs"} {
			eq(c, c.content(n), "content", "%s", n)
		}
		c.is(try("lf", ro|unix.O_NOFOLLOW), unix.ELOOP, "O_NOFOLLOW")
		c.is(try("ld/f", ro|unix.O_NOFOLLOW), nil, "O_NOFOLLOW, a link on the way")
		c.is(try("ld", ro|unix.O_NOFOLLOW|unix.O_DIRECTORY), unix.ENOTDIR, "O_NOFOLLOW|O_DIRECTORY")
		c.is(try("lf", unix.O_PATH|unix.O_NOFOLLOW), nil, "O_PATH|O_NOFOLLOW")
		c.do(unix.Symlink("made", "dangling"))
		c.is(try("dangling", wo|unix.O_CREAT|unix.O_EXCL, 0o644), unix.EEXIST, "O_EXCL of a dangling link")
		c.is(try("dangling", ro), unix.ENOENT, "open of a dangling link")
		c.is(try("dangling", wo|unix.O_CREAT, 0o644), nil, "O_CREAT by a dangling link")
		c.there("made")
		c.do(unix.Unlink("dangling"))
		c.there("made")
	}},
	{name: "link/symlink-chain", run: func(c *ctx) {
		c.file("l0", 0o644)
		for i := range 41 {
			c.do(unix.Symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d", i+1)))
		}
		c.is(try("l40", ro), nil, "40 links")
		c.is(try("l41", ro), unix.ELOOP, "41 links")
	}},
	{name: "link/unlinked-but-open", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		fd := c.open("f", rw)
		c.do(unix.Unlink("f"))
		c.gone("f")
		eq(c, c.fstat(fd).Nlink, 0, "links")
		c.pwrite(fd, strings.Repeat("x", 100000), 7)
		eq(c, c.pread(fd, 8, 0), "contentx", "content")
		c.is(unix.Ftruncate(fd, 3), nil, "ftruncate")
		c.is(unix.Fchmod(fd, 0o600), nil, "fchmod")
		c.is(unix.Fchown(fd, 3, 3), nil, "fchown")
		c.is(unix.Fsync(fd), nil, "fsync")
		st := c.fstat(fd)
		eq(c, st.Size, 3, "size")
		eq(c, st.Uid, 3, "owner")
		c.file("f", 0o644, "another")
		eq(c, c.pread(fd, 8, 0), "con", "content when the name is another's")
		c.is(unix.Linkat(cwd, fmt.Sprintf("/proc/thread-self/fd/%d", fd), cwd, "back", unix.AT_SYMLINK_FOLLOW), unix.ENOENT,
			"linking it again")
	}},
	{name: "link/unlinked-by-one-of-many", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		a, b := c.open("f", ro), c.open("f", rw)
		c.do(unix.Rename("f", "g"))
		c.do(unix.Unlink("g"))
		c.close(a)
		c.pwrite(b, "C", 0)
		eq(c, c.pread(b, 7, 0), "Content", "content")
	}},
	{name: "link/replaced-but-open", run: func(c *ctx) {
		c.file("f", 0o644, "old")
		c.file("g", 0o644, "new")
		fd := c.open("f", rw)
		c.do(unix.Rename("g", "f"))
		eq(c, c.pread(fd, 5, 0), "old", "what was replaced")
		eq(c, c.fstat(fd).Nlink, 0, "its links")
		eq(c, c.content("f"), "new", "what is there")
	}},
}
