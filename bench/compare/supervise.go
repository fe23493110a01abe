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

// dirEnv tells the process that measures where its files go.
const dirEnv = "DAXFSD_COMPARE_DIR"

// supervise runs this program again, in a mount namespace of its own, and when that has ended,
// however it did, takes away what is left: files, and the setting of the machine that was changed.
// Servers and mounts go with the process that started them.
func supervise(o *config) error {
	if os.Geteuid() != 0 {
		return errors.New("measuring mounts filesystems and must run as root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("there is no /dev/fuse: load the kernel's module with `modprobe fuse`")
	}
	runtime.LockOSThread() // Pdeathsig means this thread
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	dir, err := os.MkdirTemp(o.dir, "daxfsd-compare-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) // nothing is mounted below it in this namespace
	restore, err := enableUring()
	if err != nil {
		return err
	}
	defer restore()
	p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), dirEnv+"="+dir),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		// A group of its own: ^C comes through this process, once.
		Sys: &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true, Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return fmt.Errorf("starting in a mount namespace: %w", err)
	}
	go func() {
		for s := range sig {
			_ = p.Signal(s)
		}
	}()
	st, err := p.Wait()
	if err != nil {
		return err
	}
	if !st.Success() {
		return fmt.Errorf("the measurement ended with %v", st)
	}
	return nil
}

// enableUring turns FUSE over io_uring on, where the kernel has it.
func enableUring() (restore func(), err error) {
	was, err := os.ReadFile(transport.UringParameter)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil // its targets say so
	}
	if err == nil {
		err = os.WriteFile(transport.UringParameter, []byte("Y"), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("turning FUSE over io_uring on: %w", err)
	}
	return func() {
		if err := os.WriteFile(transport.UringParameter, was, 0); err != nil {
			fmt.Fprintf(os.Stderr, "compare: putting %s back: %v\n", transport.UringParameter, err)
		}
	}, nil
}

// noUring says why io_uring is not there; "": it is.
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
