package posix

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

var readdirCases = []testCase{
	{name: "readdir/empty", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		var l []string
		for _, e := range c.list("d") {
			l = append(l, e.name)
			eq(c, e.kind, unix.DT_DIR, "d_type of %s", e.name)
		}
		slices.Sort(l)
		eq(c, strings.Join(l, " "), ". ..", "entries")
		for _, e := range c.list("d") {
			switch e.name {
			case ".":
				eq(c, e.ino, c.stat("d").Ino, "inode of .")
			case "..":
				eq(c, e.ino, c.stat(".").Ino, "inode of ..")
			}
		}
	}},
	{name: "readdir/types-and-inodes", run: func(c *ctx) {
		c.kinds()
		want := map[string]byte{"reg": unix.DT_REG, "dir": unix.DT_DIR, "sym": unix.DT_LNK, "fifo": unix.DT_FIFO, "sock": unix.DT_SOCK,
			"chr": unix.DT_CHR, "blk": unix.DT_BLK, ".": unix.DT_DIR, "..": unix.DT_DIR}
		l := c.list(".")
		eq(c, len(l), len(want), "entries")
		for _, e := range l {
			eq(c, e.kind, want[e.name], "d_type of %s", e.name)
			if e.name != ".." {
				eq(c, e.ino, c.stat(e.name).Ino, "inode of %s", e.name)
			}
		}
	}},
	{name: "readdir/many-in-small-buffers", run: func(c *ctx) {
		const n = 2000
		for i := range n {
			c.do(unix.Mknod(fmt.Sprintf("a-name-that-is-not-short-%d", i), unix.S_IFREG|0o644, 0))
		}
		for _, size := range []int{300, 1024, 4096, 1 << 20} {
			fd := c.open(".", ro)
			seen := map[string]int{}
			for {
				l := c.getdents(fd, size)
				if len(l) == 0 {
					break
				}
				for _, e := range l {
					seen[e.name]++
				}
			}
			eq(c, len(seen), n+2, "names by buffers of %d", size)
			for name, k := range seen {
				if k != 1 {
					c.fatalf("%s %d times by buffers of %d", name, k, size)
				}
			}
			c.close(fd)
		}
	}},
	{name: "readdir/while-deleting", run: func(c *ctx) {
		// What is neither created nor deleted is returned exactly once.
		const n = 1000
		for i := range n {
			c.do(unix.Mknod(fmt.Sprint("f", i), unix.S_IFREG|0o644, 0))
		}
		fd := c.open(".", ro)
		seen := map[string]int{}
		for {
			l := c.getdents(fd, 1000)
			if len(l) == 0 {
				break
			}
			for _, e := range l {
				seen[e.name]++
				if e.name[0] == 'f' && e.name[len(e.name)-1]%2 == 0 {
					c.is(unix.Unlink(e.name), nil, "deleting %s", e.name)
				}
			}
		}
		for i := range n {
			if name := fmt.Sprint("f", i); seen[name] != 1 {
				c.fatalf("%s was returned %d times", name, seen[name])
			}
		}
	}},
	{name: "readdir/delete-everything", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		for i := range 1500 {
			c.do(unix.Mknod(fmt.Sprint("d/", i), unix.S_IFREG|0o644, 0))
		}
		fd := c.open("d", ro)
		for {
			l := c.getdents(fd, 2000)
			if len(l) == 0 {
				break
			}
			for _, e := range l {
				if e.name[0] != '.' {
					c.do(unix.Unlinkat(fd, e.name, 0))
				}
			}
		}
		c.is(unix.Rmdir("d"), nil, "rmdir after one pass that deletes what it is told")
	}},
	{name: "readdir/while-creating", run: func(c *ctx) {
		const n = 500
		for i := range n {
			c.do(unix.Mknod(fmt.Sprint("old", i), unix.S_IFREG|0o644, 0))
		}
		fd := c.open(".", ro)
		seen := map[string]int{}
		made := 0
		for {
			l := c.getdents(fd, 1000)
			if len(l) == 0 || made > 5000 {
				break
			}
			for _, e := range l {
				seen[e.name]++
				if made < 2000 {
					c.do(unix.Mknod(fmt.Sprint("new", made), unix.S_IFREG|0o644, 0))
					made++
				}
			}
		}
		for name, k := range seen {
			c.true(k == 1, "%s was returned %d times", name, k)
		}
		for i := range n {
			if name := fmt.Sprint("old", i); seen[name] != 1 {
				c.fatalf("%s was returned %d times", name, seen[name])
			}
		}
	}},
	{name: "readdir/seekdir", needs: needsSameSlot, run: func(c *ctx) {
		// Every position that telldir gave leads to what followed there, whatever was
		// deleted since.
		const n = 400
		for i := range n {
			c.do(unix.Mknod(fmt.Sprint("f", i), unix.S_IFREG|0o644, 0))
		}
		fd := c.open(".", ro)
		var all []entry
		for {
			l := c.getdents(fd, 4096)
			if len(l) == 0 {
				break
			}
			all = append(all, l...)
		}
		offs := map[int64]bool{}
		for _, e := range all {
			c.true(!offs[e.off], "position %d is given once", e.off)
			offs[e.off] = true
		}
		next := func(i int) string { // what follows entry i
			c.seek(fd, all[i].off, unix.SEEK_SET)
			if l := c.getdents(fd, 300); len(l) > 0 {
				return l[0].name
			}
			return ""
		}
		for i := range len(all) - 1 {
			eq(c, next(i), all[i+1].name, "what follows position %d", i)
		}
		gone := map[string]bool{}
		for i, e := range all {
			if i%3 == 0 && e.name[0] == 'f' {
				c.do(unix.Unlink(e.name))
				gone[e.name] = true
			}
		}
		for i := range all {
			want := ""
			for _, e := range all[i+1:] {
				if !gone[e.name] {
					want = e.name
					break
				}
			}
			eq(c, next(i), want, "what follows position %d after deletions", i)
		}
		c.seek(fd, 0, unix.SEEK_SET)
		eq(c, len(c.getdents(fd, 1<<20)), len(all)-len(gone), "entries after rewinddir")
	}},
	{name: "readdir/rewind-sees-changes", run: func(c *ctx) {
		c.file("a", 0o644)
		fd := c.open(".", ro)
		eq(c, len(c.getdents(fd, 4096)), 3, "entries")
		c.file("b", 0o644)
		c.do(unix.Unlink("a"))
		c.seek(fd, 0, unix.SEEK_SET)
		var l []string
		for _, e := range c.getdents(fd, 4096) {
			l = append(l, e.name)
		}
		slices.Sort(l)
		eq(c, strings.Join(l, " "), ". .. b", "entries after rewinddir")
	}},
	{name: "readdir/rename-does-not-lose", run: func(c *ctx) {
		for i := range 300 {
			c.file(fmt.Sprint("f", i), 0o644)
		}
		for i := range 300 {
			c.do(unix.Rename(fmt.Sprint("f", i), fmt.Sprint("g", 299-i)))
		}
		l := c.list(".")
		eq(c, len(l), 302, "entries")
		for _, e := range l {
			c.true(e.name[0] == 'g' || e.name[0] == '.', "%s is a new name", e.name)
		}
	}},
	{name: "readdir/two-at-once", run: func(c *ctx) {
		for i := range 200 {
			c.file(fmt.Sprint("f", i), 0o644)
		}
		a, b := c.open(".", ro), c.open(".", ro)
		na, nb := 0, 0
		for {
			la, lb := c.getdents(a, 500), c.getdents(b, 900)
			na, nb = na+len(la), nb+len(lb)
			if len(la)+len(lb) == 0 {
				break
			}
		}
		eq(c, na, 202, "entries by one")
		eq(c, nb, 202, "entries by the other")
	}},
}

// byHandle opens a handle.
func (c *ctx) byHandle(h *unix.FileHandle, flags int) (int, error) {
	fd, err := unix.OpenByHandleAt(c.open(".", ro|unix.O_DIRECTORY), *h, flags|unix.O_CLOEXEC)
	if err == nil {
		c.keep(fd)
	}
	return fd, err
}

func (c *ctx) handle(name string) *unix.FileHandle {
	h, _, err := unix.NameToHandleAt(cwd, name, 0)
	c.do(err)
	return &h
}

var handleCases = []testCase{
	{name: "handle/every-kind", run: func(c *ctx) {
		for _, k := range c.kinds() {
			h := c.handle(k)
			flags := unix.O_PATH
			if k == "reg" || k == "dir" {
				flags = ro
			}
			fd, err := c.byHandle(h, flags)
			c.is(err, nil, "open of the handle of %s", k)
			if err == nil {
				eq(c, c.fstat(fd).Ino, c.stat(k).Ino, "inode of %s", k)
			}
			eq(c, string(c.handle(k).Bytes()), string(h.Bytes()), "the handle of %s again", k)
		}
		fd, err := c.byHandle(c.handle("reg"), rw)
		c.do(err)
		eq(c, c.pread(fd, 7, 0), "content", "content")
		_, err = c.byHandle(c.handle("sym"), ro)
		c.is(err, unix.ELOOP, "a symbolic link")
		_, err = c.byHandle(c.handle("dir"), rw)
		c.is(err, unix.EISDIR, "a directory for writing")
	}},
	{name: "handle/survives-rename", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.mkdir("d", 0o755)
		h, hd := c.handle("f"), c.handle("d")
		c.do(unix.Rename("f", "d/g"))
		c.do(unix.Rename("d", "e"))
		fd, err := c.byHandle(h, ro)
		c.is(err, nil, "a file that was renamed")
		if err == nil {
			eq(c, c.pread(fd, 7, 0), "content", "content")
		}
		fd, err = c.byHandle(hd, ro)
		c.is(err, nil, "a directory that was renamed")
		if err == nil {
			_, err = unix.Openat(fd, "../e/g", ro, 0)
			c.is(err, nil, "its ..")
		}
	}},
	{name: "handle/stale", run: func(c *ctx) {
		c.file("f", 0o644)
		c.mkdir("d", 0o755)
		h, hd := c.handle("f"), c.handle("d")
		c.do(unix.Unlink("f"))
		c.do(unix.Rmdir("d"))
		_, err := c.byHandle(h, ro)
		c.is(err, unix.ESTALE, "a file that is gone")
		_, err = c.byHandle(hd, ro)
		c.is(err, unix.ESTALE, "a directory that is gone")
		for i := range 200 { // some of which get its inode number
			c.file(fmt.Sprint(i), 0o644)
		}
		_, err = c.byHandle(h, ro)
		c.is(err, unix.ESTALE, "a file that is gone, its number another's")
		_, err = c.byHandle(hd, ro)
		c.is(err, unix.ESTALE, "a directory that is gone, its number another's")
	}},
	{name: "handle/of-open-unlinked", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		h := c.handle("f")
		fd := c.open("f", ro)
		c.do(unix.Unlink("f"))
		again, err := c.byHandle(h, ro)
		if err != nil { // either is what filesystems do
			c.is(err, unix.ESTALE, "a file without a name that is open")
		} else {
			eq(c, c.fstat(again).Ino, c.fstat(fd).Ino, "inode")
		}
	}},
	{name: "handle/errno", run: func(c *ctx) {
		c.file("f", 0o644)
		h := c.handle("f")
		_, _, err := unix.NameToHandleAt(cwd, "none", 0)
		c.is(err, unix.ENOENT, "of nothing")
		_, _, err = unix.NameToHandleAt(cwd, "f", 0x8)
		c.is(err, unix.EINVAL, "with an unknown flag")
		_, err = unix.OpenByHandleAt(-1, *h, ro)
		c.is(err, unix.EBADF, "open in no filesystem")
		fd := c.open(".", ro)
		c.as(bob, func() {
			_, err := unix.OpenByHandleAt(fd, *h, ro)
			c.is(err, unix.EPERM, "open by a user")
		})
		_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(h.Type(), append(slices.Clone(h.Bytes()[:len(h.Bytes())-1]), 0x5a)), ro)
		c.true(err == nil || err == unix.ESTALE, "open of a handle that was changed: %v", err)
		_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(99, h.Bytes()), ro)
		c.is(err, unix.ESTALE, "a handle of another type")
		h2, _, err := unix.NameToHandleAt(c.open("f", unix.O_PATH), "", unix.AT_EMPTY_PATH)
		c.is(err, nil, "AT_EMPTY_PATH")
		eq(c, string(h2.Bytes()), string(h.Bytes()), "the handle")
	}},
}

// events reads what inotify has, in the words of its masks.
func (c *ctx) events(fd int) string {
	var l []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EAGAIN {
			return strings.Join(l, " ")
		}
		c.do(err)
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			mask, nlen := binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[12:])
			name := strings.TrimRight(string(b[16:16+nlen]), "\x00")
			for _, m := range []struct {
				bit  uint32
				name string
			}{
				{unix.IN_ACCESS, "access"}, {unix.IN_MODIFY, "modify"}, {unix.IN_ATTRIB, "attrib"}, {unix.IN_CLOSE_WRITE, "close_write"},
				{unix.IN_CLOSE_NOWRITE, "close"}, {unix.IN_OPEN, "open"}, {unix.IN_MOVED_FROM, "from"}, {unix.IN_MOVED_TO, "to"},
				{unix.IN_CREATE, "create"}, {unix.IN_DELETE, "delete"}, {unix.IN_DELETE_SELF, "delete_self"}, {unix.IN_MOVE_SELF, "move_self"},
				{unix.IN_IGNORED, "ignored"},
			} {
				if mask&m.bit != 0 {
					l = append(l, strings.TrimSuffix(m.name+":"+name, ":"))
				}
			}
			b = b[16+nlen:]
		}
	}
}

func (c *ctx) watch(name string, mask uint32) int {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	c.do(err)
	c.keep(fd)
	_, err = unix.InotifyAddWatch(fd, name, mask)
	c.do(err)
	return fd
}

var notifyCases = []testCase{
	{name: "notify/directory", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.mkdir("e", 0o755)
		in := c.watch("d", unix.IN_ALL_EVENTS&^(unix.IN_OPEN|unix.IN_CLOSE_NOWRITE|unix.IN_ACCESS))
		step := func(what, want string) { eq(c, c.events(in), want, "events of %s", what) }
		c.do(try("d/f", wo|unix.O_CREAT, 0o644))
		step("creating", "create:f close_write:f")
		c.pwrite(c.open("d/f", wo), "x", 0)
		step("writing", "modify:f")
		c.do(unix.Chmod("d/f", 0o600))
		step("chmod", "attrib:f")
		c.do(unix.Truncate("d/f", 0))
		step("truncate", "modify:f")
		c.do(unix.Setxattr("d/f", "user.a", []byte("v"), 0))
		step("setxattr", "attrib:f")
		c.do(unix.Rename("d/f", "d/g"))
		step("rename", "from:f to:g")
		c.do(unix.Rename("d/g", "e/g"))
		step("moving away", "from:g")
		c.do(unix.Rename("e/g", "d/h"))
		step("moving in", "to:h")
		c.do(unix.Mkdir("d/s", 0o755))
		step("mkdir", "create:s")
		c.do(unix.Link("d/h", "d/l"))
		step("link", "attrib:h create:l")
		c.do(unix.Rmdir("d/s"))
		step("rmdir", "delete:s")
		c.do(unix.Symlink("x", "d/y"))
		step("symlink", "create:y")
		c.do(unix.Unlink("d/l"))
		c.do(unix.Unlink("d/y"))
		got := c.events(in)
		c.true(strings.Contains(got, "delete:l") && strings.Contains(got, "delete:y"), "unlink is told: %s", got)
		c.do(unix.Rename("d", "dd"))
		step("renaming the directory", "move_self")
	}},
	{name: "notify/file", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		in := c.watch("f", unix.IN_ALL_EVENTS)
		step := func(what, want string) { eq(c, c.events(in), want, "events of %s", what) }
		fd := c.open("f", rw)
		step("open", "open")
		c.pread(fd, 3, 0)
		step("read", "access")
		c.pwrite(fd, "x", 0)
		step("write", "modify")
		c.do(unix.Fallocate(fd, 0, 0, 10000))
		step("fallocate", "modify")
		c.do(unix.Unlink("f"))
		step("unlink while open", "attrib")
		c.close(fd)
		eq(c, c.events(in), "close_write delete_self ignored", "events of the last close")
	}},
	{name: "notify/of-another-process", run: func(c *ctx) {
		in := c.watch(".", unix.IN_CREATE|unix.IN_DELETE)
		out, err := c.execAs(root, "/bin/sh", "-c", "echo x >f; rm f")
		c.is(err, nil, "the shell: %s", out)
		eq(c, c.events(in), "create:f delete:f", "events")
	}},
}

var spliceCases = []testCase{
	{name: "splice/to-and-from-a-pipe", run: func(c *ctx) {
		src := patterned(50000)
		c.file("a", 0o644, src)
		c.file("b", 0o644)
		var p [2]int
		c.do(unix.Pipe2(p[:], unix.O_CLOEXEC))
		c.keep(p[0])
		c.keep(p[1])
		a, b := c.open("a", ro), c.open("b", wo)
		for total := 0; total < len(src); {
			n, err := unix.Splice(a, nil, p[1], nil, 30000, 0)
			c.do(err)
			if n == 0 {
				break
			}
			for left := int(n); left > 0; {
				m, err := unix.Splice(p[0], nil, b, nil, left, unix.SPLICE_F_MOVE)
				c.do(err)
				left -= int(m)
			}
			total += int(n)
		}
		c.true(c.content("b") == src, "content")
		off := int64(40000)
		n, err := unix.Splice(a, &off, p[1], nil, 100, 0)
		c.is(err, nil, "with an offset")
		eq(c, int(n), 100, "bytes")
		eq(c, off, 40100, "offset")
		_, err = unix.Splice(a, nil, b, nil, 10, 0)
		c.is(err, unix.EINVAL, "without a pipe")
		_, err = unix.Splice(p[0], nil, c.open("b", wo|unix.O_APPEND), nil, 10, 0)
		c.is(err, unix.EINVAL, "to a descriptor for appending")
		_, err = unix.Splice(p[0], nil, c.open("b", ro), nil, 10, 0)
		c.is(err, unix.EBADF, "to a descriptor for reading")
	}},
	{name: "splice/what-was-spliced-does-not-change", run: func(c *ctx) {
		c.file("a", 0o644, strings.Repeat("0", 8192))
		var p [2]int
		c.do(unix.Pipe2(p[:], unix.O_CLOEXEC))
		c.keep(p[0])
		c.keep(p[1])
		_, err := unix.Splice(c.open("a", ro), nil, p[1], nil, 4096, 0)
		c.do(err)
		c.do(unix.Unlink("a"))
		b := make([]byte, 4096)
		n, err := unix.Read(p[0], b)
		c.do(err)
		c.true(string(b[:n]) == strings.Repeat("0", 4096), "content after the file is gone")
	}},
	{name: "splice/sendfile", run: func(c *ctx) {
		src := patterned(200000)
		c.file("a", 0o644, src)
		c.file("b", 0o644)
		a, b := c.open("a", ro), c.open("b", wo)
		for total := 0; total < len(src); {
			n, err := unix.Sendfile(b, a, nil, len(src))
			c.do(err)
			if n == 0 {
				break
			}
			total += n
		}
		c.true(c.content("b") == src, "content")
		off := int64(100)
		n, err := unix.Sendfile(b, a, &off, 50)
		c.is(err, nil, "with an offset")
		eq(c, n, 50, "bytes")
		eq(c, off, 150, "offset")
		eq(c, c.size("b"), 200050, "size")
		s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		c.do(err)
		c.keep(s[0])
		c.keep(s[1])
		off = 0
		n, err = unix.Sendfile(s[0], a, &off, 10000)
		c.is(err, nil, "to a socket")
		got := make([]byte, 10000)
		m, err := unix.Read(s[1], got)
		c.do(err)
		c.true(string(got[:m]) == src[:m] && n > 0, "content")
		_, err = unix.Sendfile(b, c.open("b", wo), nil, 10)
		c.is(err, unix.EBADF, "from a descriptor for writing")
		_, err = unix.Sendfile(c.open("b", ro), a, nil, 10)
		c.is(err, unix.EBADF, "to a descriptor for reading")
	}},
}
