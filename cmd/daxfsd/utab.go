package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// umount(8) learns a mount's type from statfs(2), which returns fuse for every FUSE filesystem, so
// it looks for umount.fuse and not for umount.fuse.daxfsd. The table of user space options that
// mount(8) and umount(8) keep (utab) can name the helper: a line with helper=fuse.daxfsd. Only
// these programs write the table, so daxfsd calls them.

const (
	umountHelper = "/sbin/umount." + fsType
	utab         = "/run/mount/utab"
)

// wantsUtab reports whether the helper is installed and the table can be written.
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

// enterUtab makes umount(8) call the helper for a mount.
func enterUtab(source, mp string) {
	if wantsUtab() && !inUtab(mp) {
		utabTool("mount", "-i", "-f", "--no-canonicalize", "-t", fsType, "-o", "helper="+fsType, "--", source, mp)
	}
}

// leaveUtab undoes enterUtab after the mount has gone, unless umount(8) did. It keeps the line if
// another daxfsd is mounted there by now.
func leaveUtab(mp string) {
	if m, err := mountAt(mp); err == nil && m != nil && m.FSType == fsType {
		return
	}
	if wantsUtab() && inUtab(mp) {
		utabTool("umount", "-i", "--fake", "--no-canonicalize", "--", mp)
	}
}

// utabTool runs a program of util-linux, if there is one. Without it umount(8) returns a little too
// early.
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
