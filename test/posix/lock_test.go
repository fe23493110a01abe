package posix

import (
	"bufio"
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// hold starts a child that locks the file as childHold describes, and returns a function that ends
// the child.
func (c *ctx) hold(name, how string) (release func()) {
	ctx, cancel := context.WithTimeout(context.Background(), caseLimit())
	cmd := harness.Child(ctx, "hold", name, how)
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
		c.is(unix.Flock(b, 16), unix.EINVAL, "an unknown operation")
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
	{name: "lock/posix-of-one-process", run: func(c *ctx) {
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
