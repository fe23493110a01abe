package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestHungDaemon runs every command on a mount whose daemon is stopped. Each must end within a few
// seconds and report the cause. Over io_uring a process that waits for such a daemon cannot be
// killed, so no command may send a request itself.
func TestHungDaemon(t *testing.T) {
	for _, via := range []string{"dev", "uring"} {
		t.Run(via, func(t *testing.T) {
			if via == "uring" {
				harness.Uring(t)
			}
			t.Parallel() // the test mostly waits
			mount := harness.NewWith(t, "transport="+via, 64<<20, 2*time.Minute)
			if err := os.WriteFile(mount.Path("f"), []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			inner := mount.Path("inner")
			harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "mkfs", "--sparse", "--size", "16MiB", inner)
			other := filepath.Join(mount.Dir, "other")
			if err := os.Mkdir(other, 0o700); err != nil {
				t.Fatal(err)
			}
			pid := strconv.Itoa(mount.PID())
			user, err := unix.Open(mount.Path("f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			stop(t, mount)
			for _, row := range []struct {
				args []string
				code string // exit status; "": success
				word string
			}{
				{[]string{"info", mount.Mountpoint}, "", "silent"},
				{[]string{"info", mount.Region}, "", "silent"},
				{[]string{"top", "--once", mount.Mountpoint}, "exit status 1", "stopped"},
				{[]string{"fsck", "-n", mount.Region}, "exit status 8", "stopped"},
				{[]string{"mkfs", "--force", mount.Region}, "exit status 1", "stopped"},
				{[]string{"mount", mount.Region, mount.Mountpoint}, "exit status 1", "stopped"},
				{[]string{"mount", mount.Region, other}, "exit status 1", "stopped"},
				{[]string{"mount", "-o", "remount,ro", mount.Region, mount.Mountpoint}, "exit status 1", "stopped"},
				{[]string{"filefrag", mount.Path("f")}, "exit status 1", "stopped"},
				{[]string{"umount", mount.Mountpoint}, "exit status 1", "stopped"},
			} {
				quick(t, row.code, []string{pid, row.word}, row.args...)
			}
			// A region on this mount cannot be reached either.
			quick(t, "exit status 1", nil, "info", inner)
			quick(t, "exit status 8", nil, "fsck", "-n", inner)
			quick(t, "exit status 1", nil, "mount", inner, other)
			// The commands cannot see that the daemon is stopped, so they give it time to answer.
			moved := mount.Region + ".moved"
			if err := os.Rename(mount.Region, moved); err != nil {
				t.Fatal(err)
			}
			quick(t, "exit status 1", []string{"does not answer"}, "umount", mount.Mountpoint)
			quick(t, "exit status 1", []string{"does not answer"}, "info", mount.Mountpoint)
			quick(t, "exit status 1", []string{"does not answer"}, "filefrag", mount.Path("f"))
			if err := os.Rename(moved, mount.Region); err != nil {
				t.Fatal(err)
			}
			if !inTable(t, mount.Mountpoint) {
				t.Fatal("something unmounted it")
			}
			quick(t, "exit status 1", []string{"aborted", "kill -9 " + pid}, "umount", "--force", mount.Mountpoint)
			if inTable(t, mount.Mountpoint) {
				t.Error("umount --force left the mount")
			}
			quick(t, "", []string{"in use", pid}, "info", mount.Region)
			mount.Kill9()
			unix.Close(user) // only now: the last user of a mount waits for the daemon
			mount.Up()
			if content, err := os.ReadFile(mount.Path("f")); err != nil || string(content) != "content" {
				t.Errorf("after all that: %q, %v", content, err)
			}

			// Closing a directory while the daemon is stopped leaves a request that its ring has
			// taken and that is never answered. The process that drops the last reference to the
			// mount then waits until the daemon ends.
			for _, how := range []string{"--lazy", "--force"} {
				dir, err := unix.Open(mount.Mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				stop(t, mount)
				unix.Close(dir)
				code := ""
				if how == "--force" {
					code = "exit status 1" // the daemon still uses the region
				}
				quick(t, code, nil, "umount", how, mount.Mountpoint)
				if inTable(t, mount.Mountpoint) {
					t.Errorf("umount %s left the mount", how)
				}
				mount.Kill9()
				mount.Fsck()
				mount.Up()
			}
		})
	}
}

// stop stops the daemon, at most until the end of the test.
func stop(t *testing.T, m *harness.Mount) {
	t.Helper()
	pid := m.PID()
	if err := harness.Signal(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = harness.Signal(pid, syscall.SIGCONT) })
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(b), ") T ") {
			return
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the daemon is not stopped 10 s after SIGSTOP")
		}
	}
}

// quick runs a command that must end within 10 s with the given exit status, and whose output must
// contain all words.
func quick(t *testing.T, code string, words []string, args ...string) {
	t.Helper()
	start := time.Now()
	out, err := harness.Command(20*time.Second, "", nil, harness.Daxfsd, args...)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("daxfsd %s took %v", strings.Join(args, " "), took)
	}
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != code {
		t.Errorf("daxfsd %s: %q, want %q: %s", strings.Join(args, " "), got, code, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("daxfsd %s: %q is not in %q", strings.Join(args, " "), w, out)
		}
	}
}

// inTable reports whether a filesystem is mounted at mp.
func inTable(t *testing.T, mp string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+mp+" ")
}
