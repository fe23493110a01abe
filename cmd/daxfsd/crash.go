package main

import (
	"os"
	"path/filepath"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// crashTo makes Go's runtime write the report of a crash (an unrecovered panic, a fault, SIGQUIT)
// to the log as well as to standard error, which a background daemon does not have.
func crashTo(log *os.File) error { return debug.SetCrashOutput(log, debug.CrashOptions{}) }

// crashDir returns the directory where a daemon without a log leaves the report of a crash; "" if
// there is none.
func crashDir() string {
	if os.Geteuid() == 0 {
		return "/run/daxfsd"
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "daxfsd")
	}
	return ""
}

// newCrashFile creates an empty file for the report of a crash, locked while its daemon lives.
// clean removes the file at an orderly end. Empty files of daemons that were killed are removed
// here.
func newCrashFile(dir string) (f *os.File, clean func()) {
	none := func() {}
	if dir == "" || os.MkdirAll(dir, 0o700) != nil {
		return nil, none
	}
	old, _ := filepath.Glob(filepath.Join(dir, "crash-*.log"))
	for _, name := range old {
		removeIfDead(name)
	}
	f, err := os.CreateTemp(dir, "crash-*.log") // created with O_EXCL, readable only by its owner
	if err != nil {
		return nil, none
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return f, func() {
		_ = os.Remove(f.Name())
		_ = f.Close()
	}
}

// removeIfDead removes a crash file that is empty and not locked by a daemon.
func removeIfDead(name string) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() == 0 && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(name)
	}
}
