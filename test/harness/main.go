package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Daxfsd is the path of the binary that Main builds, or that BinaryEnv names.
var Daxfsd string

const (
	// childEnv is the name of the child that a test binary, started again by a test, must run as.
	childEnv = "DAXFSD_MOUNTTEST_CHILD"
	// dirEnv is the directory for the tests' files. It is set in the process that runs the tests.
	dirEnv = "DAXFSD_MOUNTTEST_DIR"
)

// These environment variables are for runs without a Go toolchain, such as in a guest of test/vm,
// and for runs on another kind of region or with other mount options.
const (
	// BinaryEnv is the path of a daxfsd binary that Main uses instead of building one.
	BinaryEnv = "DAXFSD_TEST_BINARY"
	// RegionEnv is the path of an existing region, which is overwritten. New and NewWith use it
	// instead of an emulated region.
	RegionEnv = "DAXFSD_TEST_REGION"
	// OptionsEnv holds mount options for all mounts, such as another cache mode. A test's own
	// options come later and override them.
	OptionsEnv = "DAXFSD_TEST_OPTIONS"
)

// Children are programs, by name, that tests start as processes of their own. So the kernel sees
// mappings, open files and deaths that are not the test's.
type Children map[string]func(args []string) error

// Main runs the tests of a package whose tests mount. TestMain calls it; it does not return.
func Main(m *testing.M, children Children) {
	switch name := os.Getenv(childEnv); {
	case name != "":
		f, ok := children[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no child is named", name)
			os.Exit(2)
		}
		if err := f(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Geteuid() != 0: // each test fails and reports what is missing
		os.Exit(m.Run())
	case os.Getenv(dirEnv) == "":
		code, err := supervise()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	code, err := build(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// supervise runs this binary again in a mount namespace of its own, kills the processes that are
// left at its end, and returns its exit code.
func supervise() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is sent when this thread dies
	dir, err := os.MkdirTemp("", "daxfsd-test-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir) // nothing is mounted below it in this namespace
	// Daemons outlive the process that starts them. They then become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := os.Setenv(dirEnv, dir); err != nil { // not in ProcAttr.Env: of two equal names the first would count
		return 1, err
	}
	tests, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return 1, fmt.Errorf("starting the tests in a mount namespace of their own: %w", err)
	}
	go func() {
		for received := range sig {
			_ = syscall.Kill(tests.Pid, received.(syscall.Signal))
		}
	}()
	code = 1
	for last := false; ; {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil { // no child is left
			return code, nil
		}
		if pid != tests.Pid {
			tell(dir, pid, status)
		} else {
			last = true
			if status.Exited() {
				code = status.ExitStatus()
			}
		}
		if last { // their orphaned children become ours, and are killed in the next rounds
			killChildren()
		}
	}
}

// tell writes the exit status of a daemon to a file, for the test process to read with ended.
func tell(dir string, pid int, ws syscall.WaitStatus) {
	name := endedName(dir, pid)
	if os.WriteFile(name+".new", fmt.Append(nil, uint32(ws)), 0o600) == nil {
		_ = os.Rename(name+".new", name)
	}
}

// ended returns how a daemon of the tests ended; nil if it has not ended. Each status is returned
// once.
func ended(pid int) *syscall.WaitStatus {
	name := endedName(os.Getenv(dirEnv), pid)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	_ = os.Remove(name)
	n, _ := strconv.ParseUint(string(b), 10, 32)
	ws := syscall.WaitStatus(n)
	return &ws
}

func endedName(dir string, pid int) string { return filepath.Join(dir, fmt.Sprintf("ended.%d", pid)) }

// killChildren kills the children of this process.
func killChildren() {
	ours := fmt.Sprintf("\nPPid:\t%d\n", os.Getpid())
	all, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, name := range all {
		if b, err := os.ReadFile(name); err == nil && strings.Contains(string(b), ours) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// build builds or links the daxfsd binary and runs the tests.
func build(m *testing.M) (code int, err error) {
	dir := os.Getenv(dirEnv)
	Daxfsd = filepath.Join(dir, "daxfsd")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if built := os.Getenv(BinaryEnv); built != "" {
		if err := os.Symlink(built, Daxfsd); err != nil {
			return 1, err
		}
	} else {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", Daxfsd, "github.com/daxfsd/daxfsd/cmd/daxfsd")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("building daxfsd: %w\n%s", err, out)
		}
	}
	var leaving sync.Mutex
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-sig
		leaving.Lock() // the tests may fail now, but must not end this process first
		fmt.Fprintf(os.Stderr, "%v: taking the mounts away\n", s)
		for _, mt := range liveMounts() {
			mt.destroy()
		}
		// If the supervising process is dead, this process deletes the remaining files, but not
		// what may still be mounted.
		files, _ := filepath.Glob(filepath.Join(dir, "ended.*"))
		for _, f := range append(files, Daxfsd, dir) {
			_ = os.Remove(f)
		}
		os.Exit(1)
	}()
	code = m.Run()
	leaving.Lock()
	return code, nil
}
