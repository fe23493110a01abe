package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The log of a worker has two lines for each call:
//
//	? {"N":17,"Kind":"write",...}   call 17 is about to be made
//	! 17 4096                       call 17 returned 4096
//
// It is a file, or a serial port from a guest to its host. In a file, a line is one write(2), so
// the log holds all lines until the worker died. On a port, write(2) returns before the host has
// the line, so the host answers each line with a byte.

// Log is the log to which a worker, or a test in its place, writes its calls.
type Log struct {
	f       *os.File
	answers bool
	due     int // answers that the host still owes
}

// OpenLog opens a file, which it creates if needed, or a port.
func OpenLog(name string) (*Log, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &Log{f: f, answers: st.Mode()&os.ModeCharDevice != 0}, nil
}

// Say writes a line.
func (l *Log) Say(format string, a ...any) error {
	_, err := fmt.Fprintf(l.f, format+"\n", a...)
	if l.answers {
		l.due++
	}
	return err
}

// Calling logs that call o is about to be made. When it returns, no line can be lost, whatever
// dies.
func (l *Log) Calling(o Op) error {
	line, err := json.Marshal(o)
	if err == nil {
		err = l.Say("? %s", line)
	}
	if err != nil {
		return err
	}
	return l.decide()
}

// Returned logs that call o returned n.
func (l *Log) Returned(o Op, n int64) error { return l.Say("! %d %d", o.N, n) }

// decide waits for the host's answers, so that no line can be lost.
func (l *Log) decide() error {
	n, err := io.ReadFull(l.f, make([]byte, l.due))
	l.due -= n
	return err
}

// Close waits for all answers and closes the log, so that the next process that opens the port does
// not get answers for this one.
func (l *Log) Close() error {
	if err := l.decide(); err != nil {
		return err
	}
	return l.f.Close()
}

// Work makes calls on the mount until the daemon dies, or until a number of calls is reached.
// Arguments: mount point, worker, file of its tree, log, seed, round, number of calls (0: no
// limit).
func Work(args []string) error {
	var num [7]uint64
	for _, i := range []int{1, 4, 5, 6} {
		n, err := strconv.ParseUint(args[i], 10, 64)
		if err != nil {
			return err
		}
		num[i] = n
	}
	worker, seed, round, most := int(num[1]), num[4], int(num[5]), int(num[6])
	t, err := Load(args[2])
	if err != nil {
		return err
	}
	log, err := OpenLog(args[3])
	if err != nil {
		return err
	}
	unix.Umask(0)
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	choose := &chooser{Rand: rand.New(rand.NewPCG(seed, uint64(round)<<8|uint64(worker))), t: t, w: worker, round: round, large: round%Workers == worker}
	var held holder
	var rest *Op
	for most == 0 || choose.n < most {
		call := choose.next()
		if rest != nil {
			call = *rest
		}
		data := call.data()
		if err := log.Calling(call); err != nil {
			return err
		}
		n, err := held.call(call, data)
		for err == unix.EINTR { // a signal of Go's scheduler; nothing is done, or a part that can be done again
			n, err = held.call(call, data)
		}
		if err != nil {
			if died(err) {
				return nil
			}
			return fmt.Errorf("%+v: %w", call, err)
		}
		if err := log.Returned(call, n); err != nil {
			return err
		}
		t.Apply(call, n)
		if (call.Kind == "write" || call.Kind == "append") && n < call.Len {
			// The first FUSE requests of the call were answered. The error of the next one is
			// reported when the rest is written, as for any program.
			if !died(unix.ENOTCONN) {
				return fmt.Errorf("%+v: %d bytes written", call, n)
			}
			rest = &call
			rest.Off, rest.Len, rest.Skip = call.Off+n, call.Len-n, call.Skip+n
		}
	}
	return log.Close()
}

// died reports whether err is an error that a call gets when the daemon dies before it answers, and
// the daemon is in fact dead.
func died(err error) bool {
	if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) && !errors.Is(err, unix.EIO) {
		return false
	}
	for range 500 {
		var st unix.Statfs_t
		if unix.Statfs(".", &st) == unix.ENOTCONN {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// holder keeps some unlinked files open: they are orphans if the daemon dies.
type holder [4]int

func (h *holder) hold(fd, n int) {
	old := &h[n%len(h)]
	if *old > 0 {
		_ = unix.Close(*old)
	}
	*old = fd
}

// call makes the system call o, with data as its data.
func (h *holder) call(call Op, data []byte) (n int64, err error) {
	switch call.Kind {
	case "create":
		return 0, with(call.A, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, call.Mode, func(int) error { return nil })
	case "mkdir":
		return 0, unix.Mkdir(call.A, call.Mode)
	case "symlink":
		return 0, unix.Symlink(call.B, call.A)
	case "link":
		return 0, unix.Link(call.A, call.B)
	case "unlink":
		if call.Hold {
			fd, err := unix.Open(call.A, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return 0, err
			}
			h.hold(fd, call.N)
		}
		return 0, unix.Unlink(call.A)
	case "rmdir":
		return 0, unix.Rmdir(call.A)
	case "rename":
		return 0, unix.Rename(call.A, call.B)
	case "exchange":
		return 0, unix.Renameat2(unix.AT_FDCWD, call.A, unix.AT_FDCWD, call.B, unix.RENAME_EXCHANGE)
	case "write", "append":
		flags := unix.O_WRONLY
		if call.Kind == "append" {
			flags |= unix.O_APPEND
		}
		err = with(call.A, flags, 0, func(fd int) error {
			put := unix.Pwrite
			if call.Kind == "append" {
				put = func(fd int, part []byte, _ int64) (int, error) { return unix.Write(fd, part) }
			}
			count, err := put(fd, data, call.Off)
			n = int64(count)
			return err
		})
		return n, err
	case "truncate":
		return 0, unix.Truncate(call.A, call.Len)
	case "fallocate":
		return 0, with(call.A, unix.O_WRONLY, 0, func(fd int) error { return unix.Fallocate(fd, call.Mode, call.Off, call.Len) })
	case "copy":
		err = with(call.A, unix.O_RDONLY, 0, func(from int) error {
			return with(call.B, unix.O_WRONLY, 0, func(to int) error {
				count, err := unix.CopyFileRange(from, &call.From, to, &call.Off, int(call.Len), 0)
				if n = int64(count); err == nil && count == 0 {
					err = errors.New("nothing copied")
				}
				return err
			})
		})
		return n, err
	case "chmod":
		return 0, unix.Chmod(call.A, call.Mode)
	case "setxattr":
		return 0, unix.Setxattr(call.A, call.B, data, 0)
	case "removexattr":
		return 0, unix.Removexattr(call.A, call.B)
	case "fsync":
		return 0, with(call.A, unix.O_RDONLY, 0, unix.Fsync)
	}
	panic("no call is named " + call.Kind)
}

// with opens a file, calls f and closes the file. It ignores the result of close, since the effect
// of f is complete.
func with(name string, flags int, mode uint32, f func(fd int) error) error {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, mode)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}
