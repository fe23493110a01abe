package posix

import (
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
		// A name that is neither created nor deleted meanwhile is returned exactly once.
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
		// Every position of telldir leads to the entry that followed there, whatever was deleted
		// since.
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
		next := func(i int) string { // the name after entry i
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
		left := 0 // one call need not return all entries, however large the buffer
		for l := c.getdents(fd, 1<<20); len(l) > 0; l = c.getdents(fd, 1<<20) {
			left += len(l)
		}
		eq(c, left, len(all)-len(gone), "entries after rewinddir")
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
