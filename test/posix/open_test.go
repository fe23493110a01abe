package posix

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// copyProgram copies an executable of the machine to the target.
func (c *ctx) copyProgram(from, name string) {
	b, err := os.ReadFile(from)
	c.do(err)
	c.file(name, 0o755, string(b))
}

// execAs runs a program in the case's directory as the user w, and returns its output.
func (c *ctx) execAs(w who, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if w.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.gid)}
	}
	cmd.WaitDelay = 10 * time.Second
	timer := time.AfterFunc(20*time.Second, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// aligned returns a page-aligned buffer of n bytes, for O_DIRECT.
func aligned(n int) []byte {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		panic(err)
	}
	for i := range b {
		b[i] = 'd'
	}
	return b
}

var openCases = []testCase{
	{name: "open/kinds", run: func(c *ctx) {
		c.kinds()
		c.is(try("dir", wo), unix.EISDIR, "a directory for writing")
		c.is(try("dir", rw), unix.EISDIR, "a directory for both")
		c.is(try("dir", ro|unix.O_CREAT, 0o644), unix.EISDIR, "a directory with O_CREAT")
		c.is(try("dir", ro|unix.O_TRUNC), unix.EISDIR, "a directory with O_TRUNC")
		c.is(try("dir", ro), nil, "a directory")
		c.is(try("reg", ro|unix.O_DIRECTORY), unix.ENOTDIR, "a file as a directory")
		c.is(try("reg", ro|unix.O_DIRECTORY|unix.O_CREAT, 0o644), unix.EINVAL, "O_DIRECTORY|O_CREAT")
		c.is(try("fifo", wo|unix.O_NONBLOCK), unix.ENXIO, "a fifo that nobody reads")
		c.is(try("fifo", ro|unix.O_NONBLOCK), nil, "a fifo, for reading")
		c.is(try("sock", ro), unix.ENXIO, "a socket")
		c.is(try("sock", unix.O_PATH), nil, "a socket, O_PATH")
		c.is(try("chr", rw), nil, "/dev/null by another name")
		c.is(try("blk", ro), unix.ENXIO, "a block device that is not there")
	}},
	{name: "open/creat", run: func(c *ctx) {
		c.is(try("f", ro), unix.ENOENT, "without O_CREAT")
		c.is(try("f", wo|unix.O_EXCL|unix.O_CREAT, 0o640), nil, "O_EXCL")
		c.is(try("f", wo|unix.O_EXCL|unix.O_CREAT, 0o640), unix.EEXIST, "O_EXCL again")
		c.is(try("f", wo|unix.O_CREAT, 0o777), nil, "O_CREAT of what is there")
		c.oct(c.mode("f"), 0o640, "the mode stays")
		c.is(try("d/f", wo|unix.O_CREAT, 0o640), unix.ENOENT, "in a directory that is not there")
	}},
	{name: "open/excl-among-threads", run: func(c *ctx) {
		for i := range 50 {
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for range 4 {
				wg.Go(func() {
					err := try(fmt.Sprintf("%s/f%d", c.dir, i), wo|unix.O_CREAT|unix.O_EXCL, 0o644)
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						won++
					} else {
						c.is(err, unix.EEXIST, "O_EXCL")
					}
				})
			}
			wg.Wait()
			eq(c, won, 1, "threads that made it")
		}
	}},
	{name: "open/trunc", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.is(try("f", wo|unix.O_TRUNC), nil, "O_TRUNC")
		eq(c, c.size("f"), 0, "size")
		c.file("f", 0o644, "content")
		fd := c.open("f", rw)
		c.is(try("f", rw|unix.O_TRUNC|unix.O_CREAT, 0o644), nil, "O_TRUNC|O_CREAT")
		eq(c, c.pread(fd, 10, 0), "", "by a descriptor from before")
		c.pwrite(fd, "x", 10)
		eq(c, c.content("f"), strings.Repeat("\x00", 10)+"x", "content")
	}},
	{name: "open/o-path", run: func(c *ctx) {
		c.file("f", 0, "content")
		c.as(bob, func() {
			fd := c.open("f", unix.O_PATH)
			_, err := unix.Read(fd, make([]byte, 1))
			c.is(err, unix.EBADF, "read")
			_, err = unix.Write(fd, []byte("x"))
			c.is(err, unix.EBADF, "write")
			c.is(unix.Fchmod(fd, 0o777), unix.EBADF, "fchmod")
			c.is(unix.Fchown(fd, 1, 1), unix.EBADF, "fchown")
			c.is(unix.Ftruncate(fd, 0), unix.EBADF, "ftruncate")
			_, err = unix.Mmap(fd, 0, 10, unix.PROT_READ, unix.MAP_SHARED)
			c.is(err, unix.EBADF, "mmap")
			_, err = unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
			c.is(err, unix.EBADF, "ioctl")
			eq(c, c.fstat(fd).Size, 7, "fstat")
			_, err = unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d", fd), ro, 0)
			c.is(err, unix.EACCES, "opening it again by /proc")
		})
		fd := c.open("f", unix.O_PATH)
		again, err := unix.Open(fmt.Sprintf("/proc/thread-self/fd/%d", fd), ro|unix.O_CLOEXEC, 0)
		c.do(err)
		eq(c, c.pread(c.keep(again), 7, 0), "content", "opened again by /proc by root")
		c.do(unix.Symlink("f", "l"))
		l := c.open("l", unix.O_PATH|unix.O_NOFOLLOW)
		eq(c, c.fstat(l).Mode&unix.S_IFMT, unix.S_IFLNK, "O_PATH of a link")
		b := make([]byte, 10)
		n, err := unix.Readlinkat(l, "", b)
		c.is(err, nil, "readlinkat of it")
		eq(c, string(b[:max(n, 0)]), "f", "the link")
	}},
	{name: "open/append", run: func(c *ctx) {
		c.file("f", 0o644, "0123")
		fd := c.open("f", rw|unix.O_APPEND)
		_, err := unix.Write(fd, []byte("45"))
		c.do(err)
		eq(c, c.seek(fd, 0, unix.SEEK_CUR), 6, "offset after an append")
		c.seek(fd, 0, unix.SEEK_SET)
		_, err = unix.Write(fd, []byte("67"))
		c.do(err)
		eq(c, c.content("f"), "01234567", "content")
		_, err = unix.Pwrite(fd, []byte("89"), 0) // Linux appends in spite of the offset, see pwrite(2)
		c.do(err)
		eq(c, c.content("f"), "0123456789", "content after pwrite")
		c.do(unix.Truncate("f", 2))
		_, err = unix.Write(fd, []byte("x"))
		c.do(err)
		eq(c, c.content("f"), "01x", "content after a truncate by somebody else")
	}},
	{name: "open/append-among-threads", run: func(c *ctx) {
		c.file("f", 0o644)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				fd, err := unix.Open(c.dir+"/f", wo|unix.O_APPEND|unix.O_CLOEXEC, 0)
				if err != nil {
					c.errorf("%v", err)
					return
				}
				defer unix.Close(fd)
				for range 200 {
					if n, err := unix.Write(fd, bytes.Repeat([]byte{byte('a' + i)}, 100)); n != 100 {
						c.errorf("%d, %v", n, err)
					}
				}
			})
		}
		wg.Wait()
		c.records("f", 800)
	}},
	{name: "open/append-among-processes", run: func(c *ctx) {
		c.file("f", 0o644)
		var wg sync.WaitGroup
		for _, s := range []string{"a", "b", "c"} {
			wg.Go(func() {
				out, err := c.child("append", "f", "200", s)
				c.is(err, nil, "a child: %s", out)
			})
		}
		wg.Wait()
		c.records("f", 600)
	}},
	{name: "open/sync-flags", run: func(c *ctx) {
		for i, fl := range []int{unix.O_SYNC, unix.O_DSYNC, unix.O_SYNC | unix.O_APPEND} {
			n := fmt.Sprint(i)
			fd := c.open(n, rw|unix.O_CREAT|fl, 0o644)
			_, err := unix.Write(fd, []byte("content"))
			c.is(err, nil, "writing")
			got, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
			c.do(err)
			eq(c, got&fl, fl, "F_GETFL")
			eq(c, c.content(n), "content", "content")
		}
		fd := c.open("0", rw)
		c.is(unix.Fsync(fd), nil, "fsync")
		c.is(unix.Fdatasync(fd), nil, "fdatasync")
		c.is(unix.Fsync(c.open(".", ro)), nil, "fsync of a directory")
		c.is(unix.Fsync(c.open("0", ro)), nil, "fsync by a descriptor for reading")
		c.is(unix.Fsync(-1), unix.EBADF, "fsync of no descriptor")
		c.is(unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER), nil, "sync_file_range")
		c.is(unix.Syncfs(fd), nil, "syncfs")
	}},
	{name: "open/direct", needs: needsDirect, run: func(c *ctx) {
		fd := c.open("f", rw|unix.O_CREAT|unix.O_DIRECT, 0o644)
		b := aligned(8192)
		n, err := unix.Pwrite(fd, b, 4096)
		c.is(err, nil, "writing")
		eq(c, n, 8192, "bytes")
		got := aligned(16384)
		n, err = unix.Pread(fd, got, 0)
		c.is(err, nil, "reading")
		eq(c, n, 12288, "bytes, to the end")
		c.true(string(got[:n]) == strings.Repeat("\x00", 4096)+strings.Repeat("d", 8192), "content")
		c.pwrite(c.open("f", rw), "buffered", 4096)
		n, err = unix.Pread(fd, got[:4096], 4096)
		c.is(err, nil, "reading")
		eq(c, n, 4096, "bytes, of a block")
		eq(c, string(got[:8]), "buffered", "what another descriptor wrote")
		b[0] = 'D'
		_, err = unix.Pwrite(fd, b[:4096], 4096)
		c.do(err)
		eq(c, c.pread(c.open("f", ro), 2, 4096), "Dd", "what was written directly, by another descriptor")
	}},
	{name: "open/setfl", run: func(c *ctx) {
		c.file("f", 0o644, "0123")
		fd := c.open("f", rw)
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_APPEND)
		c.is(err, nil, "F_SETFL O_APPEND")
		_, err = unix.Write(fd, []byte("4"))
		c.do(err)
		eq(c, c.content("f"), "01234", "content")
	}},
	{name: "open/etxtbsy", run: func(c *ctx) {
		c.copyProgram("/usr/bin/sleep", "prog")
		fd := c.open("prog", wo)
		_, err := c.execAs(root, "./prog", "0")
		c.is(err, unix.ETXTBSY, "executing what is open for writing")
		c.close(fd)
		cmd := exec.Command("./prog", "20")
		cmd.Dir = c.dir
		c.do(cmd.Start())
		defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
		c.is(try("prog", wo), unix.ETXTBSY, "opening what is executed for writing")
		c.is(unix.Truncate("prog", 0), unix.ETXTBSY, "truncating it")
		c.is(try("prog", ro), nil, "opening it for reading")
		c.is(unix.Unlink("prog"), nil, "deleting it")
	}},
	{name: "open/exec", run: func(c *ctx) {
		c.copyProgram("/usr/bin/echo", "prog")
		out, err := c.execAs(bob, "./prog", "hello")
		c.is(err, nil, "executing")
		eq(c, out, "hello", "what it printed")
		c.do(unix.Chmod("prog", 0o644))
		_, err = c.execAs(root, "./prog", "x")
		c.is(err, unix.EACCES, "executing without any x bit, by root")
		c.do(unix.Chmod("prog", 0o711))
		out, err = c.execAs(bob, "./prog", "unreadable")
		c.is(err, nil, "executing what one may not read")
		eq(c, out, "unreadable", "what it printed")
		c.file("script", 0o755, "#!/bin/sh\necho script $1\n")
		out, err = c.execAs(bob, "./script", "x")
		c.is(err, nil, "executing a script")
		eq(c, out, "script x", "what it printed")
		c.file("garbage", 0o755, "garbage")
		_, err = c.execAs(root, "./garbage")
		c.is(err, unix.ENOEXEC, "executing garbage")
		c.mkdir("d", 0o755)
		_, err = c.execAs(root, "./d")
		c.is(err, unix.EACCES, "executing a directory")
	}},
	{name: "open/openat2", run: func(c *ctx) {
		c.mkdir("d", 0o755)
		c.file("d/f", 0o644)
		c.file("f", 0o644)
		c.do(unix.Symlink("f", "d/l"))
		c.do(unix.Symlink("../f", "d/out"))
		d := c.open("d", ro)
		at := func(name string, resolve uint64) error {
			fd, err := unix.Openat2(d, name, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: resolve})
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
		c.is(at("f", unix.RESOLVE_BENEATH), nil, "BENEATH")
		c.is(at("../f", unix.RESOLVE_BENEATH), unix.EXDEV, "BENEATH, above")
		c.is(at("out", unix.RESOLVE_BENEATH), unix.EXDEV, "BENEATH, a link that leads out")
		c.is(at("l", unix.RESOLVE_NO_SYMLINKS), unix.ELOOP, "NO_SYMLINKS")
		c.is(at("../f", unix.RESOLVE_IN_ROOT), nil, "IN_ROOT")
	}},
}

// records requires that the file consists of n whole records of 100 equal bytes.
func (c *ctx) records(name string, n int) {
	s := c.content(name)
	eq(c, len(s), n*100, "bytes")
	for i := 0; i+100 <= len(s); i += 100 {
		if r := s[i : i+100]; strings.Count(r, r[:1]) != 100 {
			c.fatalf("record %d is torn: %q", i/100, r)
		}
	}
}
