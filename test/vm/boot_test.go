package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/vm/machine"
)

// TestBoot checks that Boot.Run returns the job's output and exit code, or the reason why there is
// no exit code.
func TestBoot(t *testing.T) {
	for _, c := range []struct {
		what, job string
		limit     time.Duration
		code      int
		err       error
		out       string
	}{
		{"exit code", "cat given; echo to standard error >&2; exit 7", time.Minute, 7, nil, "from the host\nto standard error\n"},
		{"time limit", "echo begun; sleep 1000", 15 * time.Second, 0, machine.ErrLimit, "begun\n"},
		{"panic", "echo begun; echo c >/proc/sysrq-trigger", time.Minute, 0, machine.ErrPanic, "begun\n"},
		{"no exit code", "echo begun; poweroff -f", time.Minute, 0, machine.ErrNoCode, "begun\n"},
	} {
		t.Run(c.what, func(t *testing.T) {
			given := filepath.Join(t.TempDir(), "given")
			if err := os.WriteFile(given, []byte("from the host\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			pid := 0
			b := machine.Boot{Guest: guest, Job: c.job, Files: map[string]string{"given": given}, Limit: c.limit, Output: &out, Started: func(p int) { pid = p }}
			code, err := b.Run(t.Context())
			if code != c.code || !errors.Is(err, c.err) || out.String() != c.out {
				t.Errorf("exit code %d, output %q, error %v; want %d, %q, %v", code, out.String(), err, c.code, c.out, c.err)
			}
			if qemuRuns(pid) {
				t.Errorf("QEMU, process %d, is still there", pid)
			}
		})
	}
}

// qemuRuns reports whether the process exists and is QEMU.
func qemuRuns(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && strings.Contains(string(b), "qemu-system")
}

// bootForEver boots a guest that does not end, and writes QEMU's pid to a file.
func bootForEver(ctx context.Context, pidFile string) error {
	b := machine.Boot{Guest: guest, Job: "sleep 1000", Limit: time.Minute, Output: os.Stdout, Started: func(pid int) {
		if os.WriteFile(pidFile+".new", fmt.Append(nil, pid), 0o644) == nil {
			_ = os.Rename(pidFile+".new", pidFile)
		}
	}}
	_, err := b.Run(ctx)
	return err
}

// TestDidNotRun checks that without a guest the tests print a warning, and that in CI they fail.
func TestDidNotRun(t *testing.T) {
	for _, c := range []struct {
		ci   string
		code int
	}{{"", 0}, {"false", 0}, {"true", 1}, {"1", 1}} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run", "TestBoot")
		cmd.Env = append(os.Environ(), "CI="+c.ci, "DAXFSD_VM_CACHE="+dir, "DAXFSD_VM_MIRROR=file:///nowhere", "DAXFSD_VM_NOT_RUN="+filepath.Join(dir, "why"))
		out, _ := cmd.CombinedOutput()
		why, err := os.ReadFile(filepath.Join(dir, "why"))
		for _, s := range []string{string(out), string(why)} {
			if !strings.Contains(s, "THE VM TESTS DID NOT RUN") || !strings.Contains(s, "file:///nowhere") {
				t.Errorf("CI=%s: it said %q (%v)", c.ci, s, err)
			}
		}
		if code := cmd.ProcessState.ExitCode(); code != c.code {
			t.Errorf("CI=%s: exit code %d, want %d\n%s", c.ci, code, c.code, out)
		}
	}
}

// TestNothingIsLeft checks that QEMU dies with the process that runs a guest, even if that is
// killed.
func TestNothingIsLeft(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+pidFile, "TMPDIR="+t.TempDir()) // a killed process cannot remove its files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	pid := 0
	for start := time.Now(); !qemuRuns(pid); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(pidFile); err == nil {
			pid, _ = strconv.Atoi(string(b))
		}
		if time.Since(start) > 30*time.Second {
			t.Fatal("no guest was booted")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); qemuRuns(pid); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("QEMU, process %d, outlived the process that started it", pid)
		}
	}
}
