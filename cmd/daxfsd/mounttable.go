package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/pmem"
)

const fsType = "fuse." + fusefs.Type

// resolveCached is RESOLVE_CACHED of openat2(2): succeed without asking any filesystem, or not at
// all.
const resolveCached = 0x20

// found is where a path leads.
type found struct {
	path     string          // absolute, without symbolic links
	mount    *mountinfo.Info // that it lies on; nil: in no mount of this namespace
	root     bool            // it is what the mount shows at its mount point
	mode     uint32          // type and permissions, as the kernel last knew them
	dev, ino uint64          // of the filesystem and in it
	rdev     uint64          // of a device node, its own
}

// unreachableError is returned for a path that leads through a filesystem that does not answer.
type unreachableError struct{ path string }

func (e *unreachableError) Error() string {
	return e.path + " cannot be reached: a filesystem on the way to it does not answer"
}

func (e *unreachableError) Is(target error) bool { return target == errSilent }

// find looks a path up without a request to what is mounted at its end: the daemon there may be
// gone or stopped. What the path leads through on the way is asked by a probe, unless the kernel's
// cache knows.
func find(path string) (*found, error) {
	f, fd, err := findOpen(path)
	if err == nil {
		unix.Close(fd)
	}
	return f, err
}

// findOpen is find, and returns a descriptor that is open by O_PATH as well.
func findOpen(path string) (f *found, fd int, err error) {
	if path == "" {
		return nil, -1, unix.ENOENT
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, -1, err
	}
	fd, err = unix.Openat2(unix.AT_FDCWD, abs, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached})
	if err != nil {
		if _, err := probe(probeLimit, "open", abs); errors.Is(err, errSilent) {
			return nil, -1, &unreachableError{abs}
		}
		if fd, err = unix.Open(abs, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return nil, -1, err
		}
	}
	if f, err = describeFD(fd); err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	return f, fd, nil
}

func describeFD(fd int) (f *found, err error) {
	f = &found{}
	if f.path, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return nil, err
	}
	if f.mount, err = fusefs.MountOf(fd); err != nil {
		return nil, err
	}
	f.root = f.mount != nil && f.mount.Mountpoint == f.path
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_MODE|unix.STATX_INO, &st); err != nil && !disconnected(err) {
		return nil, err
	}
	f.mode, f.ino = uint32(st.Mode), st.Ino
	f.dev, f.rdev = unix.Mkdev(st.Dev_major, st.Dev_minor), unix.Mkdev(st.Rdev_major, st.Rdev_minor)
	return f, nil
}

// fileID is the identity of the region that was found, if it is one.
func (f *found) fileID() pmem.FileID {
	if f.mode&unix.S_IFMT == unix.S_IFCHR {
		return pmem.FileID{Dev: f.rdev}
	}
	return pmem.FileID{Dev: f.dev, Ino: f.ino}
}

// region reports whether it can be a region: a file, or a device-dax. The source that the mount
// table names is what the program said that mounted, which may be a user's, so that it must not be
// opened whatever it is.
func (f *found) region() bool {
	switch f.mode & unix.S_IFMT {
	case unix.S_IFREG:
		return true
	case unix.S_IFCHR:
		bus, err := os.Readlink(fmt.Sprintf("/sys/dev/char/%d:%d/subsystem", unix.Major(f.rdev), unix.Minor(f.rdev)))
		return err == nil && filepath.Base(bus) == "dax"
	}
	return false
}

// daxfsd returns the mount whose mount point was found, or nil if it is not a daxfsd.
func (f *found) daxfsd() *mountinfo.Info {
	if f.root && f.mount.FSType == fsType {
		return f.mount
	}
	return nil
}

// resolve makes a path absolute and free of symbolic links. Of one that leads nowhere only the
// directory is: whoever uses it says what is wrong.
func resolve(path string) (string, error) {
	f, err := find(path)
	if err == nil {
		return f.path, nil
	}
	if errors.Is(err, errSilent) {
		return "", err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if f, err := find(filepath.Dir(abs)); err == nil {
		return filepath.Join(f.path, filepath.Base(abs)), nil
	}
	return abs, nil
}

// mountAt is the mount on top at a path, or nil.
func mountAt(path string) (*mountinfo.Info, error) {
	f, err := find(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !f.root:
		return nil, nil
	}
	return f.mount, nil
}

// mountsOf lists the daxfsd mounts of a region.
func mountsOf(region string) []*mountinfo.Info {
	all, _ := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != fsType || m.Source != region, false
	})
	return all
}

// stale reports whether a mount's daemon is gone. A plain stat would be answered from
// the kernel's cache, which outlives the daemon.
func stale(mountpoint string) bool {
	_, err := probe(probeLimit, "stat", mountpoint)
	return disconnected(err)
}

// silentError is returned for a daemon that does not answer.
type silentError struct {
	mountpoint string
	pid        int // 0: not known
}

func (e *silentError) Error() string {
	who := "the daemon behind " + e.mountpoint
	if e.pid > 0 {
		who += fmt.Sprintf(" (process %d)", e.pid)
	}
	if stopped(e.pid) {
		return fmt.Sprintf("%s is stopped: `kill -CONT %d` lets it go on, `daxfsd umount --force %s` aborts the filesystem", who, e.pid, e.mountpoint)
	}
	return fmt.Sprintf("%s does not answer; `daxfsd umount --force %s` aborts the filesystem", who, e.mountpoint)
}

func (e *silentError) Is(target error) bool { return target == errSilent }

// foreignError is returned for a FUSE mount that is not a daxfsd and does not answer.
type foreignError struct{ m *mountinfo.Info }

func (e *foreignError) Error() string {
	return fmt.Sprintf("the filesystem on %s (%s) does not answer: end or continue its daemon, or unmount it first", e.m.Mountpoint, e.m.FSType)
}

func (e *foreignError) Is(target error) bool { return target == errSilent }

// request sends a request to the daemon of a mount, by a probe. It sends none to a daemon that is
// visibly stopped: what waits for that makes the mount busy.
func request(m *mountinfo.Info, limit time.Duration, args ...string) ([]byte, error) {
	return requestOn(-1, m, limit, args...)
}

// requestOn is request, with a descriptor for the probe, or -1.
func requestOn(fd int, m *mountinfo.Info, limit time.Duration, args ...string) ([]byte, error) {
	if m.FSType != fsType {
		b, err := probeOn(fd, limit, args...)
		if errors.Is(err, errSilent) {
			return nil, &foreignError{m}
		}
		return b, err
	}
	silent := &silentError{m.Mountpoint, lockHolder(m.Source)}
	if stopped(silent.pid) {
		return nil, silent
	}
	b, err := probeOn(fd, limit, args...)
	if errors.Is(err, errSilent) {
		return nil, silent
	}
	return b, err
}

// daemonGone reports whether the daemon of a mount is gone, or fails with a silentError. It asks by
// a descriptor on the mount's root, since the mount point may lead to another mount.
func daemonGone(m *mountinfo.Info, root int) (bool, error) {
	_, err := requestOn(root, m, probeLimit, "stat", probeFD)
	if errors.Is(err, errSilent) {
		return false, err
	}
	return disconnected(err), nil
}

// askDaemon asks the daemon behind a mount point what it is.
func askDaemon(mountpoint string, limit time.Duration) (*fusefs.Info, error) {
	var i fusefs.Info
	if err := ask(mountpoint, fusefs.InfoXattr, limit, &i); err != nil {
		return nil, err
	}
	return &i, nil
}

// askActivity asks the daemon behind a mount point what it has done, and says in one sentence why
// there is no answer.
func askActivity(mountpoint string) (*fusefs.Activity, error) {
	var a fusefs.Activity
	err := ask(mountpoint, fusefs.ActivityXattr, 5*time.Second, &a)
	switch {
	case disconnected(err):
		return nil, fmt.Errorf("the daemon of the mount on %s is gone; `daxfsd umount %s` removes it", mountpoint, mountpoint)
	case errors.Is(err, unix.ENODATA):
		return nil, fmt.Errorf("the daemon behind %s is too old to tell what it does; unmount and mount again", mountpoint)
	case errors.Is(err, errSilent):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("asking the daemon behind %s: %w", mountpoint, err)
	}
	return &a, nil
}

// answering fails for a file on a daxfsd, or on another FUSE, whose daemon does not answer: whoever
// opens one then cannot be killed.
func answering(name string) error {
	f, fd, err := findOpen(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.answering(fd)
}

// answering is the same of what was found and is open by O_PATH.
func (f *found) answering(fd int) error {
	if f.mount == nil || !strings.HasPrefix(f.mount.FSType, "fuse") {
		return nil
	}
	_, err := daemonGone(f.mount, fd)
	return err
}

// ask asks the daemon behind a mount point for an attribute whose value is v as JSON. A daemon
// that does not answer within the limit is given up, with a silentError.
func ask(mountpoint, xattr string, limit time.Duration, v any) error {
	m, err := mountAt(mountpoint)
	if err != nil {
		return err
	}
	if m == nil {
		return unix.ENODATA
	}
	b, err := request(m, limit, "getxattr", mountpoint, xattr)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("the daemon's answer is not understood: %w", err)
	}
	return nil
}

// checkMountpoint makes sure that path is a directory to mount on. It takes away daxfsd mounts
// whose daemon is gone and tells about it; nothing else is touched. dir is open on the directory by
// O_PATH: by the time of the mount its name may lead elsewhere.
func checkMountpoint(path string, tell func(string)) (mp string, dir int, err error) {
	for range 16 { // stale mounts may be stacked
		f, fd, err := findOpen(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return "", -1, fmt.Errorf("mount point %s does not exist; create it with mkdir", path)
		case errors.Is(err, os.ErrPermission):
			return "", -1, fmt.Errorf("mount point %s: permission denied", path)
		case err != nil:
			return "", -1, fmt.Errorf("mount point %s cannot be used: %w", path, err)
		}
		dead, err := f.mountable(fd)
		if err != nil {
			unix.Close(fd)
			return "", -1, err
		}
		if !dead {
			return f.path, fd, nil
		}
		h, err := hold(f.mount, fd)
		if err != nil {
			return "", -1, err
		}
		err = h.removeDead()
		h.release()
		switch {
		case errors.Is(err, fusefs.ErrHidden): // somebody else has removed it
			continue
		case err != nil:
			return "", -1, fmt.Errorf("mount point %s is a dead daxfsd mount and could not be cleaned: %w", f.path, err)
		}
		leaveUtab(f.path)
		tell(fmt.Sprintf("removed the dead mount of %s from %s: its daemon had gone without unmounting", h.Source, f.path))
	}
	return "", -1, fmt.Errorf("mount point %s has dead daxfsd mounts, one on top of the other: unmount them first with `daxfsd umount %s`", path, path)
}

// mountable fails for what cannot be mounted on; dead is a daxfsd whose daemon is gone. fd is open
// on what was found.
func (f *found) mountable(fd int) (dead bool, err error) {
	mp, m := f.path, f.mount
	if f.root && strings.HasPrefix(m.FSType, "fuse") {
		gone, err := daemonGone(m, fd)
		switch {
		case m.FSType == fsType && err != nil:
			return false, fmt.Errorf("mount point %s already has the daxfsd of %s mounted: %w", mp, m.Source, err)
		case m.FSType == fsType && !gone:
			return false, fmt.Errorf("mount point %s already has the daxfsd of %s mounted; unmount it first with `daxfsd umount %s`", mp, m.Source, mp)
		case err != nil:
			return false, fmt.Errorf("mount point %s is a %s mount that does not answer; unmount it first", mp, m.FSType)
		case gone && m.FSType != fsType:
			return false, fmt.Errorf("mount point %s is a dead %s mount (Transport endpoint is not connected); unmount it first", mp, m.FSType)
		case gone:
			return true, nil
		}
	}
	if f.mode&unix.S_IFMT != unix.S_IFDIR {
		return false, fmt.Errorf("mount point %s is not a directory", mp)
	}
	if os.Geteuid() != 0 && unix.Access(mp, unix.W_OK) != nil {
		return false, fmt.Errorf("mount point %s is not writable by you, which a mount by a user needs", mp)
	}
	return false, nil
}

// disconnected reports whether an error of a mount says that its daemon is gone, or, which is
// ECONNABORTED or ECANCELED, is just going: the kernel takes an io_uring down a little after its
// owner.
func disconnected(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ECANCELED)
}
