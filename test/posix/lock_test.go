package posix

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/test/mounttest"
)

// hold has a child lock the file as childHold says, and returns what ends the child.
func (c *ctx) hold(name, how string) (release func()) {
	ctx, cancel := context.WithTimeout(context.Background(), caseLimit)
	cmd := mounttest.Child(ctx, "hold", name, how)
	cmd.Path, cmd.Dir = "/proc/self/exe", c.dir
	in, err := cmd.StdinPipe()
	c.do(err)
	out, err := cmd.StdoutPipe()
	c.do(err)
	c.do(cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	done := false
	release = func() {
		if !done {
			done = true
			in.Close()
			_ = cmd.Wait()
			cancel()
		}
	}
	c.atEnd(release)
	if line != "locked\n" {
		c.fatalf("the child that locks says %q", line)
	}
	return release
}

func lk(typ int16, start, n int64) *unix.Flock_t {
	return &unix.Flock_t{Type: typ, Start: start, Len: n}
}

func posixLock(fd int, cmd int, l *unix.Flock_t) error { return unix.FcntlFlock(uintptr(fd), cmd, l) }

var lockCases = []testCase{
	{name: "lock/flock", run: func(c *ctx) {
		c.file("f", 0o644)
		a, b := c.open("f", ro), c.open("f", rw)
		c.is(unix.Flock(a, unix.LOCK_SH), nil, "shared")
		c.is(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), nil, "shared by another")
		c.is(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN, "upgrade while another shares")
		c.is(unix.Flock(b, unix.LOCK_UN), nil, "unlock")
		c.is(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), nil, "exclusive")
		c.is(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), unix.EAGAIN, "shared while another has it")
		dup, err := unix.Dup(a)
		c.do(err)
		c.is(unix.Flock(dup, unix.LOCK_SH|unix.LOCK_NB), nil, "downgrade by a duplicate")
		c.is(unix.Flock(b, unix.LOCK_SH|unix.LOCK_NB), nil, "shared now")
		c.is(unix.Flock(b, unix.LOCK_UN), nil, "unlock")
		c.is(unix.Flock(dup, unix.LOCK_EX), nil, "exclusive")
		c.close(a)
		c.is(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN, "one of two duplicates is closed")
		c.do(unix.Close(dup))
		c.is(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), nil, "both are closed")
		c.is(unix.Flock(b, 99), unix.EINVAL, "an unknown operation")
		c.is(unix.Flock(-1, unix.LOCK_SH), unix.EBADF, "no descriptor")
	}},
	{name: "lock/flock-of-a-process", run: func(c *ctx) {
		c.file("f", 0o644)
		release := c.hold("f", "flock")
		fd := c.open("f", rw)
		c.is(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EAGAIN, "while a process has it")
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 0, 0)), nil, "a POSIX lock all the same")
		release()
		c.is(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil, "when the process has ended")
	}},
	{name: "lock/posix", run: func(c *ctx) {
		c.file("f", 0o644)
		release := c.hold("f", "posix")
		fd := c.open("f", rw)
		c.oneOf(posixLock(fd, unix.F_SETLK, lk(unix.F_RDLCK, 50, 10)), "a lock of what another has", unix.EAGAIN, unix.EACCES)
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 100, 10)), nil, "a lock behind it")
		q := lk(unix.F_RDLCK, 0, 0)
		c.is(posixLock(fd, unix.F_GETLK, q), nil, "F_GETLK")
		eq(c, q.Type, int16(unix.F_WRLCK), "type of the lock in the way")
		eq(c, [2]int64{q.Start, q.Len}, [2]int64{0, 100}, "its range")
		c.true(q.Pid > 0, "its process is told: %d", q.Pid)
		release()
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 0, 0)), nil, "all of it when the process has ended")
		q = lk(unix.F_WRLCK, 0, 0)
		c.do(posixLock(fd, unix.F_GETLK, q))
		eq(c, q.Type, int16(unix.F_UNLCK), "one's own lock is not in the way")
	}},
	{name: "lock/posix-read-locks-share", run: func(c *ctx) {
		c.file("f", 0o644)
		c.hold("f", "posix-read")
		fd := c.open("f", rw)
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_RDLCK, 0, 100)), nil, "a read lock")
		c.oneOf(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 0, 100)), "an upgrade while another reads", unix.EAGAIN, unix.EACCES)
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 100, 0)), nil, "a write lock behind it")
	}},
	{name: "lock/posix-goes-with-any-close", run: func(c *ctx) {
		c.file("f", 0o644)
		c.hold("f", "posix-close")
		c.is(posixLock(c.open("f", rw), unix.F_SETLK, lk(unix.F_WRLCK, 0, 0)), nil, "a lock that its process lost by a close")
	}},
	{name: "lock/posix-errno", run: func(c *ctx) {
		c.file("f", 0o644)
		r, w := c.open("f", ro), c.open("f", wo)
		c.is(posixLock(r, unix.F_SETLK, lk(unix.F_WRLCK, 0, 0)), unix.EBADF, "a write lock of a descriptor for reading")
		c.is(posixLock(w, unix.F_SETLK, lk(unix.F_RDLCK, 0, 0)), unix.EBADF, "a read lock of a descriptor for writing")
		c.is(posixLock(w, unix.F_SETLK, lk(77, 0, 0)), unix.EINVAL, "an unknown type")
		c.is(posixLock(w, unix.F_SETLK, lk(unix.F_WRLCK, -1, 0)), unix.EINVAL, "a range before the start")
		c.is(posixLock(w, unix.F_SETLK, lk(unix.F_WRLCK, 1<<62, 1<<62+1)), unix.EOVERFLOW, "a range beyond 2^63")
		c.is(posixLock(-1, unix.F_SETLK, lk(unix.F_WRLCK, 0, 0)), unix.EBADF, "no descriptor")
		c.is(posixLock(w, unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: -5}), nil, "a negative length")
	}},
	{name: "lock/ofd", run: func(c *ctx) {
		c.file("f", 0o644)
		a, b := c.open("f", rw), c.open("f", rw)
		c.is(posixLock(a, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 0, 100)), nil, "write lock")
		c.oneOf(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_RDLCK, 99, 1)), "by another description", unix.EAGAIN, unix.EACCES)
		c.is(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 100, 1)), nil, "behind it")
		q := lk(unix.F_WRLCK, 0, 0)
		c.do(posixLock(b, unix.F_OFD_GETLK, q))
		eq(c, q.Pid, -1, "process of an OFD lock")
		c.is(posixLock(a, unix.F_OFD_SETLK, lk(unix.F_RDLCK, 0, 50)), nil, "downgrade of a half")
		c.is(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_RDLCK, 0, 50)), nil, "shared")
		c.oneOf(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_RDLCK, 50, 1)), "the other half", unix.EAGAIN, unix.EACCES)
		c.is(posixLock(a, unix.F_OFD_SETLK, lk(unix.F_UNLCK, 60, 10)), nil, "unlock of a piece")
		c.is(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 60, 10)), nil, "which another takes")
		other := c.open("f", rw)
		c.close(other)
		c.oneOf(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 80, 1)), "after a close of another description", unix.EAGAIN, unix.EACCES)
		c.close(a)
		c.is(posixLock(b, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 0, 0)), nil, "after the close of the one")
	}},
	{name: "lock/ofd-of-a-process", run: func(c *ctx) {
		c.file("f", 0o644)
		release := c.hold("f", "ofd")
		fd := c.open("f", rw)
		c.oneOf(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 0, 1)), "a POSIX lock against it", unix.EAGAIN, unix.EACCES)
		release()
		c.is(posixLock(fd, unix.F_SETLK, lk(unix.F_WRLCK, 0, 1)), nil, "when the process has ended")
	}},
	{name: "lock/blocked-is-granted", run: func(c *ctx) {
		c.file("f", 0o644)
		a, b := c.open("f", rw), c.open("f", rw)
		for _, x := range []struct {
			what       string
			take, give func(fd int) error
		}{
			{"flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) }, func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) }},
			{"OFD", func(fd int) error { return posixLock(fd, unix.F_OFD_SETLKW, lk(unix.F_WRLCK, 0, 0)) },
				func(fd int) error { return posixLock(fd, unix.F_OFD_SETLK, lk(unix.F_UNLCK, 0, 0)) }},
		} {
			c.do(x.take(a))
			got := make(chan error)
			go func() { got <- x.take(b) }()
			select {
			case err := <-got:
				c.errorf("%s: a lock that another has was granted: %v", x.what, err)
			case <-time.After(50 * time.Millisecond):
				c.do(x.give(a))
				c.is(<-got, nil, "%s, when the other one gave it", x.what)
			}
			c.do(x.give(b))
		}
	}},
	{name: "lock/eintr", run: func(c *ctx) {
		c.file("f", 0o644)
		undo, err := interruptible()
		defer undo()
		c.do(err)
		a := c.open("f", rw)
		c.do(unix.Flock(a, unix.LOCK_EX))
		c.do(posixLock(a, unix.F_OFD_SETLK, lk(unix.F_WRLCK, 0, 0)))
		for _, x := range []struct {
			what string
			take func(fd int) error
		}{
			{"flock", func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) }},
			{"fcntl", func(fd int) error { return posixLock(fd, unix.F_SETLKW, lk(unix.F_WRLCK, 0, 0)) }},
			{"OFD", func(fd int) error { return posixLock(fd, unix.F_OFD_SETLKW, lk(unix.F_WRLCK, 0, 0)) }},
		} {
			tid, got := make(chan int, 1), make(chan error, 1)
			go c.inThread(func() {
				fd := c.open("f", rw)
				tid <- unix.Gettid()
				got <- x.take(fd)
			})
			who := <-tid
			time.Sleep(50 * time.Millisecond)
			c.do(unix.Tgkill(unix.Getpid(), who, unix.SIGUSR1))
			select {
			case err := <-got:
				c.is(err, unix.EINTR, "a blocked %s that a signal meets", x.what)
			case <-time.After(5 * time.Second):
				c.fatalf("a blocked %s that a signal meets stays blocked", x.what)
			}
		}
	}},
	{name: "lock/edeadlk", run: func(c *ctx) {
		// Between this process and a child that waits: sh has no fcntl, so two descriptors of
		// OFD kind, for which the kernel detects nothing, are not it. A POSIX lock of one's
		// own never blocks.
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.is(posixLock(fd, unix.F_SETLKW, lk(unix.F_WRLCK, 0, 10)), nil, "a lock")
		c.is(posixLock(c.open("f", rw), unix.F_SETLKW, lk(unix.F_WRLCK, 0, 10)), nil, "again by another descriptor of the process")
	}},
	{name: "lock/leases", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", ro)
		lease := func(typ int) error { _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, typ); return err }
		c.is(lease(unix.F_RDLCK), nil, "read lease")
		got, err := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
		c.is(err, nil, "F_GETLEASE")
		eq(c, got, unix.F_RDLCK, "the lease")
		c.is(lease(unix.F_UNLCK), nil, "giving it up")
		w := c.open("f", rw)
		c.is(lease(unix.F_RDLCK), unix.EAGAIN, "read lease of a file that is open for writing")
		c.close(w)
	}},
	{name: "lock/of-unlinked", run: func(c *ctx) {
		c.file("f", 0o644)
		a, b := c.open("f", rw), c.open("f", rw)
		c.do(unix.Unlink("f"))
		c.is(unix.Flock(a, unix.LOCK_EX|unix.LOCK_NB), nil, "flock")
		c.is(unix.Flock(b, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN, "by another")
		c.file("f", 0o644)
		c.is(unix.Flock(c.open("f", rw), unix.LOCK_EX|unix.LOCK_NB), nil, "of a new file of that name")
	}},
}

var mmapCases = []testCase{
	{name: "mmap/shared-is-coherent", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 20000))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 20000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		for i := range 50 {
			off := i * 397
			s := fmt.Sprintf("<%04d>", i)
			copy(b[off:], s)
			eq(c, c.pread(fd, 6, int64(off)), s, "read after a store")
			s = fmt.Sprintf("[%04d]", i)
			c.pwrite(fd, s, int64(off))
			eq(c, string(b[off:off+6]), s, "load after a write")
		}
		other, err := unix.Mmap(c.open("f", ro), 0, 20000, unix.PROT_READ, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(other)
		b[12345] = 'Z'
		eq(c, other[12345], 'Z', "load by another mapping")
	}},
	{name: "mmap/private", run: func(c *ctx) {
		c.file("f", 0o444, strings.Repeat("0", 8192))
		fd := c.open("f", ro)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		c.is(err, nil, "private and writable, of a descriptor for reading")
		c.do(err)
		defer unix.Munmap(b)
		b[0] = 'p'
		eq(c, c.pread(fd, 1, 0), "0", "the file after a store into a private mapping")
		eq(c, b[0], 'p', "the mapping")
		eq(c, b[4096], '0', "another page")
	}},
	{name: "mmap/errno", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		c.mkdir("d", 0o755)
		m := func(fd int, prot, flags int) error {
			b, err := unix.Mmap(fd, 0, 4096, prot, flags)
			if err == nil {
				err = unix.Munmap(b)
			}
			return err
		}
		r, w := unix.PROT_READ, unix.PROT_WRITE
		c.is(m(c.open("f", ro), r|w, unix.MAP_SHARED), unix.EACCES, "shared and writable, of a descriptor for reading")
		c.is(m(c.open("f", wo), w, unix.MAP_SHARED), unix.EACCES, "of a descriptor for writing")
		c.is(m(c.open("d", ro), r, unix.MAP_SHARED), unix.ENODEV, "a directory")
		c.is(m(-1, r, unix.MAP_SHARED), unix.EBADF, "no descriptor")
		_, err := unix.Mmap(c.open("f", ro), 100, 4096, r, unix.MAP_SHARED)
		c.is(err, unix.EINVAL, "an offset within a page")
		c.is(m(c.open("f", rw|unix.O_APPEND), r|w, unix.MAP_SHARED), nil, "of a descriptor for appending")
		b, err := unix.Mmap(c.open("f", ro), 0, 4096, r, unix.MAP_SHARED)
		c.do(err)
		c.is(unix.Mprotect(b, r|w), unix.EACCES, "mprotect to writable, of a descriptor for reading")
		c.is(unix.Munmap(b), nil, "munmap")
	}},
	{name: "mmap/tail-of-the-last-page", run: func(c *ctx) {
		c.file("f", 0o644, "0123456789")
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		eq(c, string(b[:12]), "0123456789\x00\x00", "content")
		b[50] = 'x' // which the file does not get
		c.do(unix.Msync(b, unix.MS_SYNC))
		c.do(unix.Munmap(b))
		eq(c, c.size("f"), 10, "size")
		c.do(unix.Ftruncate(fd, 4096))
		eq(c, c.pread(fd, 100, 0), "0123456789"+strings.Repeat("\x00", 90), "content after growing")
	}},
	{name: "mmap/grows-under-a-mapping", run: func(c *ctx) {
		c.file("f", 0o644, "x")
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.pwrite(fd, "far", 500000)
		eq(c, string(b[500000:500003]), "far", "what was written behind the old end")
		b[400000] = 'h'
		eq(c, c.pread(fd, 2, 400000), "h\x00", "a store into a hole")
		c.do(unix.Ftruncate(fd, 100))
		c.do(unix.Ftruncate(fd, 1<<20))
		eq(c, b[400000], 0, "after a truncate and back")
	}},
	{name: "mmap/sigbus", run: func(c *ctx) {
		c.file("f", 0o644, "content")
		for _, x := range []struct {
			how  string
			off  int
			want string
		}{{"r", 4095, "read 0"}, {"w", 100, "stored"}, {"r", 4096, "SIGBUS"}, {"w", 4096, "SIGBUS"}, {"r", 500000, "SIGBUS"}} {
			out, err := c.child("peek", "f", x.how, fmt.Sprint(x.off))
			if x.want == "SIGBUS" {
				c.true(err != nil && strings.Contains(out, "SIGBUS"), "%s at %d gets SIGBUS: %v, %.200s", x.how, x.off, err, out)
			} else {
				c.is(err, nil, "%s at %d: %.200s", x.how, x.off, out)
				eq(c, out, x.want, "%s at %d", x.how, x.off)
			}
		}
		eq(c, c.size("f"), 7, "size")
	}},
	{name: "mmap/of-unlinked", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 8192))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		c.do(unix.Unlink("f"))
		c.close(fd)
		b[0], b[4096] = 'a', 'b'
		c.is(unix.Msync(b, unix.MS_SYNC), nil, "msync")
		eq(c, string([]byte{b[0], b[1], b[4096], b[8191]}), "a0b0", "content")
		c.do(unix.Munmap(b))
	}},
	{name: "mmap/closed-descriptor", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 4096))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		c.close(fd)
		copy(b, "stored")
		c.do(unix.Msync(b, unix.MS_SYNC))
		c.do(unix.Munmap(b))
		eq(c, c.content("f")[:7], "stored0", "content")
	}},
	{name: "mmap/munmap-keeps", run: func(c *ctx) {
		c.file("f", 0o644)
		fd := c.open("f", rw)
		c.do(unix.Ftruncate(fd, 1<<20))
		b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		for i := range b {
			b[i] = byte(i >> 12)
		}
		c.do(unix.Munmap(b))
		s := c.content("f")
		for i := range s {
			if s[i] != byte(i>>12) {
				c.fatalf("byte %d: %d", i, s[i])
			}
		}
		c.settle(fd)
		c.true(c.fstat(fd).Blocks*512 >= 1<<20, "blocks: %d", c.fstat(fd).Blocks)
	}},
	{name: "mmap/punched-under-a-mapping", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 16384))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		b[5000] = 'y'
		c.do(unix.Fallocate(fd, fPunch|fKeep, 4096, 4096))
		eq(c, b[5000], 0, "load from what was punched")
		eq(c, b[4095], 'x', "before it")
		b[5001] = 'z'
		eq(c, c.pread(fd, 3, 5000), "\x00z\x00", "read after a store into it")
	}},
	{name: "mmap/write-from-a-mapping-of-the-same-file", run: func(c *ctx) {
		c.file("f", 0o644, patterned(16384))
		fd := c.open("f", rw)
		b, err := unix.Mmap(fd, 0, 16384, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.pwrite(fd, string(b[:4096]), 8192)
		n, err := unix.Pwrite(fd, b[:4096], 4096)
		c.is(err, nil, "writing from a mapping of the file")
		eq(c, n, 4096, "bytes")
		n, err = unix.Pread(fd, b[12288:], 0)
		c.is(err, nil, "reading into a mapping of the file")
		eq(c, n, 4096, "bytes")
		c.true(c.content("f") == strings.Repeat(patterned(16384)[:4096], 4), "content")
	}},
	{name: "mmap/copy-of-a-mapped-file", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 8192))
		c.file("g", 0o644)
		fd, g := c.open("f", rw), c.open("g", rw)
		b, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		copy(b[100:], "dirty")
		var from, to int64
		_, err = unix.CopyFileRange(fd, &from, g, &to, 8192, 0)
		c.do(err)
		eq(c, c.pread(g, 5, 100), "dirty", "the copy has what was stored")
		copy(b[100:], "later")
		eq(c, c.pread(g, 5, 100), "dirty", "and not what is stored later")
		mg, err := unix.Mmap(g, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(mg)
		copy(mg[4096:], "copy")
		eq(c, string(b[4096:4100]), "0000", "the source after a store into the copy")
	}},
	{name: "mmap/sync-flag-is-refused-or-works", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("0", 4096))
		b, err := unix.Mmap(c.open("f", rw), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED_VALIDATE|unix.MAP_SYNC)
		if err == nil {
			c.do(unix.Munmap(b))
		} else {
			c.is(err, unix.EOPNOTSUPP, "MAP_SYNC")
		}
	}},
	{name: "mmap/exec-mapping", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("\xc3", 4096))
		b, err := unix.Mmap(c.open("f", ro), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		c.is(err, nil, "PROT_EXEC")
		if err == nil {
			c.do(unix.Munmap(b))
		}
	}},
	{name: "mmap/mlock-and-madvise", run: func(c *ctx) {
		c.file("f", 0o644, strings.Repeat("x", 65536))
		b, err := unix.Mmap(c.open("f", rw), 0, 65536, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		c.do(err)
		defer unix.Munmap(b)
		c.is(unix.Mlock(b), nil, "mlock")
		c.is(unix.Munlock(b), nil, "munlock")
		b[0] = 'y'
		for _, a := range []int{unix.MADV_WILLNEED, unix.MADV_DONTNEED, unix.MADV_RANDOM} {
			c.is(unix.Madvise(b, a), nil, "madvise %d", a)
		}
		eq(c, b[0], 'y', "a store after MADV_DONTNEED of a shared mapping")
		c.is(unix.Msync(b, unix.MS_ASYNC), nil, "msync MS_ASYNC")
		c.is(unix.Msync(b, unix.MS_SYNC|unix.MS_INVALIDATE), nil, "msync MS_SYNC|MS_INVALIDATE")
		c.is(unix.Msync(b, unix.MS_SYNC|unix.MS_ASYNC), unix.EINVAL, "msync of both kinds")
	}},
}
