package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeasesOfStoppedDaemon checks that the kernel's knowledge is shown if the daemon does not
// answer, and if it is gone.
func TestLeasesOfStoppedDaemon(t *testing.T) {
	region, mp := mounted(t)
	mapFile(t, mp+"/f", 1<<20, true)
	pid := daemonPID(t, mp)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	check := func(arg, note string) {
		t.Helper()
		l := decode(t, must(t, "leases", "--json", arg))
		has(t, l, map[string]any{"region": region, "leased_bytes": float64(1 << 20), "locks": 1.0})
		if p := l["processes"].([]any); len(p) != 1 || p[0].(map[string]any)["pid"] != float64(os.Getpid()) {
			t.Errorf("%s: processes: %v", arg, p)
		}
		if text, _ := l["note"].(string); !strings.Contains(text, note) || (note == "") != (text == "") {
			t.Errorf("%s: note %q", arg, text)
		}
	}
	check(mp, "stopped")
	check(region, "stopped")
	if err := errors.Join(syscall.Kill(pid, syscall.SIGKILL), syscall.Kill(pid, syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon is gone", func() bool { return errors.Is(unix.Access(mp+"/f", 0), unix.ENOTCONN) })
	check(mp, "is gone")
	check(region, "")
	if r := daxfsd(t, "umount", mp); r.code != 0 || !strings.Contains(r.stderr, "still map 1 MiB") || !strings.Contains(r.stderr, self()) {
		t.Errorf("umount: exit code %d: %q", r.code, r.stderr)
	}
}

// TestRemountWhileMapped checks that a mount does not become read-only while a program maps its
// files to write, and that a remount says so of what a former mount has granted.
func TestRemountWhileMapped(t *testing.T) {
	region, mp := mounted(t)
	mapFile(t, mp+"/f", 1<<20, true)
	refused(t, daxfsd(t, "mount", "-o", "remount,ro", region, mp), 1, "busy")
	must(t, "umount", "--force", mp)
	must(t, "mount", region, mp)
	r := daxfsd(t, "mount", "-o", "remount,ro", region, mp)
	if r.code != 0 || !strings.Contains(r.stderr, "read-only now, but programs map 1 MiB to write") || !strings.Contains(r.stderr, self()) {
		t.Errorf("exit code %d: %q", r.code, r.stderr)
	}
	must(t, "umount", mp)
}
