package posix

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// children lists programs that need a process of their own. Each prints its result.
var children = harness.Children{
	"fsize":    childFsize,
	"peek":     childPeek,
	"append":   childAppend,
	"hold":     childHold,
	"nofile":   childHello,
	"openlink": childOpen,
}

// child runs one of children in the case's directory. It returns the output and the exit error.
func (c *ctx) child(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := harness.Child(ctx, name, args...)
	cmd.Path = "/proc/self/exe"
	cmd.Dir = c.dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// childFsize limits file sizes to args[1] bytes and makes the call args[0] on the file args[2].
func childFsize(args []string) error {
	limit, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	fd, err := unix.Open(args[2], unix.O_RDWR|unix.O_CREAT, 0o644)
	if err != nil {
		return err
	}
	// The Go runtime ignores SIGXFSZ unless the program asks for it; the default action would end
	// this process.
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	n := 0
	switch args[0] {
	case "write":
		n, err = unix.Pwrite(fd, make([]byte, 10000), 0)
	case "beyond":
		n, err = unix.Pwrite(fd, make([]byte, 10), int64(limit))
	case "truncate":
		err = unix.Ftruncate(fd, int64(limit)+1)
	case "fallocate":
		err = unix.Fallocate(fd, 0, 0, int64(limit)+1)
	}
	fmt.Printf("%d %s", n, errName(err))
	return nil
}

// childPeek maps 1 MiB of the file args[0] shared, and reads (args[1] is r) or stores (w) the byte
// at offset args[2].
func childPeek(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	off, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	b, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if args[1] == "w" {
		b[off] = 'w'
		fmt.Print("stored")
	} else {
		fmt.Printf("read %d", b[off])
	}
	return nil
}

// childAppend appends args[1] records of 100 bytes args[2] to the file args[0].
func childAppend(args []string) error {
	fd, err := unix.Open(args[0], unix.O_WRONLY|unix.O_APPEND, 0)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	rec := []byte(strings.Repeat(args[2], 100))
	for range n {
		if n, err := unix.Write(fd, rec); n != len(rec) {
			return fmt.Errorf("%d, %w", n, err)
		}
	}
	return nil
}

// childHold locks the file args[0] in the way args[1], prints "locked", and holds the lock until
// its input ends.
func childHold(args []string) error {
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		return err
	}
	switch args[1] {
	case "flock":
		err = unix.Flock(fd, unix.LOCK_EX)
	case "posix", "posix-then-b": // posix-then-b then waits for a lock on the file b
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 100})
	case "posix-read":
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_RDLCK, Start: 0, Len: 100})
	case "ofd":
		err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 100})
	case "posix-close": // a close of any descriptor of the file ends the process's locks
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		if err == nil {
			var other int
			if other, err = unix.Open(args[0], unix.O_RDONLY, 0); err == nil {
				err = unix.Close(other)
			}
		}
	}
	if err != nil {
		return err
	}
	fmt.Println("locked")
	if args[1] == "posix-then-b" {
		other, err := unix.Open("b", unix.O_RDWR, 0)
		if err == nil {
			err = unix.FcntlFlock(uintptr(other), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: 100})
		}
		if err != nil {
			return err
		}
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// childHello is the program of cases that execute a program.
func childHello(args []string) error {
	fmt.Print("hello")
	return nil
}

// childOpen opens its argument for writing and prints the error.
func childOpen(args []string) error {
	fmt.Print(errName(try(args[0], unix.O_WRONLY)))
	return nil
}
