package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"

	"github.com/daxfsd/daxfsd/pmem"
)

// A region's lock is held by a daemon, or by a command that works on the region. After its mount
// has left the tree, a daemon either makes the filesystem clean, since umount(2) returns before
// that, or it is detached and serves users that still have files open.

// endingName is the name of a daemon's process after its mount has ended.
const endingName = "daxfsd-ending"

// How long to wait for a process that is expected to release a region's lock.
const (
	leavingLimit = time.Second      // no mount shows the region; the daemon may be about to notice that
	endingLimit  = 60 * time.Second // the daemon is making the filesystem clean
)

// markEnding gives this process endingName, so that other processes know that it is about to exit.
func markEnding() { _ = os.WriteFile("/proc/self/comm", []byte(endingName), 0) }

// ending reports whether a process is a daemon that is about to exit. Any process can take that
// name, so only processes of this user and of root are believed: any reader of a region can lock
// it.
func ending(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || pid <= 0 {
		return false
	}
	name, uid := parseStatus(string(b))
	return name == endingName && (uid == 0 || uid == os.Geteuid())
}

// parseStatus finds the name and effective user of a process in /proc/PID/status; uid is -1 if
// missing. (The owner of /proc/PID cannot be used: it is root if the process is not dumpable.)
func parseStatus(status string) (name string, uid int) {
	uid = -1
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		switch {
		case key == "Name" && len(f) > 0:
			name = f[0]
		case key == "Uid" && len(f) > 1:
			if n, err := strconv.Atoi(f[1]); err == nil {
				uid = n
			}
		}
	}
	return name, uid
}

// retryBusy opens a region, and retries while the lock is held by a process that is about to exit.
// It makes a last attempt before it gives up, because a holder that is not found may just have
// exited.
func retryBusy[T any](path string, open func() (T, error)) (T, error) {
	start := time.Now()
	for last := false; ; {
		v, err := open()
		if last || !errors.Is(err, pmem.ErrBusy) {
			return v, err
		}
		waited := time.Since(start)
		switch {
		case ending(lockHolder(path)) && waited < endingLimit:
		case len(mountsOf(path)) == 0 && waited < leavingLimit:
		default:
			last = true
			continue
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// serving returns the mount whose daemon has the image at path open, or nil. It compares file
// identities, not names: a renamed region is still served under its old name, which may be another
// file's name by now.
func serving(path string) *mountinfo.Info {
	if free, err := unlocked(path); err == nil && free {
		return nil
	}
	f, err := find(path)
	if err != nil {
		return nil
	}
	id := f.fileID()
	all, _ := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.FSType != fsType, false })
	asked := map[int]bool{} // by minor device number
	for _, named := range []bool{true, false} {
		for _, m := range all {
			if named != (m.Source == path) || asked[m.Minor] {
				continue
			}
			asked[m.Minor] = true
			d, err := askDaemon(m.Mountpoint, probeLimit)
			switch {
			case err == nil && d.RegionID == id, named && errors.Is(err, errSilent):
				return m
			case named && err == nil && d.RegionID == (pmem.FileID{}): // a daemon that does not report an id
				return m
			}
		}
	}
	return nil
}

// heldBy describes the process that has the region at path locked although no mount here shows it.
// It returns "" if the region is not locked.
func heldBy(path string) string {
	if free, err := unlocked(path); err != nil || free {
		return ""
	}
	pid := lockHolder(path)
	if pid == 0 {
		return "in use by a process that cannot be seen from here"
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(string(cmdline), "\x00")
	switch {
	case ending(pid):
		return fmt.Sprintf("process %d has unmounted it and is making it clean", pid)
	case stopped(pid):
		return fmt.Sprintf("process %d has it open and is stopped", pid)
	case len(words) > 1 && words[1] == "mount" || strings.HasPrefix(filepath.Base(words[0]), "mount."):
		return fmt.Sprintf("process %d serves it without a mount point here: files of a detached mount are still open, or the mount is in another namespace", pid)
	}
	return fmt.Sprintf("process %d has it locked", pid)
}
