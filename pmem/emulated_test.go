package pmem

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// emulated reports whether a user-mode emulator runs the test. An emulator replaces the usual paths
// of the executable in /proc, but not this one, which shows its own name.
func emulated() bool {
	exe, err := os.Readlink("/proc/thread-self/exe")
	return err == nil && strings.HasPrefix(filepath.Base(exe), "qemu-")
}

// skipEmulated skips a test that an emulator fails for the given reason.
func skipEmulated(t *testing.T, why string) {
	if emulated() {
		t.Skip(why)
	}
}

// flushFaults reports whether flushing memory that is not accessible faults.
func flushFaults() bool { return runtime.GOARCH != "arm64" || flushName() == "none" || !emulated() }
