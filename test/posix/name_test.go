package posix

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const nameMax = 255

// nameOps lists calls that take a name, for the errors that all of them have in common.
var nameOps = []struct {
	name   string
	create bool // it creates the name
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

// nameCases checks which names are valid, and the error of every call for an invalid name.
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
		long := string(all) + "x" // 255 bytes, with every valid byte
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
		// Directories may nest deeper than the longest path; relative calls reach them.
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
		_, err = unix.Getdents(fd, make([]byte, 4096))
		at(err, "getdents")
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

// kindsIn calls kinds in a new directory.
func (c *ctx) kindsIn(dir string) (l []string) {
	c.mkdir(dir, 0o755)
	c.do(unix.Chdir(dir))
	for _, k := range c.kinds() {
		l = append(l, dir+"/"+k)
	}
	c.do(unix.Chdir(".."))
	return l
}

// nameOpCases checks ENOENT, ENOTDIR, ENAMETOOLONG and ELOOP of each call of nameOps.
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
