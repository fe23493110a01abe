package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inNamespace runs a shell script in a mount namespace of its own, with this program as $0.
func inNamespace(t *testing.T, script string, args ...string) result {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, append([]string{"/bin/sh", "-c", script, exe}, args...)...)
	cmd.Env = append(commandEnv(), leaveMounts+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return finish(t, cmd)
}

func TestNoDevFuse(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	before := digest(t, region)
	r := inNamespace(t, `mount --make-rprivate / && mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec "$0" "$@"`, "mount", region, mp)
	refused(t, r, 1, "/dev/fuse", "modprobe fuse")
	if digest(t, region) != before {
		t.Error("the region was touched")
	}
}

// userDir makes a directory that belongs to a user and that the user can reach.
func userDir(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "daxfsd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNoPermission(t *testing.T) {
	needFUSE(t)
	const uid = 65534
	dir := userDir(t, uid)
	region, mp := newRegion(t), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	exe := reachable(t, dir)
	before := digest(t, region)
	r := asUserExe(t, exe, uid, "mount", region, mp)
	refused(t, r, 1)
	own := filepath.Join(dir, "own.dax")
	if r := asUserExe(t, exe, uid, "mkfs", "--size", "16MiB", own); r.code != 0 {
		t.Fatalf("mkfs as a user: %s", r.stderr)
	}
	refused(t, asUserExe(t, exe, uid, "mount", own, mp), 1, "not writable") // the directory is root's
	if digest(t, region) != before {
		t.Error("the region was touched")
	}
}

// TestMountAsUser checks that a user mounts with fusermount3, and unmounts. It runs in a mount
// namespace of its own where every user may open /dev/fuse, as on most machines.
func TestMountAsUser(t *testing.T) {
	t.Parallel()
	dir := userMountDir(t)
	got := inNamespace(t, `set -e
cd "$1"
mount --make-rprivate /
mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse
exec setpriv --reuid 65534 --regid 65534 --clear-groups /bin/sh -ec '
	trap "./daxfsd umount --lazy mnt 2>/dev/null || true" EXIT
	./daxfsd mkfs --size 16MiB own.dax >/dev/null
	./daxfsd mount own.dax mnt
	echo hello >mnt/file
	./daxfsd info --json mnt
	grep " $PWD/mnt " /proc/self/mounts >&2
	./daxfsd umount mnt
	./daxfsd fsck -n own.dax >/dev/null
	! ./daxfsd mount -o allow_other,frobnicate own.dax mnt 2>/dev/null
	./daxfsd mount own.dax mnt
	[ "$(cat mnt/file)" = hello ]
'`, dir)
	if got.code != 0 {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	has(t, decode(t, got.stdout), map[string]any{"state": "mounted", "region": dir + "/own.dax"})
	for _, want := range []string{dir + "/own.dax", "fuse.daxfsd", "nosuid", "nodev", "default_permissions"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("%q is not in the mount table: %s", want, got.stderr)
		}
	}
}

// userMountDir returns a directory of user 65534 with the program in it and a directory mnt. It
// skips the test where a user cannot mount.
func userMountDir(t *testing.T) string {
	t.Helper()
	needFUSE(t)
	for _, tool := range []string{"fusermount3", "setpriv", "mknod"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	const uid = 65534
	dir := userDir(t, uid)
	reachable(t, dir)
	mp := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mp, uid, uid); err != nil {
		t.Fatal(err)
	}
	return dir
}

// reachable copies the test binary to a directory where a user can execute it.
func reachable(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "daxfsd")
	b := readFile(t, exe)
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

func asUserExe(t *testing.T, exe string, uid uint32, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = commandEnv()
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return finish(t, cmd)
}
