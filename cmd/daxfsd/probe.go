package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// A system call on a mount waits for the daemon, which may be stopped or hang. Over io_uring, once
// the daemon's ring has the request, the caller cannot even be killed, and its process cannot end.
// So a call that may send a request is made by a separate process, the probe: this program under
// another name. A probe that does not answer in time is abandoned. It ends when the daemon answers
// or exits, or when the connection is aborted.

// probeName is argv[0] of a probe.
const probeName = "daxfsd-probe"

// probeLimit is how long a healthy daemon may take to answer.
const probeLimit = 2 * time.Second

// errSilent is returned when a probe has no answer within its limit.
var errSilent = errors.New("no answer")

// probe makes one system call in a separate process, and returns its result or errno. args:
//
//	open PATH            resolves a path
//	stat PATH            asks the daemon for attributes, bypassing the kernel's cache
//	getxattr PATH NAME   returns the value
//	umount PATH MODE ID  calls fusefs.UnmountID; EBUSY is ErrBusy, ESTALE is ErrHidden
func probe(limit time.Duration, args ...string) ([]byte, error) {
	return probeOn(-1, limit, args...)
}

// probeFD is the path of the descriptor that probeOn passes to a probe.
const probeFD = "/proc/self/fd/3"

// probeOn is probe, and passes a copy of fd to the probe unless fd is -1.
func probeOn(fd int, limit time.Duration, args ...string) ([]byte, error) {
	p, err := startProbe(fd, args...)
	if err != nil {
		return nil, err
	}
	return p.answer(limit)
}

// runningProbe is a probe whose answer has not been read. answer is called once.
type runningProbe struct {
	cmd *exec.Cmd
	rd  *os.File

	// last is set for a probe that may be the last user of a mount, and then ends only when the
	// daemon does.
	last bool
}

// startProbe starts a probe that has a copy of fd, unless fd is -1.
func startProbe(fd int, args ...string) (*runningProbe, error) {
	rd, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	keepFromChildren()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{probeName}, args...)
	cmd.Stdout = w
	cmd.Dir = "/" // keeps no mount busy
	if fd >= 0 {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			rd.Close()
			return nil, os.NewSyscallError("dup", err)
		}
		f := os.NewFile(uintptr(dup), "mount")
		defer f.Close()
		cmd.ExtraFiles = []*os.File{f}
	}
	if err := cmd.Start(); err != nil {
		rd.Close()
		return nil, fmt.Errorf("starting a process to ask the daemon: %w", err)
	}
	return &runningProbe{cmd: cmd, rd: rd}, nil
}

// answer waits for the probe's answer and for the probe's end, because a probe with a descriptor on
// a mount keeps that mount busy. It does not wait for the end of a probe that it killed, or that is
// the last user.
func (p *runningProbe) answer(limit time.Duration) ([]byte, error) {
	defer p.rd.Close()
	b, err := readAnswer(p.rd, limit)
	if err != nil {
		_ = p.cmd.Process.Kill()
	}
	if err != nil || p.last {
		go func() { _ = p.cmd.Wait() }()
	} else {
		_ = p.cmd.Wait()
	}
	if err != nil {
		return nil, err
	}
	if e := unix.Errno(binary.LittleEndian.Uint32(b)); e != 0 {
		return nil, e
	}
	return b[8:], nil
}

// readAnswer reads the errno and the length (32 bits each), then the bytes.
func readAnswer(rd *os.File, limit time.Duration) ([]byte, error) {
	_ = rd.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, 8)
	_, err := io.ReadFull(rd, b)
	if err == nil {
		b = append(b, make([]byte, binary.LittleEndian.Uint32(b[4:]))...)
		_, err = io.ReadFull(rd, b[8:])
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errSilent
	case err != nil:
		return nil, fmt.Errorf("the process that asked the daemon died: %w", err)
	}
	return b, nil
}

// runProbe is the main function of a probe.
func runProbe(args []string) {
	var value []byte
	var err error
	switch args[0] {
	case "open":
		_, err = unix.Open(args[1], unix.O_PATH|unix.O_CLOEXEC, 0)
	case "stat":
		var st unix.Statx_t
		err = unix.Statx(unix.AT_FDCWD, args[1], unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	case "getxattr":
		var n int
		value = make([]byte, 64<<10)
		n, err = unix.Lgetxattr(args[1], args[2], value)
		value = value[:max(n, 0)]
	case "umount":
		mode, _ := strconv.Atoi(args[2])
		id, _ := strconv.ParseUint(args[3], 10, 64)
		err = fusefs.UnmountID(args[1], id, fusefs.UnmountMode(mode))
	}
	var e unix.Errno
	switch {
	case errors.Is(err, fusefs.ErrBusy):
		err = unix.EBUSY
	case errors.Is(err, fusefs.ErrHidden):
		err = unix.ESTALE
	}
	if err != nil && !errors.As(err, &e) {
		e = unix.EIO
	}
	b := binary.LittleEndian.AppendUint32(nil, uint32(e))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	_, _ = os.Stdout.Write(append(b, value...))
}

// stopped reports whether a process is stopped, by a signal or by a debugger.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil || pid <= 0 {
		return false
	}
	for i := len(b) - 1; i > 0; i-- { // the name before the state may contain parentheses
		if b[i] == ')' {
			return i+2 < len(b) && (b[i+2] == 'T' || b[i+2] == 't')
		}
	}
	return false
}
