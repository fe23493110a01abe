package posix

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// suidCases checks which calls clear set-user-ID and set-group-ID.
var suidCases = append([]testCase{
	{name: "suid/chown-by-owner", run: func(c *ctx) {
		both := who{uid: ann.uid, gid: ann.gid, groups: []int{3003}}
		for _, x := range []struct{ mode, want uint32 }{
			{0o6755, 0o755}, {0o4755, 0o755}, {0o2755, 0o755}, {0o2745, 0o2745}, {0o6745, 0o2745}, {0o4644, 0o644}, {0o755, 0o755}, {0o1755, 0o1755},
		} {
			name := fmt.Sprintf("f%o", x.mode)
			c.file(name, 0o644)
			c.chown(name, ann.uid, ann.gid)
			c.do(unix.Chmod(name, x.mode))
			c.as(both, func() { c.do(unix.Chown(name, -1, 3003)) })
			got := c.mode(name)
			c.oct(got, x.want, "%04o after chown by its owner", x.mode)
		}
	}},
	{name: "suid/chown-by-outsider", run: func(c *ctx) { // the owner, who is not in the file's group
		for _, x := range []struct{ mode, want uint32 }{{0o2745, 0o745}, {0o6745, 0o745}, {0o2755, 0o755}, {0o745, 0o745}} {
			name := fmt.Sprintf("f%o", x.mode)
			c.file(name, 0o644)
			c.chown(name, ann.uid, 3003)
			c.do(unix.Chmod(name, x.mode))
			c.as(ann, func() { c.do(unix.Chown(name, -1, ann.gid)) })
			c.oct(c.mode(name), x.want, "%04o", x.mode)
		}
	}},
	{name: "suid/chown-of-nothing-by-outsider", run: func(c *ctx) {
		c.file("f", 0o644)
		c.chown("f", ann.uid, 3003)
		c.do(unix.Chmod("f", 0o2745))
		c.as(ann, func() { c.do(unix.Chown("f", -1, -1)) })
		c.oct(c.mode("f"), 0o745, "after chown -1 -1")
		c.do(unix.Chown("f", -1, -1))
		c.do(unix.Chmod("f", 0o2745))
		c.do(unix.Chown("f", -1, -1))
		c.oct(c.mode("f"), 0o2745, "after chown -1 -1 by root")
	}},
	{name: "suid/chown-by-root", run: func(c *ctx) {
		c.file("f", 0o6755)
		c.do(unix.Chown("f", 5, 5))
		c.oct(c.mode("f"), 0o755, "a file after chown by root")
		c.mkdir("d", 0o6755)
		c.do(unix.Chown("d", 5, 5))
		c.oct(c.mode("d"), 0o6755, "a directory after chown")
	}},
	{name: "suid/chown-of-nothing", run: func(c *ctx) {
		c.file("f", 0o6755)
		c.do(unix.Chown("f", -1, -1))
		c.oct(c.mode("f"), 0o755, "a file after chown -1 -1")
	}},
	{name: "suid/kept-by-read-and-metadata", run: func(c *ctx) {
		c.file("f", 0o666, "x")
		c.do(unix.Chmod("f", 0o6777))
		c.as(bob, func() {
			fd := c.open("f", rw)
			c.pread(fd, 1, 0)
			_, err := unix.Write(fd, nil)
			c.do(err)
			c.do(unix.Setxattr("f", "user.a", []byte("v"), 0))
		})
		c.oct(c.mode("f"), 0o6777, "after read, a write of nothing and setxattr")
		c.do(unix.Rename("f", "g"))
		c.do(unix.Link("g", "h"))
		c.oct(c.mode("h"), 0o6777, "after rename and link")
	}},
	{name: "suid/kept-for-root", run: func(c *ctx) {
		c.file("f", 0o6777)
		fd := c.open("f", rw)
		c.pwrite(fd, "x", 0)
		c.do(unix.Ftruncate(fd, 0))
		c.oct(c.mode("f"), 0o6777, "after write and truncate by root")
		c.do(unix.Fallocate(fd, 0, 0, 10000))
		c.oct(c.mode("f"), 0o6777, "after fallocate by root")
	}},
	{name: "suid/exec-takes-the-id", run: func(c *ctx) {
		c.copyProgram("/usr/bin/id", "id")
		c.chown("id", ann.uid, ann.gid)
		c.do(unix.Chmod("id", 0o6755))
		out, err := c.execAs(bob, "./id", "-u")
		c.is(err, nil, "executing it: %s", out)
		eq(c, out, fmt.Sprint(ann.uid), "effective user of a set-user-ID program")
		out, _ = c.execAs(bob, "./id", "-g")
		eq(c, out, fmt.Sprint(ann.gid), "effective group of a set-group-ID program")
	}},
}, suidOpCases()...)

// suidOpCases checks that each call that changes a file's content clears them, if an unprivileged
// user makes it.
func suidOpCases() (list []testCase) {
	for _, change := range []struct {
		name  string
		needs need
		op    func(c *ctx, fd int) error
	}{
		{"write", 0, func(c *ctx, fd int) error { _, err := unix.Write(fd, []byte("x")); return err }},
		{"pwrite", 0, func(c *ctx, fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 5); return err }},
		{"append", 0, func(c *ctx, fd int) error {
			_, err := unix.Pwritev2(fd, [][]byte{[]byte("x")}, 0, unix.RWF_APPEND)
			return err
		}},
		{"ftruncate", 0, func(c *ctx, fd int) error { return unix.Ftruncate(fd, 1) }},
		{"ftruncate-to-larger", 0, func(c *ctx, fd int) error { return unix.Ftruncate(fd, 100000) }},
		{"truncate", 0, func(c *ctx, fd int) error { return unix.Truncate("f", 1) }},
		{"open-trunc", 0, func(c *ctx, fd int) error { return try("f", wo|unix.O_TRUNC) }},
		{"fallocate", 0, func(c *ctx, fd int) error { return unix.Fallocate(fd, 0, 0, 10000) }},
		{"punch-hole", 0, func(c *ctx, fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}},
		{"zero-range", needsZeroRange, func(c *ctx, fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, 0, 4096) }},
		{"copy-file-range", 0, func(c *ctx, fd int) error {
			var from, to int64
			_, err := unix.CopyFileRange(c.open("src", ro), &from, fd, &to, 4, 0)
			return err
		}},
		{"sendfile", 0, func(c *ctx, fd int) error { _, err := unix.Sendfile(fd, c.open("src", ro), nil, 4); return err }},
		{"direct", needsDirect, func(c *ctx, fd int) error {
			direct, err := unix.Open("f", wo|unix.O_DIRECT, 0)
			if err != nil {
				return err
			}
			defer unix.Close(direct)
			_, err = unix.Pwrite(direct, aligned(4096), 0)
			return err
		}},
	} {
		list = append(list, testCase{name: "suid/cleared-by-" + change.name, needs: change.needs, run: func(c *ctx) {
			c.file("src", 0o644, "content")
			for _, row := range []struct{ mode, want uint32 }{{0o6777, 0o777}, {0o4766, 0o766}, {0o2776, 0o776}, {0o3777, 0o1777}} {
				c.file("f", 0o666, "some content")
				c.do(unix.Chmod("f", row.mode))
				c.as(bob, func() { c.is(change.op(c, c.open("f", rw)), nil, "the call") })
				c.oct(c.mode("f"), row.want, "%04o", row.mode)
				c.do(unix.Unlink("f"))
			}
		}})
		// Set-group-ID without group execution is cleared if the writer is not in the group.
		list = append(list, testCase{name: "suid/group-" + change.name, needs: change.needs, run: func(c *ctx) {
			c.file("src", 0o644, "content")
			for _, row := range []struct {
				who        who
				mode, want uint32
			}{
				{bob, 0o2766, 0o766}, {bob, 0o6766, 0o766}, {bob, 0o2776, 0o776},
				{who{bob.uid, 3003, nil}, 0o2766, 0o2766}, {who{bob.uid, 3003, nil}, 0o6766, 0o2766}, {who{bob.uid, 3003, nil}, 0o2776, 0o776},
				{who{bob.uid, bob.gid, []int{2003, 3003, 4003}}, 0o2766, 0o2766}, {who{bob.uid, bob.gid, []int{2003, 3003, 4003}}, 0o6766, 0o2766},
				{who{bob.uid, bob.gid, []int{2003, 4003}}, 0o2766, 0o766},
				{who{0, 0, nil}, 0o6766, 0o6766},
			} {
				c.file("f", 0o666, "some content")
				c.chown("f", ann.uid, 3003)
				c.do(unix.Chmod("f", row.mode))
				c.as(row.who, func() { c.is(change.op(c, c.open("f", rw)), nil, "the call") })
				c.oct(c.mode("f"), row.want, "%04o, by %+v", row.mode, row.who)
				c.do(unix.Unlink("f"))
			}
		}})
	}
	return list
}
