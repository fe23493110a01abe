package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// umount(8) learns a mount's type from statfs(2), which says fuse for all of FUSE, and so looks for
// umount.fuse, not for umount.fuse.daxfsd. The table that mount(8) and umount(8) keep of options in
// user space can name the helper: a line with helper=fuse.daxfsd. They write it themselves.

const (
	umountHelper = "/sbin/umount." + fsType
	utab         = "/run/mount/utab"
)

// wantsUtab reports whether there is a helper to be named, and a table for it.
func wantsUtab() bool {
	return os.Geteuid() == 0 && unix.Access(umountHelper, unix.X_OK) == nil && unix.Access("/run/mount", unix.W_OK) == nil
}

// inUtab reports whether the table names the helper for a mount point.
func inUtab(mp string) bool {
	b, _ := os.ReadFile(utab)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " TARGET="+mp+" ") && strings.Contains(line, "helper="+fsType) {
			return true
		}
	}
	return false
}

// enterUtab has umount(8) call our helper for a mount.
func enterUtab(source, mp string) {
	if wantsUtab() && !inUtab(mp) {
		utabTool("mount", "-i", "-f", "--no-canonicalize", "-t", fsType, "-o", "helper="+fsType, "--", source, mp)
	}
}

// leaveUtab undoes enterUtab when the mount is gone, unless umount(8) has. The line stays for a
// daxfsd that somebody else has mounted there meanwhile.
func leaveUtab(mp string) {
	if m, err := mountAt(mp); err == nil && m != nil && m.FSType == fsType {
		return
	}
	if wantsUtab() && inUtab(mp) {
		utabTool("umount", "-i", "--fake", "--no-canonicalize", "--", mp)
	}
}

// utabTool runs a program of util-linux, where there is one. Without it umount(8) returns a little
// too early.
func utabTool(name string, args ...string) {
	bin, err := exec.LookPath(name)
	if err != nil {
		bin = "/bin/" + name
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	keepFromChildren()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.WaitDelay = time.Second
	_ = cmd.Run()
}
