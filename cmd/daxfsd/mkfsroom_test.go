package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// memoryFilesystem mounts a new tmpfs with the given options.
func memoryFilesystem(t *testing.T, options string) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// used returns the number of bytes allocated in a filesystem.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// TestMkfsAsksForRoom checks that mkfs refuses before it allocates anything if there is not enough
// room.
func TestMkfsAsksForRoom(t *testing.T) {
	large, small := memoryFilesystem(t, "size=4t"), memoryFilesystem(t, "size=64m")
	for _, c := range []struct {
		path string
		args []string
		says []string
	}{
		{filepath.Join(large, "r"), []string{"--size", "2TiB"}, []string{"2 TiB", "memory", "free", "--sparse"}},
		{filepath.Join(small, "r"), []string{"--size", "128MiB"}, []string{"128 MiB", "its filesystem has 6", "free", "--sparse"}},
		{filepath.Join(t.TempDir(), "r"), []string{"--size", "32TiB"}, []string{"32 TiB", "its filesystem", "free"}},
	} {
		before := used(t, filepath.Dir(c.path))
		began := time.Now()
		r := daxfsd(t, append(append([]string{"mkfs"}, c.args...), c.path)...)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s: refusing took %v", c.path, took)
		}
		refused(t, r, 1, append(c.says, c.path)...)
		if _, err := os.Stat(c.path); err == nil {
			t.Errorf("%s was left behind", c.path)
		}
		if now := used(t, filepath.Dir(c.path)); strings.HasPrefix(c.path, large) && now != before {
			t.Errorf("%d bytes are allocated that were not before", now-before)
		}
	}

	// An existing file keeps its size, its content and its storage.
	p := filepath.Join(small, "old")
	must(t, "mkfs", "--sparse", "--size", "32MiB", p)
	content, before := digest(t, p), used(t, small)
	refused(t, daxfsd(t, "mkfs", "--force", "--size", "128MiB", p), 1, p, "127.", "free")
	if digest(t, p) != content || used(t, small) != before {
		t.Error("the file that was to grow was changed")
	}
	// With --sparse no room is needed.
	must(t, "mkfs", "--sparse", "--size", "1GiB", filepath.Join(small, "sparse"))
	must(t, "mkfs", "--sparse", "--size", "2TiB", filepath.Join(large, "sparse"))
}

// TestMkfsFileLimit checks that mkfs beyond the file size limit fails with a message. By default
// the kernel kills a process that exceeds that limit.
func TestMkfsFileLimit(t *testing.T) {
	p := filepath.Join(t.TempDir(), "r")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -f 1000; exec "$0" "$@"`, exe, "mkfs", "--size", "64MiB", p)
	cmd.Env = commandEnv()
	refused(t, finish(t, cmd), 1, p, "67108864", "ulimit -f")
	if _, err := os.Stat(p); err == nil {
		t.Error("a file was left behind")
	}
}

// TestMkfsKilledNew checks that a mkfs of a new file that is killed in any way leaves nothing or a
// complete filesystem. After SIGTERM it also says so.
func TestMkfsKilledNew(t *testing.T) {
	t.Parallel()
	dir := memoryFilesystem(t, "size=600m")
	path := filepath.Join(dir, "region.dax")
	args := []string{"mkfs", "--size", "512MiB", path}
	began := time.Now()
	must(t, args...)
	usual := time.Since(began)
	rounds := 40
	if testing.Short() {
		rounds = 12
	}
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	left := map[string]int{}
	for i := 0; i < rounds && !t.Failed(); i++ {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for limit := time.Now().Add(10 * time.Second); used(t, dir) > 0; { // the kernel frees the space a little later
			if time.Now().After(limit) {
				t.Fatalf("%d bytes are still allocated", used(t, dir))
			}
			time.Sleep(time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := command(ctx, args...)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(usual))))
		sig := syscall.SIGKILL
		if i%2 == 0 {
			sig = syscall.SIGTERM
		}
		cmd.Process.Signal(sig) // it may have ended already
		cmd.Wait()
		cancel()
		_, err := os.Stat(path)
		what := "nothing"
		if err == nil {
			what = "a filesystem"
			must(t, "fsck", "-n", path)
		} else if sig == syscall.SIGTERM && cmd.ProcessState.Exited() && !strings.Contains(said.String(), "cancelled by a signal") {
			t.Errorf("it said %q", said.String())
		}
		left[fmt.Sprint(sig, ": ", what)]++
	}
	t.Logf("left behind: %v, seed %d", left, seed)
	if left["killed: nothing"] == 0 {
		t.Error("no kill came before the end: the test shows nothing")
	}
}

// TestHolesStay checks that examining a sparse region allocates nothing: when mkfs asks whether it
// may overwrite the region, when a mount asks whether it is empty, and when fsck looks for a
// superblock.
func TestHolesStay(t *testing.T) {
	needFUSE(t)
	dir := memoryFilesystem(t, "size=64m")
	p := filepath.Join(dir, "sparse")
	again := func() {
		t.Helper()
		if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		writeFile(t, p, nil)
		if err := os.Truncate(p, 4<<30); err != nil {
			t.Fatal(err)
		}
	}
	again()
	refused(t, daxfsd(t, "fsck", "-n", p), fsckOperational, p, "no daxfsd")
	if n := used(t, dir); n > 1<<20 {
		t.Errorf("fsck allocated %d bytes", n)
	}
	must(t, "mkfs", "--sparse", p)
	if n := used(t, dir); n > 8<<20 {
		t.Errorf("mkfs allocated %d bytes", n)
	}
	again()
	// It allocates what it formats, and there is no room for that; nothing stays allocated.
	refused(t, daxfsd(t, "mount", "--format-if-empty", p, mountPoint(t)), 1, p, "4 GiB", "free")
	if n := used(t, dir); n > 1<<20 {
		t.Errorf("a mount that was refused allocated %d bytes", n)
	}
}

// TestMountFormatCancelled checks that SIGTERM also ends the formatting by a mount, and that
// nothing is left.
func TestMountFormatCancelled(t *testing.T) {
	needFUSE(t)
	p, mp := filepath.Join(memoryFilesystem(t, "size=1g"), "region"), mountPoint(t)
	for delay := 20 * time.Millisecond; delay < time.Second; delay += 20 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := command(ctx, "mount", "--foreground", "--format-if-empty", "--size", "900MiB", p, mp)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		cancel()
		_, err := os.Stat(p)
		if strings.Contains(said.String(), "cancelled by a signal") {
			if cmd.ProcessState.ExitCode() != 1 || err == nil {
				t.Errorf("exit code %d, the region: %v; it said %q", cmd.ProcessState.ExitCode(), err, said.String())
			}
			return
		}
		os.Remove(p) // the signal came before its handler, or after the formatting
	}
	t.Error("no formatting was cancelled")
}
