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

// A region's lock is held by a daemon, or by a command at work on it. A daemon whose mount has gone
// from the tree is ending, as umount(2) returns before the daemon has made the filesystem clean, or
// it is detached and serves users that still have files open.

// endingName is the name of a daemon's process from the end of its mount on.
const endingName = "daxfsd-ending"

// How long a region may stay locked by a process that is expected to leave.
const (
	leavingLimit = time.Second      // no mount shows it, and it may be about to notice
	endingLimit  = 60 * time.Second // it is making the filesystem clean
)

// sayEnding names this process so that others know that it leaves.
func sayEnding() { _ = os.WriteFile("/proc/self/comm", []byte(endingName), 0) }

// ending reports whether a process is a daemon on its way out. Anybody may call a process so, so it
// is believed of ours and root's only: who may read a region may lock it.
func ending(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || pid <= 0 {
		return false
	}
	name, uid := parseStatus(string(b))
	return name == endingName && (uid == 0 || uid == os.Geteuid())
}

// parseStatus finds a process's name and effective user in /proc/PID/status; the user is -1 if it
// is not there. (The owner of /proc/PID itself is root for who is not dumpable.)
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

// patiently opens a region, and again while its lock is held by a process that is about to
// leave. Before it gives up it tries once more: a holder that is not found may have left since.
func patiently[T any](path string, open func() (T, error)) (T, error) {
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

// serving returns the mount whose daemon has the image at path open, or nil. It compares the
// images, not their names: a region that was renamed is still served under its old name, which may
// be another's by now.
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
			case named && err == nil && d.RegionID == (pmem.FileID{}): // a daemon that does not tell
				return m
			}
		}
	}
	return nil
}

// heldBy says who has the region at path locked while no mount here shows it; "" if nobody has.
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
		return fmt.Sprintf("process %d serves it without a mount point here: of a detached mount somebody still has files open, or the mount is in another namespace", pid)
	}
	return fmt.Sprintf("process %d is at work on it", pid)
}
