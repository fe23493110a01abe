package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// killed returns a region and its mount point after the daemon was killed.
func killed(t *testing.T) (region, mp string) {
	t.Helper()
	region, mp = mounted(t)
	if err := syscall.Kill(daemonPID(t, mp), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); !stale(mp); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			t.Fatal("the daemon was killed, and the mount is not dead after 20 s")
		}
	}
	return region, mp
}

// TestRemoveDeadOnly has two starters find the same dead mount. When the second one comes to remove
// it, the first one has already mounted again: that mount must stay, although it may have the
// numbers of the dead one.
func TestRemoveDeadOnly(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	for name, between := range map[string]func(t *testing.T, region, mp string){
		"another mount there": func(t *testing.T, region, mp string) { must(t, "mount", region, mp) },
		"nothing there":       func(t *testing.T, _, mp string) { must(t, "umount", mp) },
	} {
		t.Run(name, func(t *testing.T) {
			region, mp := killed(t)
			found, fd, err := findOpen(mp)
			if err != nil {
				t.Fatal(err)
			}
			held, err := hold(found.mount, fd)
			if err != nil {
				t.Fatal(err)
			}
			defer held.release()
			if gone, err := held.gone(); !gone || err != nil {
				t.Fatalf("the daemon is gone: %v, %v", gone, err)
			}
			between(t, region, mp)
			mount, err := mountAt(mp)
			if err != nil {
				t.Fatal(err)
			}
			if gone, err := held.gone(); !gone || err != nil {
				t.Errorf("the dead mount, asked once more: gone %v, %v", gone, err)
			}
			if err := held.removeDead(); !errors.Is(err, fusefs.ErrHidden) {
				t.Errorf("removing what another starter has removed: %v, want %v", err, fusefs.ErrHidden)
			}
			now, err := mountAt(mp)
			if err != nil || (now == nil) != (mount == nil) {
				t.Fatalf("the mount was %v and is %v (%v)", mount, now, err)
			}
			if now != nil {
				must(t, "umount", mp)
			}
		})
	}
}

// TestHeldMountAgain checks that a released mount is held again only if it is still there.
func TestHeldMountAgain(t *testing.T) {
	needFUSE(t)
	region, mp := mounted(t)
	h, err := daxfsdAt(mp)
	if err != nil {
		t.Fatal(err)
	}
	defer h.release()
	h.release()
	if err := h.again(); err != nil {
		t.Fatal(err)
	}
	h.release()
	must(t, "umount", mp)
	must(t, "mount", region, mp)
	for _, mode := range []fusefs.UnmountMode{fusefs.Plain, fusefs.Lazy} {
		if err := h.unmount(mode); !errors.Is(err, fusefs.ErrHidden) {
			t.Errorf("mode %d: unmounting a mount that was replaced: %v, want %v", mode, err, fusefs.ErrHidden)
		}
	}
	if err := h.again(); !errors.Is(err, fusefs.ErrHidden) {
		t.Errorf("a mount that was replaced: %v, want %v", err, fusefs.ErrHidden)
	}
	must(t, "umount", mp)
}

// TestMountPointSwapped checks that nothing is mounted elsewhere if the user who owns the parent
// directory replaces the mount point by a link while the mount begins.
func TestMountPointSwapped(t *testing.T) {
	needFUSE(t)
	region, mp, victim := newRegion(t), mountPoint(t), mountPoint(t)
	p := &mountPlan{region: region}
	if err := p.check(mp, func(string) {}); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(filepath.Dir(mp), "aside")
	if err := errors.Join(os.Rename(mp, aside), os.Symlink(victim, mp)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(victim, unix.MNT_DETACH) == nil || unix.Unmount(aside, unix.MNT_DETACH) == nil {
		}
	})
	c, err := fusefs.Attach(fusefs.Options{Mountpoint: p.mountpoint, Dir: p.dir, Source: region, Kernel: []string{"default_permissions"}})
	if err == nil {
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "was moved to "+aside) {
		t.Errorf("the mount point was swapped for a link: %v", err)
	}
	for _, dir := range []string{victim, aside} {
		if m, err := mountAt(dir); err != nil || m != nil {
			t.Errorf("mounted on %s: %v, %v", dir, m, err)
		}
	}
}

// TestDaemonFollowsNoLink checks that a daemon follows no link that was put there after its starter
// resolved the mount point.
func TestDaemonFollowsNoLink(t *testing.T) {
	victim := mountPoint(t)
	link := filepath.Join(filepath.Dir(victim), "link")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	rd, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	if err := daemon(&mountPlan{}, link, &reporter{w: w}); err == nil {
		t.Error("a daemon mounted by a link")
	}
	w.Close()
	if err := listen(rd, func(reportLine) {}); err == nil || !strings.Contains(err.Error(), "leads to "+victim) {
		t.Errorf("the starter was told: %v", err)
	}
}

// TestForeignSilence checks that daxfsd does not unmount a filesystem of another type that does not
// answer.
func TestForeignSilence(t *testing.T) {
	e := &foreignError{&mountinfo.Info{Mountpoint: "/remote", FSType: "fuse.sshfs"}}
	if !errors.Is(e, errSilent) || strings.Contains(e.Error(), "daxfsd umount") || !strings.Contains(e.Error(), "/remote (fuse.sshfs)") {
		t.Errorf("of another filesystem: %v", e)
	}
}
