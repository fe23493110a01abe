package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// dirEnv names the environment variable with the directory for the files of the measuring process.
const dirEnv = "DAXFSD_COMPARE_DIR"

// supervise runs this program again, in a mount namespace of its own. However that process ends,
// supervise then removes its files and restores the changed setting of the machine. Servers and
// mounts end with the process that started them.
func supervise(conf *config) error {
	if os.Geteuid() != 0 {
		return errors.New("measuring mounts filesystems and must run as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("there is no /dev/fuse: load the kernel's module with `modprobe fuse`")
	}
	runtime.LockOSThread() // Pdeathsig is sent when this thread ends
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	dir, err := os.MkdirTemp(conf.dir, "daxfsd-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // nothing is mounted below it in this namespace
	restore, err := enableUring()
	if err != nil {
		return err
	}
	defer restore()
	process, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), dirEnv+"="+dir),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		// In its own process group, so that ^C reaches it only once, through this process.
		Sys: &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return fmt.Errorf("starting in a mount namespace: %w", err)
	}
	go func() {
		for received := range sig {
			_ = process.Signal(received)
		}
	}()
	st, err := process.Wait()
	if err != nil {
		return err
	}
	if !st.Success() {
		return fmt.Errorf("the measurement ended with %v", st)
	}
	return nil
}

// enableUring enables FUSE over io_uring, if the kernel has it.
func enableUring() (restore func(), err error) {
	was, err := os.ReadFile(transport.UringParameter)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil // the contenders that need it report that
	}
	if err == nil {
		err = os.WriteFile(transport.UringParameter, []byte("Y"), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("enabling FUSE over io_uring: %w", err)
	}
	return func() {
		if err := os.WriteFile(transport.UringParameter, was, 0); err != nil {
			fmt.Fprintf(os.Stderr, "compare: restoring %s: %v\n", transport.UringParameter, err)
		}
	}, nil
}

// noUring explains why FUSE over io_uring is not available; "" if it is.
func noUring() string {
	u, err := transport.NewUring()
	if err != nil {
		return err.Error()
	}
	u.Close()
	return ""
}

// mountMemory mounts a tmpfs that only this namespace sees.
func mountMemory(dir, huge string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("compare", dir, "tmpfs", 0, "size=100%,mode=755,huge="+huge); err != nil {
		return fmt.Errorf("mounting a tmpfs with huge=%s on %s: %w", huge, dir, err)
	}
	return nil
}
