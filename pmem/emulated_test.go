package pmem

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// emulated tells whether a user-mode emulator runs the test. It shows its own name
// under a path that it does not make up.
func emulated() bool {
	exe, err := os.Readlink("/proc/thread-self/exe")
	return err == nil && strings.HasPrefix(filepath.Base(exe), "qemu-")
}

// skipEmulated skips what the emulator gets wrong.
func skipEmulated(t *testing.T, why string) {
	if emulated() {
		t.Skip(why)
	}
}

// flushFaults tells whether flushing memory that is not there faults.
func flushFaults() bool { return runtime.GOARCH != "arm64" || flushName() == "none" || !emulated() }
