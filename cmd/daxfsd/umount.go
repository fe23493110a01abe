package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs/fusefs"
)

type umountFlags struct {
	lazy, force bool
	timeout     time.Duration
}

func umountCommand() *cobra.Command {
	var f umountFlags
	c := &cobra.Command{
		Use:   "umount [flags] MOUNTPOINT",
		Short: "Unmount a daxfs, and wait until its region is free",
		Long: `Unmount the daxfs at MOUNTPOINT. The command returns when the daemon has made
the filesystem clean and unlocked the region: it can be mounted again, checked or
copied at once. A mount whose daemon is gone is removed.

While files are open the mount is busy and stays. --lazy takes it out of the tree
at once; the daemon then serves the users it has and ends with the last one.`,
		Example: `  daxfsd umount /mnt
  daxfsd umount --lazy /mnt`,
		Args: args("MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error { return umount(c, &f, a[0]) },
	}
	c.Flags().BoolVar(&f.lazy, "lazy", false, "detach now, end with the last user; does not wait")
	c.Flags().BoolVar(&f.force, "force", false, "abort requests that hang (root only)")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait for the region to be free")
	return c
}

func umount(c *cobra.Command, f *umountFlags, arg string) error {
	mp, err := resolve(arg)
	if err != nil {
		return err
	}
	m, err := mountAt(mp)
	switch {
	case err != nil:
		return err
	case m == nil:
		if ms := regionMounts(arg); len(ms) == 1 {
			return fmt.Errorf("%s is a region; its mount point is %s", arg, ms[0].Mountpoint)
		}
		return fmt.Errorf("%s is not a mount point; see `findmnt -t %s`", mp, fsType)
	case m.FSType != fsType:
		return fmt.Errorf("%s is a mount of type %s, not a daxfs", mp, m.FSType)
	}
	dead := stale(mp)
	pid := 0
	if !dead {
		if i, err := askDaemon(mp, 2*time.Second); err == nil {
			pid = i.PID
		}
	}
	mode := fusefs.Plain
	switch {
	case f.force:
		mode = fusefs.Force
	case f.lazy || dead:
		mode = fusefs.Lazy
	}
	if err := fusefs.Unmount(mp, mode); err != nil {
		if errors.Is(err, fusefs.ErrBusy) {
			return fmt.Errorf("%w; `fuser -vm %s` shows by whom, --lazy detaches it anyway", err, mp)
		}
		return err
	}
	if dead {
		fmt.Fprintf(c.ErrOrStderr(), "daxfsd: umount: removed the dead mount of %s; its daemon had gone without unmounting\n", m.Source)
		return nil
	}
	if f.lazy || len(mountsOf(m.Source)) > 0 { // still mounted elsewhere, by a bind mount
		return nil
	}
	return waitFree(m.Source, pid, f.timeout)
}

func regionMounts(arg string) []*mountinfo.Info {
	path, err := regionPath(arg)
	if err != nil {
		return nil
	}
	return mountsOf(path)
}

// waitFree waits until the daemon has given up the region: it can be locked, or,
// if we may not open it, the process pid is gone.
func waitFree(region string, pid int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		free, err := unlocked(region)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil { // not ours to open
			free = pid == 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH)
		}
		if free {
			return nil
		}
		if time.Now().After(deadline) {
			who := ""
			if pid != 0 {
				who = fmt.Sprintf(" by process %d", pid)
			}
			return fmt.Errorf("unmounted, but region %s is still in use%s after %v: it is being written back, or somebody holds files of the mount open", region, who, limit)
		}
		time.Sleep(wait)
	}
}

// unlocked reports whether nobody has the region open exclusively. It takes a
// shared lock for a moment.
func unlocked(region string) (bool, error) {
	fd, err := unix.Open(region, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	err = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
