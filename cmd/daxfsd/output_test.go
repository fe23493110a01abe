package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFullOutput checks that a command that could not write its output fails with a message.
func TestFullOutput(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp := mounted(t)
	other, f := newRegion(t), filepath.Join(mp, "f")
	writeFile(t, f, []byte("data"))
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"--help"}, 1}, {[]string{"help"}, 1}, {[]string{"help", "mkfs"}, 1}, {[]string{"fsck", "--help"}, fsckOperational},
		{[]string{"--version"}, 1}, {[]string{"version"}, 1}, {[]string{"completion", "bash"}, 1},
		{[]string{"mkfs", "--force", other}, 1}, {[]string{"mkfs", "--force", "--json", other}, 1},
		{[]string{"info", other}, 1}, {[]string{"info", "--json", other}, 1}, {[]string{"info", region}, 1}, {[]string{"info", "--json", mp}, 1},
		{[]string{"fsck", "-n", other}, fsckOperational}, {[]string{"fsck", "-n", "--json", other}, fsckOperational},
		{[]string{"align", f}, 1}, {[]string{"leases", mp}, 1}, {[]string{"leases", "--json", region}, 1}, {[]string{"filefrag", f}, 1}, {[]string{"filefrag", "--json", f}, 1},
		{[]string{"top", "--once", "--interval", "50ms", mp}, 1}, {[]string{"top", "--json", "--interval", "50ms", mp}, 1},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(ctx, c.args...)
		var said strings.Builder
		cmd.Stdout, cmd.Stderr = full, &said
		_ = cmd.Run()
		full.Close()
		cancel()
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			refused(t, result{cmd.ProcessState.ExitCode(), "", said.String()}, c.code, "no space left")
		})
	}
	// Without standard output, a command that prints nothing succeeds.
	if out, err := runShell(t, `exec "$0" umount "$1" >&-`, mp); err != nil {
		t.Errorf("umount without standard output: %v: %s", err, out)
	}
}

// runShell runs a line of shell with this program as $0.
func runShell(t *testing.T, line string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := command(ctx, args...)
	cmd.Args = append([]string{"sh", "-c", line, cmd.Path}, args...)
	cmd.Path = "/bin/sh"
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestHelpUnknown checks that help about an unknown command is an error.
func TestHelpUnknown(t *testing.T) {
	refused(t, daxfsd(t, "help", "foo"), 2, "foo", "--help")
	refused(t, daxfsd(t, "help", "mkfs", "foo"), 2, "mkfs foo")
	for _, args := range [][]string{{"help"}, {"help", "mkfs"}, {"help", "help"}, {"help", "completion", "bash"}} {
		if out := must(t, args...); !strings.Contains(out, "Usage:") {
			t.Errorf("%v prints %q", args, out)
		}
	}
	if must(t, "help", "fsck") != must(t, "fsck", "--help") {
		t.Error("help fsck and fsck --help differ")
	}
}

// TestFilefragMissing checks that the files that exist are listed, and that the exit code reports
// the missing one.
func TestFilefragMissing(t *testing.T) {
	needFUSE(t)
	_, mp := mounted(t)
	a, missing, b := filepath.Join(mp, "a"), filepath.Join(mp, "missing"), filepath.Join(mp, "b")
	writeFile(t, a, []byte("data"))
	writeFile(t, b, []byte("data"))
	r := daxfsd(t, "filefrag", a, missing, b, "/proc/version")
	if r.code != 1 || !strings.Contains(r.stdout, a+": 1 extent") || !strings.Contains(r.stdout, b+": 1 extent") {
		t.Errorf("exit code %d, it printed %q", r.code, r.stdout)
	}
	if l := strings.Split(strings.TrimSpace(r.stderr), "\n"); len(l) != 2 || !strings.Contains(l[0], missing) || !strings.Contains(l[1], "/proc/version") {
		t.Errorf("it said %q", r.stderr)
	}
	r = daxfsd(t, "filefrag", "--json", a, missing, b)
	if r.code != 1 || strings.Count(r.stdout, `"file"`) != 2 || !strings.Contains(r.stderr, missing) {
		t.Errorf("exit code %d, it printed %q and %q", r.code, r.stdout, r.stderr)
	}
	if r := daxfsd(t, "filefrag", "--json", missing); r.code != 1 || strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("exit code %d, it printed %q", r.code, r.stdout)
	}
}

// TestMountQuiet checks that a mount without problems prints nothing. Why it does not use io_uring
// is in info.
func TestMountQuiet(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	if r := daxfsd(t, "mount", region, mp); r.code != 0 || r.stdout+r.stderr != "" {
		t.Errorf("exit code %d, it said %q", r.code, r.stdout+r.stderr)
	}
	m := decode(t, must(t, "info", "--json", mp))["mount"].(map[string]any)
	dev := slices.Contains(m["options"].([]any), any("transport=dev"))
	if _, why := m["why_not_uring"]; why != dev {
		t.Errorf("options %v, reason not to use io_uring: %v", m["options"], m["why_not_uring"])
	}
	if out := must(t, "info", mp); strings.Contains(out, "no io_uring") != dev {
		t.Errorf("info prints %q", out)
	}
}
