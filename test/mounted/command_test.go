package mounted

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

// need fails the test if a program is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run `make deps-test`, which installs it", p)
		}
	}
}

// command runs a program in dir with env added, ends it and its children after
// limit, and returns what it printed.
func command(limit time.Duration, dir string, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return finish(prepare(ctx, dir, env, name, args...), "")
}

// prepare makes a command that is ended with its whole process group.
func prepare(ctx context.Context, dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func finish(cmd *exec.Cmd, input string) (string, error) {
	var out bytes.Buffer
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// run is command for what must succeed.
func run(t *testing.T, limit time.Duration, dir string, env []string, name string, args ...string) string {
	t.Helper()
	return feed(t, limit, dir, env, "", name, args...)
}

// feed is run with a standard input.
func feed(t *testing.T, limit time.Duration, dir string, env []string, input, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	start := time.Now()
	out, err := finish(prepare(ctx, dir, env, name, args...), input)
	if err != nil {
		if len(out) > 8<<10 {
			out = out[:4<<10] + "\n[...]\n" + out[len(out)-4<<10:]
		}
		t.Fatalf("%s %s: %v after %v\n%s", name, strings.Join(args, " "), err, time.Since(start).Round(time.Millisecond), out)
	}
	return out
}

// child makes the command of one of children.
func child(ctx context.Context, name string, args ...string) *exec.Cmd {
	return prepare(ctx, "", []string{childEnv + "=" + name}, os.Args[0], args...)
}

// runChild runs one of children and requires that it succeeds.
func runChild(t *testing.T, limit time.Duration, name string, args ...string) string {
	t.Helper()
	return run(t, limit, "", []string{childEnv + "=" + name}, os.Args[0], args...)
}
