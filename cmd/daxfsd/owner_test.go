package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

// twoNames makes a region with two inodes for the same memory, like a device for which a container
// has a node of its own: a file of an overlay, and the same file in the layer below. flock does not
// exclude users of the other inode.
func twoNames(t *testing.T) (region, alias string) {
	t.Helper()
	needRoot(t)
	needFUSE(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	at := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	lower, upper, work, merged := at("lower"), at("upper"), at("work"), at("merged")
	if err := unix.Mount("none", merged, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
		t.Skipf("no overlay filesystem: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(merged, unix.MNT_DETACH) })
	region, alias = filepath.Join(merged, "region"), filepath.Join(upper, "region")
	must(t, "mkfs", "--sparse", "--size", "32MiB", region)
	return region, alias
}

// TestOwnerTwoNames checks a region that is mounted through one inode. Through the other it is
// refused to everything that would change it or would read while it changes. It is free as soon as
// its daemon is killed.
func TestOwnerTwoNames(t *testing.T) {
	t.Parallel() // it mostly waits
	region, alias := twoNames(t)
	mp, other := mountPoint(t), mountPoint(t)
	must(t, "mount", region, mp)
	writeFile(t, mp+"/f", content)
	pid := daemonPID(t, mp)
	number := strconv.Itoa(pid)
	if i := decode(t, must(t, "info", "--json", alias)); i["state"] != "in use" || !strings.Contains(i["note"].(string), number) {
		t.Errorf("info says %v, %v", i["state"], i["note"])
	}
	refused(t, daxfsd(t, "mount", alias, other), 1, "in use", number)
	refused(t, daxfsd(t, "mount", "-o", "takeover", alias, other), 1, "in use", number)
	refused(t, daxfsd(t, "mount", "-o", "ro", alias, other), 1, "in use", number)
	refused(t, daxfsd(t, "fsck", "-n", alias), 8, "in use", number)
	refused(t, daxfsd(t, "fsck", "-y", alias), 8, "in use", number)
	refused(t, daxfsd(t, "mkfs", "--force", alias), 1, "in use", number)
	refused(t, daxfsd(t, "mkfs", "--force", "--size", "16MiB", alias), 1, "in use", number)
	if string(readFile(t, mp+"/f")) != string(content) {
		t.Error("the content changed")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
	must(t, "mount", alias, other)
	if string(readFile(t, other+"/f")) != string(content) {
		t.Error("the content changed")
	}
	must(t, "umount", other)
}

// TestOwnerStopped checks that a stopped daemon keeps its region if its process is visible.
func TestOwnerStopped(t *testing.T) {
	t.Parallel() // it mostly waits
	region, alias := twoNames(t)
	mp, other := mountPoint(t), mountPoint(t)
	must(t, "mount", "-o", "transport=dev", region, mp)
	pid := daemonPID(t, mp)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGCONT) })
	refused(t, daxfsd(t, "mount", alias, other), 1, "in use", strconv.Itoa(pid), "stopped", "takeover")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
}

// TestOwnerCopy checks that a copy of a mounted region is called a copy, is checked, and can be
// used beside the original.
func TestOwnerCopy(t *testing.T) {
	t.Parallel() // it mostly waits
	region, mp := mounted(t)
	other := mountPoint(t)
	writeFile(t, mp+"/f", content)
	if err := exec.Command("sync", "-f", mp).Run(); err != nil {
		t.Fatal(err)
	}
	dup := filepath.Join(t.TempDir(), "copy")
	writeFile(t, dup, readFile(t, region))
	r := daxfsd(t, "mount", dup, other)
	if r.code != 0 || !strings.Contains(r.stderr, "copy") || !strings.Contains(r.stderr, "checking") {
		t.Fatalf("exit code %d: %q", r.code, r.stderr)
	}
	if string(readFile(t, other+"/f")) != string(content) {
		t.Error("the copy has other content")
	}
	must(t, "umount", other)
	must(t, "umount", mp)
}

// TestOwnerContainers kills a daemon in a container and replaces it by one in another container,
// with another host name and machine id. The new one mounts without --takeover: at once if the
// region is the same file, after a few seconds if it has a node of its own. While the first daemon
// lives, the second one is refused.
func TestOwnerContainers(t *testing.T) {
	t.Parallel() // it mostly waits
	region, alias := twoNames(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// container runs a daemon in the foreground, as process 1 of its own namespaces.
	container := func(host, region, mp string) *exec.Cmd {
		t.Helper()
		id := filepath.Join(t.TempDir(), "machine-id")
		writeFile(t, id, []byte(strings.Repeat(host[len(host)-1:], 32)))
		script := `hostname "$1" && mount -t proc proc /proc && { [ ! -e /etc/machine-id ] || mount --bind "$2" /etc/machine-id; } && shift 2 && exec "$0" "$@"`
		cmd := exec.Command(exe, "/bin/sh", "-c", script, exe, host, id, "mount", "--foreground", region, mp)
		cmd.Env = append(commandEnv(), leaveMounts+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
			if t.Failed() {
				t.Logf("%s: %s", host, out.String())
			}
		})
		return cmd
	}
	// serves waits until the owner record names process 1 and the number of claims, and returns how
	// long it waited.
	serves := func(path string, claims uint32, limit time.Duration) time.Duration {
		t.Helper()
		start := time.Now()
		for {
			rec := record(t, path)
			if rec.Mounted() && rec.Owner.PID == 1 && rec.Owner.Mounts == claims {
				return time.Since(start)
			}
			if time.Since(start) > limit {
				t.Fatalf("not mounted after %v: %+v", limit, record(t, path))
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	first := container("container-a", region, mountPoint(t))
	serves(region, 1, 20*time.Second)
	refused(t, daxfsd(t, "mount", alias, mountPoint(t)), 1, "in use", "container")
	refused(t, daxfsd(t, "fsck", "-y", alias), 8, "in use", "container")
	refused(t, daxfsd(t, "mkfs", "--force", alias), 1, "in use", "container")
	first.Process.Kill()
	first.Wait()

	second := container("container-b", region, mountPoint(t)) // the same file
	if took := serves(region, 2, 20*time.Second); took > 4*time.Second {
		t.Errorf("a killed daemon's file was mounted after %v, want at once", took)
	}
	second.Process.Kill()
	second.Wait()

	third := container("container-c", alias, mountPoint(t)) // another inode
	took := serves(alias, 3, 30*time.Second)
	t.Logf("a killed daemon's memory was mounted by another inode after %v", took)
	third.Process.Signal(syscall.SIGTERM)
	if err := third.Wait(); err != nil {
		t.Errorf("the last daemon: %v", err)
	}
	if rec := record(t, alias); rec.Mounted() {
		t.Error("the region was not unmounted")
	}
}

// record reads the owner record of a region, beside any user.
func record(t *testing.T, path string) owner.Record {
	t.Helper()
	r, err := pmem.Open(path, pmem.Options{ReadOnly: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sb, _, err := fs.ReadSuper(r)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := owner.Read(r, sb)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}
