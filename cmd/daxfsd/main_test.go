package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// The test binary is the command as well: with beCommand set in the environment it runs as daxfsd,
// so that tests execute what users execute, including the daemon.
const beCommand = "DAXFSD_TEST_BE_COMMAND"

// commandEnv returns the environment of a command under test. Under the race detector a program
// would otherwise linger a second after its end.
func commandEnv() []string {
	return append(os.Environ(), beCommand+"=1", "GORACE=atexit_sleep_ms=0 halt_on_error=1")
}

func TestMain(m *testing.M) {
	if os.Getenv(leaveMounts) != "" {
		fmt.Fprintln(os.Stderr, leaveAndExec(os.Args[1:]))
		os.Exit(1)
	}
	if os.Getenv(beCommand) != "" || os.Args[0] == probeName {
		main()
		os.Exit(0)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0 halt_on_error=1") // for the probes that tests start themselves
	// Parallel tests mostly wait. Tests that count requests or measure time do not run in parallel,
	// because another test may ask any daemon in the mount table.
	if flag.Parse(); !given("test.parallel") {
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

// given reports whether the command line sets a flag.
func given(name string) (given bool) {
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// leaveMounts in the environment makes the test binary, in a mount namespace of its own, unmount
// the current mounts of other tests and then execute the program that its arguments name.
const leaveMounts = "DAXFSD_TEST_LEAVE_MOUNTS"

// leaveAndExec unmounts and executes. Without the unmounts the daemons of other tests would live
// on, because a daemon lives as long as any namespace has its mount.
func leaveAndExec(args []string) error {
	os.Unsetenv(leaveMounts)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	all, err := mountinfo.GetMounts(mountinfo.FSTypeFilter(fsType))
	if err != nil {
		return err
	}
	for _, m := range all {
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("leaving %s: %w", m.Mountpoint, err)
		}
	}
	return unix.Exec(args[0], args, os.Environ())
}

// result is the exit code and output of a command.
type result struct {
	code           int
	stdout, stderr string
}

// command returns `daxfsd args...`, not started.
func command(ctx context.Context, args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = commandEnv()
	cmd.WaitDelay = 10 * time.Second // until its exec, a process forked by another test has these pipes open
	return cmd
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func daxfsd(t *testing.T, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return finish(t, command(ctx, args...))
}

// must runs a command that has to succeed, and returns its standard output.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := daxfsd(t, args...)
	if r.code != 0 {
		t.Fatalf("daxfsd %s: exit code %d: %s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// refused checks that a command failed with the exit code and one sentence that contains all the
// words.
func refused(t *testing.T, r result, code int, words ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d; it said %q", r.code, code, r.stdout+r.stderr)
	}
	if strings.Count(r.stderr, "\n") != 1 || !strings.HasPrefix(r.stderr, "daxfsd: ") {
		t.Errorf("want one line that begins with the command's name, got %q", r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("%q is not in %q", w, r.stderr)
		}
	}
}

// digest returns a checksum of a region's content, to prove that nothing changed it.
func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return [32]byte{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// newRegion makes a formatted region of 32 MiB.
func newRegion(t *testing.T) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "region.dax")
	must(t, "mkfs", "--size", "32MiB", "--sparse", p)
	return p
}

// needFUSE skips a test if nothing can be mounted.
func needFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	}
}

// mountPoint makes a directory to mount on. After the test it removes any mount and daemon.
func mountPoint(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mp := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 4 {
			m, _ := mountAt(mp)
			if m == nil {
				return
			}
			if i, err := askDaemon(mp, 2*time.Second); err == nil && t.Failed() {
				_ = syscall.Kill(i.PID, syscall.SIGKILL)
			}
			_ = fusefs.Unmount(mp, fusefs.Lazy)
		}
	})
	return mp
}

func daemonPID(t *testing.T, mp string) int {
	t.Helper()
	i, err := askDaemon(mp, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return i.PID
}

func TestHelpTeachesByExample(t *testing.T) {
	for _, c := range []string{"", "mkfs", "mount", "umount", "fsck", "info", "leases", "top"} {
		args := []string{"--help"}
		if c != "" {
			args = []string{c, "--help"}
		}
		out := must(t, args...)
		if !strings.Contains(out, "Examples:\n  daxfsd ") || !strings.Contains(out, "Usage:\n  daxfsd") {
			t.Errorf("daxfsd %v has no example:\n%s", args, out)
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		word string
	}{
		{[]string{"frobnicate"}, 2, "frobnicate"},
		{[]string{"mkfs"}, 2, "REGION"},
		{[]string{"mkfs", "--frob", "x"}, 2, "--frob"},
		{[]string{"mkfs", "--size", "1GB", "x"}, 2, "GiB"},
		{[]string{"mount", "x"}, 2, "MOUNTPOINT"},
		{[]string{"umount"}, 2, "MOUNTPOINT"},
		{[]string{"info"}, 2, "MOUNTPOINT"},
		{[]string{"leases"}, 2, "MOUNTPOINT"},
		{[]string{"top"}, 2, "MOUNTPOINT"},
		{[]string{"top", "--interval", "1ms", "x"}, 2, "50ms"},
		{[]string{"top", "--count", "-1", "x"}, 2, "--count"},
		{[]string{"top", "--once", "--json", "x"}, 2, "--json"},
		{[]string{"fsck"}, 16, "REGION"},
		{[]string{"fsck", "-n", "-y", "x"}, 16, "exclude"},
		{[]string{"fsck", "--frob", "x"}, 16, "--frob"},
	} {
		refused(t, daxfsd(t, c.args...), c.code, c.word)
	}
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return m
}

// has checks fields of a decoded JSON object.
func has(t *testing.T, m map[string]any, want map[string]any) {
	t.Helper()
	for k, v := range want {
		if m[k] != v {
			t.Errorf("%s is %v, want %v", k, m[k], v)
		}
	}
}

func keys(m map[string]any) []string {
	var k []string
	for s := range m {
		k = append(k, s)
	}
	slices.Sort(k)
	return k
}
