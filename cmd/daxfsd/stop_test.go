package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/pmem"
)

// scriptHead is the head of scripts of inNamespace: nothing that they mount is visible outside.
const scriptHead = `set -eu
mount --make-rprivate /
region=$1 mp=${2-}
pid() { "$0" info --json "$1" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }
mounted() { grep -q " $1 .* fuse.daxfsd " /proc/self/mountinfo; }
ended() { for i in $(seq 500); do kill -0 $1 2>/dev/null || return 0; sleep 0.01; done; echo "process $1 is still there" >&2; return 1; }
fail() { echo "$*" >&2; cat /proc/self/mountinfo >&2; exit 1; }
`

// scripted runs a script in a mount namespace of its own, and fails the test unless every line
// succeeds.
func scripted(t *testing.T, script string, args ...string) {
	t.Helper()
	if r := inNamespace(t, scriptHead+script, args...); r.code != 0 {
		t.Fatalf("exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// TestSIGTERMByMountID checks that SIGTERM unmounts what the daemon mounted, and nothing else.
func TestSIGTERMByMountID(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	for name, script := range map[string]string{
		"covered": `
"$0" mount "$region" "$mp"; p=$(pid "$mp")
mount -t tmpfs none "$mp"; echo theirs >"$mp/file"
kill -TERM $p; sleep 0.5
[ "$(cat "$mp/file")" = theirs ] || fail "the tmpfs on top was taken away"
kill -0 $p || fail "the daemon left a mount behind"
umount "$mp"; ended $p
! mounted "$mp" || fail "still mounted"`,
		"sub-mount": `
"$0" mount "$region" "$mp"; p=$(pid "$mp"); mkdir "$mp/sub"
mount -t tmpfs none "$mp/sub"; echo theirs >"$mp/sub/file"
kill -TERM $p; sleep 0.5
[ "$(cat "$mp/sub/file")" = theirs ] || fail "the tmpfs below was taken away"
umount "$mp/sub"; ended $p
! mounted "$mp" || fail "still mounted"`,
		"covered by another one at the same path": `
"$0" mount "$region" "$mp"; p=$(pid "$mp"); d=$(dirname "$mp")
mount -t tmpfs over "$d"; mkdir "$mp"
mount -t tmpfs theirs "$mp"; echo theirs >"$mp/file"
kill -TERM $p; sleep 0.5
[ "$(cat "$mp/file")" = theirs ] || fail "a tmpfs at the same path was taken away"
kill -0 $p || fail "the daemon left a mount behind"
umount "$mp"; umount "$d"; ended $p
! mounted "$mp" || fail "still mounted"`,
		"covered by an empty directory": `
"$0" mount "$region" "$mp"; p=$(pid "$mp"); d=$(dirname "$mp")
mount -t tmpfs over "$d"
kill -TERM $p; sleep 0.5
kill -0 $p || fail "the daemon left a mount behind"
umount "$d"; ended $p
! mounted "$mp" || fail "still mounted"`,
		"covered, second signal": `
"$0" mount "$region" "$mp"; p=$(pid "$mp")
mount -t tmpfs none "$mp"
kill -TERM $p; sleep 0.3; kill -TERM $p; ended $p
umount "$mp"; umount -l "$mp"`,
		"moved": `
mkdir "$mp-moved"
"$0" mount "$region" "$mp"; p=$(pid "$mp")
mount --move "$mp" "$mp-moved"
kill -TERM $p; ended $p
! mounted "$mp-moved" || fail "still mounted"
rmdir "$mp-moved"`,
		"moved, and another one where it was": `
mkdir "$mp-moved"
"$0" mkfs --size 16MiB "$region-2" >/dev/null
"$0" mount "$region" "$mp"; p=$(pid "$mp")
mount --move "$mp" "$mp-moved"
"$0" mount "$region-2" "$mp"
kill -TERM $p; ended $p
! mounted "$mp-moved" || fail "still mounted"
mounted "$mp" || fail "unmounted another daxfsd"
"$0" umount "$mp"; rmdir "$mp-moved"`,
		"busy and moved": `
mkdir "$mp-moved"
"$0" mount "$region" "$mp"; p=$(pid "$mp"); echo x >"$mp/f"
exec 5<"$mp/f"; mount --move "$mp" "$mp-moved"
kill -TERM $p; for i in $(seq 300); do mounted "$mp-moved" || break; sleep 0.01; done
! mounted "$mp-moved" || fail "still in the tree"
[ "$(cat <&5)" = x ]; exec 5<&-; ended $p; rmdir "$mp-moved"`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			region, mp := newRegion(t), mountPoint(t)
			scripted(t, script, region, mp)
			if strings.Contains(name, "second signal") {
				return
			}
			has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "clean"})
		})
	}
}

// TestNoInheritedDescriptors checks that a daemon holds none of the descriptors of the command that
// started it, whether that command waits for it or not.
func TestNoInheritedDescriptors(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	for _, background := range []bool{true, false} {
		region, mp := newRegion(t), mountPoint(t)
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		args := []string{"mount", region, mp}
		if !background {
			args = append(args, "--foreground")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := command(ctx, args...)
		cmd.ExtraFiles = []*os.File{writer, writer, writer, writer}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		if background {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		_ = reader.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := reader.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("background %v: the caller's pipe is still open: %v", background, err)
		}
		waitMounted(t, mp)
		must(t, "umount", mp)
		if !background {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func waitMounted(t *testing.T, mp string) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, err := askDaemon(mp, time.Second); err == nil {
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatal("not mounted after 20 s")
		}
	}
}

// TestLogReaderLeaves checks that a daemon goes on when the reader of its log closes or stops
// reading, and then still unmounts.
func TestLogReaderLeaves(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	for _, c := range []struct{ background, leaves bool }{{true, true}, {false, true}, {true, false}} {
		background := c.background
		region, mp := newRegion(t), mountPoint(t)
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"mount", "--log", "-", "-o", "trace", region, mp}
		if !background {
			args = append(args, "--foreground")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := command(ctx, args...)
		cmd.Stderr = writer
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writer.Close()
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		for lines := bufio.NewScanner(reader); lines.Scan() && !strings.Contains(lines.Text(), `"msg":"mounted"`); {
		}
		defer reader.Close()
		if c.leaves {
			reader.Close()
		}
		waitMounted(t, mp)
		pid := daemonPID(t, mp)
		if _, err := unix.FcntlInt(reader.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil && !c.leaves {
			t.Fatal(err)
		}
		for i := range 400 { // each adds a line to the log
			writeFile(t, filepath.Join(mp, strconv.Itoa(i)), nil)
		}
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("background %v: the daemon died with the reader of its log", background)
		}
		must(t, "umount", mp)
		if err := <-done; err != nil {
			t.Errorf("background %v: %v", background, err)
		}
		has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "clean"})
	}
}

// TestCrashReport checks that a crash that Go's runtime reports is in the log. Without a log it is
// in a file of its own, which a daemon that ends in order does not leave.
func TestCrashReport(t *testing.T) {
	t.Parallel()
	region, mp := newRegion(t), mountPoint(t)
	needFUSE(t)
	log := filepath.Join(t.TempDir(), "log")
	must(t, "mount", "--log", log, region, mp)
	pid := daemonPID(t, mp)
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
	if b := readFile(t, log); !bytes.Contains(b, []byte("SIGQUIT")) || !bytes.Contains(b, []byte("serveMount(")) {
		t.Errorf("no stack in the log: %s", b)
	}
	scripted(t, `
mount -t tmpfs none /run
"$0" mount "$region" "$mp"; p=$(pid "$mp")
kill -QUIT $p; ended $p; "$0" umount "$mp" 2>/dev/null
grep -q "serveMount(" /run/daxfsd/crash-*.log || fail "no stack"
rm /run/daxfsd/*
"$0" mount "$region" "$mp"; p=$(pid "$mp")
kill -KILL $p; ended $p; "$0" umount "$mp" 2>/dev/null
"$0" mount "$region" "$mp"; p=$(pid "$mp")
[ $(ls /run/daxfsd | wc -l) = 1 ] || fail "the file of a killed daemon stays: $(ls -l /run/daxfsd)"
"$0" umount "$mp"; ended $p
[ $(ls /run/daxfsd | wc -l) = 0 ] || fail "an orderly end leaves a file: $(ls -l /run/daxfsd)"`, region, mp)
}

// TestPatience checks that commands wait for a region while its holder is about to exit, as after
// umount(2), and not otherwise.
func TestPatience(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	for _, args := range [][]string{{"mount", region, mp}, {"fsck", "-n", region}} {
		must(t, "mount", region, mp)
		pid := daemonPID(t, mp)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // it notices nothing until it continues
			t.Fatal(err)
		}
		err := unix.Unmount(mp, 0)
		time.AfterFunc(300*time.Millisecond, func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		if err != nil {
			t.Fatal(err)
		}
		must(t, args...)
		if args[0] == "mount" {
			must(t, "umount", mp)
		}
	}

	// This process holds the lock, and is marked as ending.
	name := readFile(t, "/proc/self/comm")
	defer os.WriteFile("/proc/self/comm", name, 0)
	for _, leaves := range []bool{true, false} {
		file, err := os.Open(region)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		want := fsckOperational
		if _ = os.WriteFile("/proc/self/comm", name, 0); leaves {
			markEnding()
			time.AfterFunc(leavingLimit+time.Second, func() { file.Close() })
			want = 0
		}
		if got := daxfsd(t, "fsck", "-n", region); got.code != want {
			t.Errorf("the holder is ending: %v: exit code %d, want %d: %s%s", leaves, got.code, want, got.stdout, got.stderr)
		}
		file.Close()
	}
}

// TestPatienceLast checks that a holder that exits between the attempt to open its region and the
// search for the holder is not reported as using the region.
func TestPatienceLast(t *testing.T) {
	t.Parallel()
	region, tries := newRegion(t), 0
	_, err := retryBusy(region, func() (int, error) {
		if tries++; tries > 1 {
			return 0, nil
		}
		time.Sleep(leavingLimit + 10*time.Millisecond) // now no process holds it
		return 0, pmem.ErrBusy
	})
	if err != nil {
		t.Errorf("no process holds it, and after %d attempts: %v", tries, err)
	}
}

// TestEmptyArgument checks that an empty argument is refused, and does not mean the current
// directory.
func TestEmptyArgument(t *testing.T) {
	region := newRegion(t)
	for _, a := range [][]string{
		{"mount", region, ""}, {"mount", "", t.TempDir()}, {"umount", ""}, {"info", ""}, {"top", ""}, {"mkfs", ""}, {"filefrag", ""},
	} {
		r := daxfsd(t, a...)
		refused(t, r, 2, "empty")
	}
	refused(t, daxfsd(t, "fsck", ""), fsckUsage, "empty")
	if wd, err := os.Getwd(); err != nil {
		t.Error(err)
	} else if m, _ := mountAt(wd); m != nil && m.FSType == fsType {
		t.Error(fmt.Errorf("mounted on the current directory, %s", wd))
	}
}
