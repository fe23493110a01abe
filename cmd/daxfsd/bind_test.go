package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInfoOfBindMount checks that info and top work on a bind mount of a directory below the root,
// and of a file.
func TestInfoOfBindMount(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	scripted(t, `
"$0" mount "$region" "$mp"; p=$(pid "$mp")
mkdir "$mp/sub" "$mp-dir"; echo x >"$mp/sub/file"; echo y >"$mp-file"
mount --bind "$mp/sub" "$mp-dir"; mount --bind "$mp/sub/file" "$mp-file"
for m in "$mp-dir" "$mp-file"; do
	[ "$(pid "$m")" = $p ] || fail "info $m"
	"$0" info --json --buckets "$m" | grep -q '"buckets"' || fail "info --buckets $m"
	"$0" top --once --interval 50ms "$m" | grep -q "$region" || fail "top $m"
done
umount "$mp"
[ "$(pid "$mp-dir")" = $p ] || fail "info when only bind mounts are left"
[ "$(pid "$region")" = $p ] || fail "info REGION when only bind mounts are left"
umount "$mp-file"; "$0" umount "$mp-dir"; ended $p
rmdir "$mp-dir"; rm "$mp-file"`, region, mp)
}

// TestUmountForce checks that umount --force aborts only what cannot be unmounted otherwise,
// reports that, and does not abort a filesystem that is also mounted elsewhere.
func TestUmountForce(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	if got := daxfsd(t, "umount", "--force", mp); got.code != 0 || got.stderr != "" {
		t.Errorf("not in use: exit code %d: %s", got.code, got.stderr)
	}
	must(t, "mount", region, mp)
	file, err := os.Create(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	refused(t, daxfsd(t, "umount", mp), 1, "in use")
	if _, err := file.Write([]byte("kept")); err != nil {
		t.Errorf("a plain umount that was refused: %v", err)
	}
	got := daxfsd(t, "umount", "--force", mp)
	if got.code != 0 || !strings.Contains(got.stderr, "aborted the filesystem on "+mp) {
		t.Errorf("in use: exit code %d: %q", got.code, got.stderr)
	}
	if mount, _ := mountAt(mp); mount != nil {
		t.Error("it is still there")
	}
	if _, err := file.Write([]byte("x")); !disconnected(err) {
		t.Errorf("a write to what was aborted: %v", err)
	}
	must(t, "fsck", "-n", region)
	must(t, "mount", region, mp)
	if got := string(readFile(t, mp+"/f")); got != "kept" {
		t.Errorf("after the abort: %q", got)
	}
	must(t, "umount", mp)

	scripted(t, `
"$0" mount "$region" "$mp"; p=$(pid "$mp"); mkdir "$mp/sub" "$mp-bind"; echo x >"$mp/sub/f"
mount --bind "$mp/sub" "$mp-bind"
exec 5<"$mp-bind/f"
! "$0" umount --force "$mp-bind" 2>"$region.said" || fail "it said that it unmounted what is in use"
grep -q "mounted on $mp too" "$region.said" || fail "$(cat "$region.said")"
[ "$(cat "$mp/f" "$mp/sub/f")" = keptx ] || fail "the original was aborted"
exec 5<&-
"$0" umount --force "$mp-bind"
[ "$(cat "$mp/f")" = kept ] || fail "the original was aborted"
exec 5<"$mp/f"; mount -t tmpfs none "$mp/sub"; echo theirs >"$mp/sub/t"
! "$0" umount --force "$mp" 2>"$region.said" || fail "unmounted what something is mounted on"
grep -q "mounted on it: $mp/sub (tmpfs)" "$region.said" || fail "$(cat "$region.said")"
[ "$(cat "$mp/f" "$mp/sub/t")" = kepttheirs ] || fail "the sub-mount went"
umount "$mp/sub"; exec 5<&-
"$0" umount "$mp"; ended $p; rmdir "$mp-bind"`, region, mp)
}

// TestInfoOfUnseenMount checks that info REGION names the user of a region that no mount here
// shows, and describes the image that has the name now.
func TestInfoOfUnseenMount(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	f, err := os.Create(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pid := daemonPID(t, mp)
	must(t, "umount", "--lazy", mp)
	i := decode(t, must(t, "info", "--json", region))
	has(t, i, map[string]any{"state": "in use"})
	if want := "process " + strconv.Itoa(pid) + " serves it"; !strings.Contains(i["note"].(string), want) {
		t.Errorf("note %q, want %q in it", i["note"], want)
	}
	f.Close()
	if err := waitFree(region, pid, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "clean"})

	must(t, "mount", region, mp)
	first := decode(t, must(t, "info", "--json", region))["uuid"]
	moved := filepath.Join(filepath.Dir(region), "moved.dax")
	if err := os.Rename(region, moved); err != nil {
		t.Fatal(err)
	}
	must(t, "mkfs", "--size", "24MiB", region)
	i = decode(t, must(t, "info", "--json", region))
	has(t, i, map[string]any{"state": "clean", "size": float64(24 << 20)})
	if i["uuid"] == first {
		t.Error("the new image is described as the mounted one")
	}
	has(t, decode(t, must(t, "info", "--json", moved)), map[string]any{"state": "mounted", "region": moved, "uuid": first})
	refused(t, daxfsd(t, "fsck", "-n", moved), fsckOperational, "in use", mp)
	must(t, "fsck", "-n", region)
	must(t, "umount", mp)
}

// TestRemount checks that a remount refuses to change what it cannot change. It accepts an option
// that is in force already, which mount(8) repeats from fstab.
func TestRemount(t *testing.T) {
	needFUSE(t)
	region, mp := filepath.Join(memoryFilesystem(t, "size=64m"), "region"), mountPoint(t) // where locks are kept
	must(t, "mkfs", "--sparse", "--size", "32MiB", region)
	must(t, "mount", "-o", "ro,direct=rw", region, mp)
	must(t, "mount", "-o", "remount,ro,direct=rw", region, mp) // a read-only mount makes no grants
	refused(t, daxfsd(t, "mount", "-o", "remount,direct=off", region, mp), 2, "direct=off", "mount it again")
	refused(t, daxfsd(t, "mount", "-o", "remount,rw", region, mp), 2, "read-only", "mount it again")
	must(t, "mount", "-o", "remount,ro,noexec", region, mp)
	var st unix.Statfs_t
	if err := unix.Statfs(mp, &st); err != nil || st.Flags&unix.ST_RDONLY == 0 || st.Flags&unix.ST_NOEXEC == 0 {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	must(t, "umount", mp)

	must(t, "mount", "-o", "transport=auto,diratime,sync", region, mp)
	must(t, "mount", "-o", "remount,transport=auto,diratime,relatime,dax=always,direct=rw,nodev,allow_other", region, mp)
	if err := unix.Statfs(mp, &st); err != nil || st.Flags&unix.ST_NODEV == 0 || st.Flags&unix.ST_SYNCHRONOUS == 0 {
		t.Errorf("flags %#x, %v", st.Flags, err)
	}
	for _, o := range []string{"nodiratime", "noatime", "atomic", "dax=never", "direct=ro", "direct=off"} {
		refused(t, daxfsd(t, "mount", "-o", "remount,"+o, region, mp), 2, o, "mount it again")
	}
	must(t, "mount", "-o", "remount,ro", region, mp)
	must(t, "mount", "-o", "remount,rw", region, mp)
	writeFile(t, mp+"/f", content)
	must(t, "umount", mp)

	must(t, "mount", "-o", "atomic,direct=rw", region, mp)
	must(t, "mount", "-o", "remount,atomic,direct=rw", region, mp)
	refused(t, daxfsd(t, "mount", "-o", "remount,atomic,direct=off", region, mp), 2, "direct=off", "mount it again")
	must(t, "umount", mp)
}
