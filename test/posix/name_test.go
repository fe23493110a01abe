package posix

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const nameMax = 255

// nameOps are calls with a name, for the errors that all of them have in common.
var nameOps = []struct {
	name   string
	create bool // it makes the name
	op     func(name string) error
}{
	{"open", false, func(n string) error { return try(n, ro) }},
	{"open-creat", true, func(n string) error { return try(n, wo|unix.O_CREAT, 0o644) }},
	{"mkdir", true, func(n string) error { return unix.Mkdir(n, 0o755) }},
	{"mknod", true, func(n string) error { return unix.Mknod(n, unix.S_IFREG|0o644, 0) }},
	{"mkfifo", true, func(n string) error { return unix.Mkfifo(n, 0o644) }},
	{"symlink", true, func(n string) error { return unix.Symlink("x", n) }},
	{"link-from", false, func(n string) error { return unix.Link(n, "linked") }},
	{"link-to", true, func(n string) error { return unix.Link("file", n) }},
	{"unlink", false, unix.Unlink},
	{"rmdir", false, unix.Rmdir},
	{"rename-from", false, func(n string) error { return unix.Rename(n, "renamed") }},
	{"rename-to", true, func(n string) error { return unix.Rename("renamed-from", n) }},
	{"stat", false, func(n string) error { var st unix.Stat_t; return unix.Stat(n, &st) }},
	{"lstat", false, func(n string) error { var st unix.Stat_t; return unix.Lstat(n, &st) }},
	{"statx", false, func(n string) error { var st unix.Statx_t; return unix.Statx(cwd, n, 0, unix.STATX_BASIC_STATS, &st) }},
	{"statfs", false, func(n string) error { var st unix.Statfs_t; return unix.Statfs(n, &st) }},
	{"chmod", false, func(n string) error { return unix.Chmod(n, 0o755) }},
	{"chown", false, func(n string) error { return unix.Chown(n, 0, 0) }},
	{"lchown", false, func(n string) error { return unix.Lchown(n, 0, 0) }},
	{"utimensat", false, func(n string) error { return unix.UtimesNanoAt(cwd, n, make([]unix.Timespec, 2), 0) }},
	{"truncate", false, func(n string) error { return unix.Truncate(n, 0) }},
	{"access", false, func(n string) error { return unix.Access(n, 0) }},
	{"readlink", false, func(n string) error { _, err := unix.Readlink(n, make([]byte, 10)); return err }},
	{"chdir", false, unix.Chdir},
	{"setxattr", false, func(n string) error { return unix.Setxattr(n, "user.a", nil, 0) }},
	{"getxattr", false, func(n string) error { _, err := unix.Getxattr(n, "user.a", nil); return err }},
	{"listxattr", false, func(n string) error { _, err := unix.Listxattr(n, nil); return err }},
	{"removexattr", false, func(n string) error { return unix.Removexattr(n, "user.a") }},
	{"name_to_handle_at", false, func(n string) error { _, _, err := unix.NameToHandleAt(cwd, n, unix.AT_SYMLINK_FOLLOW); return err }},
	{"inotify_add_watch", false, func(n string) error {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, n, unix.IN_MODIFY)
		return err
	}},
	{"tmpfile", false, func(n string) error { return try(n, unix.O_TMPFILE|wo, 0o644) }},
}

// nameCases: what names may be, and what every call says of bad ones.
var nameCases = append([]testCase{
	{name: "name/every-byte", run: func(c *ctx) {
		var want []string
		for b := 1; b < 256; b++ {
			if b == '/' || b == '.' {
				continue
			}
			c.do(try(string([]byte{byte(b)}), wo|unix.O_CREAT|unix.O_EXCL, 0o644))
			want = append(want, string([]byte{byte(b)}))
		}
		eq(c, c.names("."), strings.Join(want, " "), "the directory")
		for _, n := range want {
			c.do(unix.Unlink(n))
		}
		var all []byte
		for b := 1; b < 256; b++ {
			if b != '/' {
				all = append(all, byte(b))
			}
		}
		long := string(all) + "x" // 255 bytes, each one there is
		c.do(unix.Mkdir(long, 0o755))
		eq(c, c.names("."), long, "the directory")
		c.do(unix.Rmdir(long))
	}},
	{name: "name/case-and-normal-forms-differ", run: func(c *ctx) {
		for _, n := range []string{"a", "A", "\u00e9", "e\u0301", "\xff\xfe", "\xff", "...", "..a", " ", "-", "a.", "a "} {
			c.is(try(n, wo|unix.O_CREAT|unix.O_EXCL, 0o644), nil, "creating %q", n)
		}
		eq(c, len(c.list("."))-2, 12, "entries")
	}},
	{name: "name/255-bytes", run: func(c *ctx) {
		n := strings.Repeat("n", nameMax)
		c.is(unix.Mkdir(n, 0o755), nil, "mkdir")
		c.is(unix.Rename(n, strings.Repeat("m", nameMax)), nil, "rename")
		c.is(try(strings.Repeat("m", nameMax)+"/"+n, wo|unix.O_CREAT, 0o644), nil, "below")
		c.is(unix.Symlink(n, n), nil, "symlink")
		c.is(unix.Mkfifo(strings.Repeat("p", nameMax), 0o644), nil, "mkfifo")
		var st unix.Statfs_t
		c.do(unix.Statfs(".", &st))
		eq(c, st.Namelen, nameMax, "f_namelen")
	}},
	{name: "name/path-max", run: func(c *ctx) {
		// Directories nest deeper than any path can say; relative calls reach them.
		long := strings.Repeat("d", 200)
		const depth = 40 // 8040 bytes
		for range depth {
			c.do(unix.Mkdir(long, 0o755))
			c.do(unix.Chdir(long))
		}
		c.do(try("deep", wo|unix.O_CREAT, 0o644))
		c.there("deep")
		var b [8192]byte
		_, err := unix.Getcwd(b[:])
		c.oneOf(err, "getcwd of what is longer than PATH_MAX", unix.ENAMETOOLONG, 0)
		c.do(unix.Unlink("deep"))
		for range depth {
			c.do(unix.Chdir(".."))
			c.do(unix.Rmdir(long))
		}
	}},
	{name: "name/path-of-4095", run: func(c *ctx) {
		p := "f" + strings.Repeat("/", 10)
		c.mkdir("d", 0o755)
		path := "d" + strings.Repeat("/.", (4095-3)/2) // 4093 bytes
		path += "/f"
		c.is(try(path[:len(path)-1]+"f", wo|unix.O_CREAT, 0o644), nil, "a path of %d bytes", len(path))
		c.there("d/f")
		c.is(try("d/"+strings.Repeat("/", 4096)+"f", ro), unix.ENAMETOOLONG, "a path of more than 4096 bytes")
		c.is(try(p, ro), unix.ENOENT, "a name that is not there, with slashes")
	}},
	{name: "name/trailing-slash", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		c.do(unix.Symlink("d", "l"))
		c.do(unix.Symlink("f", "lf"))
		c.is(try("f/", ro), unix.ENOTDIR, "open of a file")
		c.is(try("d/", ro), nil, "open of a directory")
		c.is(try("new/", wo|unix.O_CREAT, 0o644), unix.EISDIR, "open O_CREAT")
		c.is(unix.Mkdir("e/", 0o755), nil, "mkdir")
		c.is(unix.Rmdir("e/"), nil, "rmdir")
		c.is(unix.Unlink("f/"), unix.ENOTDIR, "unlink of a file")
		c.is(unix.Rename("f", "g/"), unix.ENOTDIR, "rename of a file")
		c.is(unix.Rename("d/", "e/"), nil, "rename of a directory")
		c.is(unix.Rename("e", "d"), nil, "and back")
		c.is(unix.Link("f", "g/"), unix.ENOENT, "link")
		c.is(unix.Symlink("f", "g/"), unix.ENOENT, "symlink")
		c.is(unix.Mknod("g/", unix.S_IFREG|0o644, 0), unix.ENOENT, "mknod")
		c.is(unix.Rmdir("l/"), unix.ENOTDIR, "rmdir of a link to a directory")
		var st unix.Stat_t
		c.is(unix.Lstat("l/", &st), nil, "lstat of a link to a directory")
		eq(c, st.Mode&unix.S_IFMT, unix.S_IFDIR, "which follows it")
		c.is(unix.Lstat("lf/", &st), unix.ENOTDIR, "lstat of a link to a file")
	}},
	{name: "name/dots", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.mkdir("d/e", 0o755)
		eq(c, c.stat("d/.").Ino, c.stat("d").Ino, "inode of d/.")
		eq(c, c.stat("d/e/..").Ino, c.stat("d").Ino, "inode of d/e/..")
		c.is(unix.Rmdir("d/e/."), unix.EINVAL, "rmdir of .")
		c.is(unix.Rmdir("d/e/.."), unix.ENOTEMPTY, "rmdir of ..")
		c.is(unix.Mkdir("d/.", 0o755), unix.EEXIST, "mkdir of .")
		c.is(unix.Mkdir("d/e/..", 0o755), unix.EEXIST, "mkdir of ..")
		c.is(unix.Unlink("d/."), unix.EISDIR, "unlink of .")
		c.is(unix.Rename("d/e/.", "d/g"), unix.EBUSY, "rename of .")
		c.is(unix.Rename("d/e/..", "d/g"), unix.EBUSY, "rename of ..")
		c.is(unix.Rename("d/e", "d/."), unix.EBUSY, "rename to .")
		c.is(unix.Rename("d/e", "d/e/.."), unix.EBUSY, "rename to ..")
		c.is(unix.Link("d/.", "x"), unix.EPERM, "link of a directory")
	}},
	{name: "name/mountpoint", run: func(c *ctx) {
		root := c.mounted.dir
		c.is(unix.Rmdir(root), unix.EBUSY, "rmdir of a mount point")
		c.is(unix.Rename(root, root+"x"), unix.EBUSY, "rename of a mount point")
		c.is(unix.Rename(c.dir, root+"x"), unix.EXDEV, "rename to another filesystem")
		c.file("f", 0o644)
		c.is(unix.Link("f", root+"x"), unix.EXDEV, "link to another filesystem")
	}},
	{name: "name/kind-errors", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		c.mkdir("full", 0o755)
		c.file("full/f", 0o644)
		c.is(unix.Rmdir("full"), unix.ENOTEMPTY, "rmdir of a full directory")
		c.is(unix.Unlink("d"), unix.EISDIR, "unlink of a directory")
		for _, k := range c.kindsIn("k") {
			if k != "k/dir" {
				c.is(unix.Rmdir(k), unix.ENOTDIR, "rmdir of %s", k)
				c.is(unix.Unlink(k), nil, "unlink of %s", k)
			}
		}
		c.is(unix.Chdir("f"), unix.ENOTDIR, "chdir to a file")
		c.is(unix.Truncate("d", 0), unix.EISDIR, "truncate of a directory")
		_, err := unix.Readlink("f", make([]byte, 5))
		c.is(err, unix.EINVAL, "readlink of a file")
		_, err = unix.Getdents(c.open("f", ro), make([]byte, 100))
		c.is(err, unix.ENOTDIR, "getdents of a file")
		_, err = unix.Read(c.open("d", ro), make([]byte, 10))
		c.is(err, unix.EISDIR, "read of a directory")
		_, err = unix.Pread(c.open("d", ro), make([]byte, 10), 0)
		c.is(err, unix.EISDIR, "pread of a directory")
		_, err = unix.Getdents(c.open("d", ro), make([]byte, 10))
		c.is(err, unix.EINVAL, "getdents into a buffer that holds no entry")
	}},
	{name: "name/existing", run: func(c *ctx) {
		for _, k := range c.kinds() {
			c.is(unix.Mkdir(k, 0o755), unix.EEXIST, "mkdir over %s", k)
			c.is(unix.Mknod(k, unix.S_IFREG|0o644, 0), unix.EEXIST, "mknod over %s", k)
			c.is(unix.Mkfifo(k, 0o644), unix.EEXIST, "mkfifo over %s", k)
			c.is(unix.Symlink("x", k), unix.EEXIST, "symlink over %s", k)
			c.is(unix.Link("reg", k), unix.EEXIST, "link over %s", k)
			c.is(try(k, wo|unix.O_CREAT|unix.O_EXCL, 0o644), unix.EEXIST, "open O_EXCL over %s", k)
		}
	}},
	{name: "name/in-a-deleted-directory", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		fd := c.open("d", ro|unix.O_DIRECTORY)
		c.do(unix.Rmdir("d"))
		at := func(err error, what string) { c.is(err, unix.ENOENT, "%s in a directory that is gone", what) }
		_, err := unix.Openat(fd, "f", wo|unix.O_CREAT, 0o644)
		at(err, "creating")
		at(unix.Mkdirat(fd, "e", 0o755), "mkdir")
		at(unix.Symlinkat("x", fd, "l"), "symlink")
		at(unix.Mknodat(fd, "n", unix.S_IFREG|0o644, 0), "mknod")
		c.file("f", 0o644)
		at(unix.Linkat(cwd, "f", fd, "f", 0), "link")
		at(unix.Renameat(cwd, "f", fd, "f"), "rename")
		eq(c, len(c.getdents(fd, 4096)), 0, "entries of a directory that is gone")
		eq(c, c.fstat(fd).Nlink, 0, "its links")
		c.is(unix.Fchmod(fd, 0o700), nil, "fchmod")
		c.is(unix.Fsync(fd), nil, "fsync")
		c.is(unix.Fchdir(fd), nil, "fchdir")
		var st unix.Stat_t
		c.is(unix.Stat("..", &st), nil, "stat of .. of a directory that is gone")
		_, err = unix.Getcwd(make([]byte, 4096))
		c.is(err, unix.ENOENT, "getcwd")
		c.do(unix.Chdir(c.dir))
	}},
}, nameOpCases()...)

// kindsIn is kinds in a new directory.
func (c *ctx) kindsIn(dir string) (l []string) {
	c.mkdir(dir, 0o755)
	c.do(unix.Chdir(dir))
	for _, k := range c.kinds() {
		l = append(l, dir+"/"+k)
	}
	c.do(unix.Chdir(".."))
	return l
}

// nameOpCases: ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP of each.
func nameOpCases() (l []testCase) {
	for _, o := range nameOps {
		l = append(l, testCase{name: "name/errno/" + o.name, run: func(c *ctx) {
			c.file("file", 0o644)
			c.file("renamed-from", 0o644)
			c.do(unix.Symlink("loop2", "loop1"))
			c.do(unix.Symlink("loop1", "loop2"))
			c.do(unix.Symlink("nowhere", "dangling"))
			c.is(o.op(""), unix.ENOENT, "an empty name")
			if !o.create {
				c.is(o.op("nothing"), unix.ENOENT, "nothing")
			}
			c.is(o.op("nothing/x"), unix.ENOENT, "below nothing")
			c.is(o.op("dangling/x"), unix.ENOENT, "below a dangling link")
			c.is(o.op("file/x"), unix.ENOTDIR, "below a file")
			c.is(o.op(strings.Repeat("n", nameMax+1)), unix.ENAMETOOLONG, "a name of 256 bytes")
			c.is(o.op(strings.Repeat("n", nameMax+1)+"/x"), unix.ENAMETOOLONG, "below it")
			c.is(o.op(strings.Repeat("n/", 2048)+"n"), unix.ENAMETOOLONG, "a path of 4097 bytes")
			c.is(o.op("loop1/x"), unix.ELOOP, "below a loop")
			if !o.create && !slices.Contains([]string{"lstat", "unlink", "rmdir", "rename-from", "link-from", "lchown", "readlink"}, o.name) {
				c.is(o.op("loop1"), unix.ELOOP, "a loop")
			}
		}})
	}
	return l
}

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
	{name: "link/emlink-not-before-65001", needs: needsManyLinks, run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		for i := range 65000 {
			if err := unix.Link("f", fmt.Sprintf("d/%d", i)); err != nil {
				c.fatalf("link %d: %v", i+2, err)
			}
		}
		eq(c, c.stat("f").Nlink, 65001, "links")
		for i := range 65000 {
			c.do(unix.Unlink(fmt.Sprintf("d/%d", i)))
		}
		eq(c, c.stat("f").Nlink, 1, "links")
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
				continue // a block of ext4 holds the NUL besides
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
