package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

type umountFlags struct {
	lazy, force bool
	timeout     time.Duration
}

func umountCommand() *cobra.Command {
	var f umountFlags
	c := &cobra.Command{
		Use:   "umount [flags] MOUNTPOINT",
		Short: "Unmount a daxfsd, and wait until its region is free",
		Long: `Unmount the daxfsd at MOUNTPOINT. The command returns when the daemon has written
the filesystem's state and unlocked the region, which can then be mounted, checked
or copied at once. A mount whose daemon is gone is removed. Programs that map files'
own memory keep it; umount says which ones.

While files are open the mount is busy, and umount fails. --lazy detaches the mount
from the tree at once; the daemon serves the users it has and exits with the last
one.

--force is for a daemon that does not answer, or for users that cannot be found. It
first tries to unmount normally. If that fails it aborts the filesystem, reports
that, and removes the mount: programs that use the filesystem get errors from then
on ("Transport endpoint is not connected"). No operation that had returned is lost.
--force does not abort a filesystem that a bind mount in this mount namespace shows
as well, because the abort would end that mount too. It cannot see mounts in other
namespaces (containers): these end with it.`,
		Example: `  daxfsd umount /mnt
  daxfsd umount --lazy /mnt`,
		Args: args("MOUNTPOINT"),
		RunE: func(c *cobra.Command, a []string) error { return umount(c, &f, a[0]) },
	}
	c.Flags().BoolVar(&f.lazy, "lazy", false, "detach now and return; the daemon exits with the last user")
	c.Flags().BoolVar(&f.force, "force", false, "if it cannot be unmounted normally, abort it for all its users")
	c.Flags().DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long to wait until the region is free")
	return c
}

func umount(c *cobra.Command, flags *umountFlags, arg string) error {
	held, err := daxfsdAt(arg)
	if err != nil {
		return err
	}
	defer held.release()
	mp := held.Mountpoint
	pid := lockHolder(held.Source)
	gone, silent := held.gone()
	others := otherMounts(held.Info)
	say := func(format string, a ...any) {
		fmt.Fprintf(c.ErrOrStderr(), "daxfsd: umount: %s\n", visible(fmt.Sprintf(format, a...)))
	}
	left := func(region string) {
		if s := stillMapped(region); s != "" {
			say("%s: the next mount keeps it for them, and mkfs and fsck -y refuse the region until they end", s)
		}
	}
	switch {
	case gone:
		if err := fusefs.Uncovered(held.Info); err != nil && !flags.lazy {
			return err
		}
		if err := held.unmount(fusefs.Lazy); err != nil {
			return err
		}
		leaveUtab(mp)
		say("removed the dead mount of %s; its daemon had gone without unmounting", held.Source)
		left(held.Source)
		return nil
	case silent != nil && !flags.force && !flags.lazy:
		return silent
	case flags.lazy:
		err = held.unmount(fusefs.Lazy)
	case silent == nil:
		err = held.unmount(fusefs.Plain)
	default:
		err = silent
	}
	aborted := false
	if err != nil && flags.force && !flags.lazy {
		if len(others) > 0 {
			return fmt.Errorf("%w; in this mount namespace it is mounted on %s too, and --force would end it there: unmount that first, or use --lazy", err, others[0].Mountpoint)
		}
		if held.fd < 0 {
			if err := held.again(); err != nil {
				return err
			}
		}
		if err := fusefs.Uncovered(held.Info); err != nil {
			return err
		}
		if s := stillMapped(held.Source, pid); s != "" {
			say("%s: the memory stays theirs until they end, and the next mount keeps it for them", s)
		}
		if err := abort(held); err != nil {
			return err
		}
		aborted = true
		why := "was in use"
		if silent != nil {
			why = "has a daemon that does not answer"
		}
		say("aborted the filesystem on %s, which %s: what used it gets errors from now on; nothing that had returned is lost", mp, why)
	} else if errors.Is(err, fusefs.ErrBusy) {
		return fmt.Errorf("%w; `fuser -vm %s` shows by whom, --lazy detaches it anyway", err, mp)
	} else if err != nil {
		return err
	}
	if flags.lazy || len(others) > 0 { // still mounted elsewhere, by a bind mount
		return nil
	}
	if aborted && silent != nil { // the daemon may never exit by itself
		flags.timeout = min(flags.timeout, probeLimit)
	}
	held.release() // the daemon ends with the last user of the mount
	if err := waitFree(held.Source, pid, flags.timeout); err != nil {
		return err
	}
	if !aborted { // else it has said so
		left(held.Source)
	}
	return nil
}

// daxfsdAt returns the daxfsd mounted at a mount point, or an error that names what is there
// instead.
func daxfsdAt(arg string) (*heldMount, error) {
	f, fd, err := findOpen(arg)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", arg, err)
	}
	if err == nil {
		if m := f.daxfsd(); m != nil {
			return hold(m, fd)
		}
		unix.Close(fd)
		if f.root {
			return nil, fmt.Errorf("%s is a mount of type %s, not a daxfsd", f.path, f.mount.FSType)
		}
	}
	if ms := regionMounts(arg); len(ms) == 1 {
		return nil, fmt.Errorf("%s is a region; its mount point is %s", arg, ms[0].Mountpoint)
	}
	return nil, fmt.Errorf("%s is not a mount point; see `findmnt -t %s`", arg, fsType)
}

// otherMounts lists the other mounts of the same filesystem in this mount namespace.
func otherMounts(m *mountinfo.Info) []*mountinfo.Info {
	all, _ := fusefs.MountsOfDevice(m.Major, m.Minor)
	return slices.DeleteFunc(all, func(o *mountinfo.Info) bool { return o.ID == m.ID })
}

// unmountLimit is how long an unmount may take, which writes back the kernel's whole page cache.
const unmountLimit = 2 * time.Minute

// abort ends the filesystem for all its users and removes the mount from the tree.
func abort(m *heldMount) error {
	if err := fusefs.Abort(m.Minor); err != nil {
		if os.Geteuid() != 0 {
			return fmt.Errorf("aborting the filesystem on %s: %w", m.Mountpoint, err)
		}
		// Without fusectl, MNT_FORCE aborts. Without MNT_DETACH beside it, an unmount that finds
		// no other user waits for a daemon that is stopped.
		return m.unmount(fusefs.ForceLazy)
	}
	return m.unmount(fusefs.Lazy)
}

func regionMounts(arg string) []*mountinfo.Info {
	path, err := regionPath(arg)
	if err != nil {
		return nil
	}
	return mountsOf(path)
}

// waitFree waits until the daemon has given up the region: the region can be locked or, if this
// process may not open it, process pid is gone. pid is 0 if unknown.
func waitFree(region string, pid int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		free, err := unlocked(region)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil { // this process may not open it
			free = pid == 0 || errors.Is(unix.Kill(pid, 0), unix.ESRCH)
		}
		if next := lockHolder(region); free || pid != 0 && next != 0 && next != pid { // another process has it now
			return nil
		}
		if time.Now().After(deadline) {
			user := ""
			if pid != 0 {
				user = fmt.Sprintf(" by process %d", pid)
			}
			if stopped(pid) {
				return fmt.Errorf("unmounted, but region %s is still in use%s, which is stopped: `kill -CONT %d` lets it end, `kill -9 %d` ends it, and the next mount recovers", region, user, pid, pid)
			}
			return fmt.Errorf("unmounted, but region %s is still in use%s after %v: it is being written back, files of the mount are still open, or it is mounted in another namespace", region, user, limit)
		}
		time.Sleep(wait)
	}
}

// unlocked reports whether no process has the region open exclusively. It takes a shared lock for a
// moment.
func unlocked(region string) (bool, error) {
	f, path, err := findOpen(region)
	if err != nil {
		return false, err
	}
	defer unix.Close(path)
	if !f.region() {
		return false, fmt.Errorf("%s is neither a file nor a device-dax", region)
	}
	if err := f.answering(path); errors.Is(err, errSilent) {
		return false, err
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
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
