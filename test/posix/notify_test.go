package posix

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// events reads the pending inotify events, as the names of their masks.
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

// fanotify creates a fanotify group with the given flags.
func (c *ctx) fanotify(flags uint) int {
	fd, err := unix.FanotifyInit(flags|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	c.do(err)
	return c.keep(fd)
}

// fanEvents reads the pending fanotify events. It returns the masks of all events combined, and the
// names of their files.
func (c *ctx) fanEvents(fd int) (mask uint64, files []string) {
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EAGAIN {
			return mask, files
		}
		c.do(err)
		for b := buf[:n]; len(b) >= unix.FAN_EVENT_METADATA_LEN; {
			size := binary.NativeEndian.Uint32(b)
			mask |= binary.NativeEndian.Uint64(b[8:])
			if f := int32(binary.NativeEndian.Uint32(b[16:])); f >= 0 {
				name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f))
				c.do(err)
				c.do(unix.Close(int(f)))
				if name = filepath.Base(name); !slices.Contains(files, name) {
					files = append(files, name)
				}
			}
			b = b[size:]
		}
	}
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
		step("link", "create:l")
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
	{name: "notify/fanotify", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		in := c.fanotify(unix.FAN_CLASS_NOTIF)
		c.do(unix.FanotifyMark(in, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN|unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE, cwd, "."))
		c.do(c.writes("f", 0, 10))
		mask, files := c.fanEvents(in)
		eq(c, mask, unix.FAN_OPEN|unix.FAN_MODIFY|unix.FAN_CLOSE_WRITE, "events of a write, of all of the filesystem")
		eq(c, strings.Join(files, " "), "f", "the file of the events")
	}},
	{name: "notify/fanotify-by-handle", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		in := c.fanotify(unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_DFID_NAME)
		c.do(unix.FanotifyMark(in, unix.FAN_MARK_ADD, unix.FAN_CREATE|unix.FAN_DELETE|unix.FAN_MOVED_TO|unix.FAN_ONDIR, cwd, "d"))
		c.file("d/f", 0o644)
		c.do(unix.Mkdir("d/s", 0o755))
		c.do(unix.Rename("d/f", "d/g"))
		c.do(unix.Unlink("d/g"))
		mask, _ := c.fanEvents(in)
		eq(c, mask, unix.FAN_CREATE|unix.FAN_DELETE|unix.FAN_MOVED_TO|unix.FAN_ONDIR, "events of a directory")
	}},
	{name: "notify/fanotify-by-handle-of-all", known: []known{{why: "the kernel's FUSE tells fanotify no filesystem id"}}, run: func(c *ctx) {
		in := c.fanotify(unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_FID)
		c.is(unix.FanotifyMark(in, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_CREATE, cwd, "."), nil, "a mark on all of the filesystem")
	}},
	{name: "notify/of-another-process", run: func(c *ctx) {
		in := c.watch(".", unix.IN_CREATE|unix.IN_DELETE)
		out, err := c.execAs(root, "/bin/sh", "-c", "echo x >f; rm f")
		c.is(err, nil, "the shell: %s", out)
		eq(c, c.events(in), "create:f delete:f", "events")
	}},
}
