package harness

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Need fails the test if a program is missing.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run `make deps-test`, which installs it", p)
		}
	}
}

// Command runs a program in dir with env added to the environment. It kills the program and its
// children after limit, and returns the program's output.
func Command(limit time.Duration, dir string, env []string, name string, args ...string) (string, error) {
	return Filter(limit, dir, env, "", name, args...)
}

// Filter is Command with input as the standard input.
func Filter(limit time.Duration, dir string, env []string, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := prepare(ctx, dir, env, name, args...)
	var out bytes.Buffer
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// prepare returns a command that is killed with its whole process group when ctx ends.
func prepare(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Run is Command, and fails the test if the program fails.
func Run(t *testing.T, limit time.Duration, dir string, env []string, name string, args ...string) string {
	t.Helper()
	return Feed(t, limit, dir, env, "", name, args...)
}

// Feed is Filter, and fails the test if the program fails.
func Feed(t *testing.T, limit time.Duration, dir string, env []string, input, name string, args ...string) string {
	t.Helper()
	start := time.Now()
	out, err := Filter(limit, dir, env, input, name, args...)
	if err != nil {
		if len(out) > 8<<10 {
			out = out[:4<<10] + "\n[...]\n" + out[len(out)-4<<10:]
		}
		t.Fatalf("%s %s: %v after %v\n%s", name, strings.Join(args, " "), err, time.Since(start).Round(time.Millisecond), out)
	}
	return out
}

// RunTests runs the test binary of another package, whose TestMain calls Main, and requires that it
// passes.
func RunTests(t *testing.T, limit time.Duration, binary string, args ...string) string {
	t.Helper()
	return Run(t, limit, "", []string{dirEnv + "="}, binary, args...)
}

// Child returns a command that runs one of Main's children.
func Child(ctx context.Context, name string, args ...string) *exec.Cmd {
	return prepare(ctx, "", []string{childEnv + "=" + name}, os.Args[0], args...)
}

// RunChild runs one of Main's children and requires that it succeeds.
func RunChild(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	return Run(t, limit, "", []string{childEnv + "=" + name}, os.Args[0], args...)
}
