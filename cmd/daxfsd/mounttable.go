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

// resolveCached is RESOLVE_CACHED of openat2(2): resolve a path without asking any filesystem, or
// fail.
const resolveCached = 0x20

// found is the file that a path leads to.
type found struct {
	path     string          // absolute, without symbolic links
	mount    *mountinfo.Info // that it is on; nil: no mount of this namespace
	root     bool            // it is the root that the mount shows
	mode     uint32          // type and permissions, as the kernel last knew them
	dev, ino uint64          // device number of the filesystem, inode number
	rdev     uint64          // device number of a device node
}

// unreachableError is returned for a path that leads through a filesystem that does not answer.
type unreachableError struct{ path string }

func (e *unreachableError) Error() string {
	return e.path + " cannot be reached: a filesystem on the way to it does not answer"
}

func (e *unreachableError) Is(target error) bool { return target == errSilent }

// find looks up a path without sending a request to the filesystem mounted at its end, whose daemon
// may be gone or stopped. A probe asks the filesystems on the way, unless the kernel's cache has
// the answer.
func find(path string) (*found, error) {
	f, fd, err := findOpen(path)
	if err == nil {
		unix.Close(fd)
	}
	return f, err
}

// findOpen is find, and also returns an O_PATH descriptor.
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

// fileID returns the identity of the region that was found. It is meaningless if f is not a region.
func (f *found) fileID() pmem.FileID {
	if f.mode&unix.S_IFMT == unix.S_IFCHR {
		return pmem.FileID{Dev: f.rdev}
	}
	return pmem.FileID{Dev: f.dev, Ino: f.ino}
}

// region reports whether f can be a region: a file, or a device-dax. The caller must not open
// anything else: the source in the mount table is whatever the mounting program claimed, which may
// be a user's.
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

// daxfsd returns the mount whose mount point was found, or nil if that is not a daxfsd.
func (f *found) daxfsd() *mountinfo.Info {
	if f.root && f.mount.FSType == fsType {
		return f.mount
	}
	return nil
}

// resolve makes a path absolute and resolves symbolic links. If the path leads nowhere, only its
// directory is resolved: the caller's use of the path then reports what is wrong.
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

// mountAt returns the topmost mount at a path, or nil.
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

// stale reports whether a mount's daemon is gone. It does not use a plain stat, which the kernel's
// cache may answer after the daemon's end.
func stale(mountpoint string) bool {
	_, err := probe(probeLimit, "stat", mountpoint)
	return disconnected(err)
}

// silentError is returned for a daemon that does not answer.
type silentError struct {
	mountpoint string
	pid        int // 0: unknown
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
// visibly stopped: a probe that waits for that daemon keeps the mount busy.
func request(m *mountinfo.Info, limit time.Duration, args ...string) ([]byte, error) {
	return requestOn(-1, m, limit, args...)
}

// requestOn is request, and passes a copy of fd to the probe unless fd is -1.
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

// daemonGone reports whether the daemon of a mount is gone, or fails with a silentError. It asks
// through a descriptor on the mount's root, because the mount point may lead to another mount.
func daemonGone(m *mountinfo.Info, root int) (bool, error) {
	_, err := requestOn(root, m, probeLimit, "stat", probeFD)
	if errors.Is(err, errSilent) {
		return false, err
	}
	return disconnected(err), nil
}

// askDaemon asks the daemon behind a mount point for its description.
func askDaemon(mountpoint string, limit time.Duration) (*fusefs.Info, error) {
	var i fusefs.Info
	if err := ask(mountpoint, fusefs.InfoXattr, limit, &i); err != nil {
		return nil, err
	}
	return &i, nil
}

// askActivity asks the daemon behind a mount point what it has done. Its error explains in one
// sentence why there is no answer.
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

// answering fails for a file on a daxfsd, or on another FUSE filesystem, whose daemon does not
// answer: a process that opens such a file cannot be killed.
func answering(name string) error {
	f, fd, err := findOpen(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.answering(fd)
}

// answering does the same for f, of which fd is an O_PATH descriptor.
func (f *found) answering(fd int) error {
	if f.mount == nil || !strings.HasPrefix(f.mount.FSType, "fuse") {
		return nil
	}
	_, err := daemonGone(f.mount, fd)
	return err
}

// ask asks the daemon behind a mount point for an attribute and decodes its JSON value into v. If
// the daemon does not answer within the limit, ask fails with a silentError.
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
		return fmt.Errorf("the daemon's answer cannot be parsed: %w", err)
	}
	return nil
}

// checkMountpoint verifies that path is a directory to mount on. It removes daxfsd mounts whose
// daemon is gone, reports each to tell, and changes nothing else. dir is an O_PATH descriptor of
// the directory, because its name may lead elsewhere when the mount happens.
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
		case errors.Is(err, fusefs.ErrHidden): // another process has removed it
			continue
		case err != nil:
			return "", -1, fmt.Errorf("mount point %s is a dead daxfsd mount and could not be cleaned: %w", f.path, err)
		}
		leaveUtab(f.path)
		tell(fmt.Sprintf("removed the dead mount of %s from %s: its daemon had gone without unmounting", h.Source, f.path))
	}
	return "", -1, fmt.Errorf("mount point %s has dead daxfsd mounts, one on top of the other: unmount them first with `daxfsd umount %s`", path, path)
}

// mountable fails if nothing can be mounted on f. dead is true for a daxfsd whose daemon is gone.
// fd is an O_PATH descriptor of f.
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

// disconnected reports whether an error of a system call on a mount means that the daemon is gone
// or is just ending. The latter is ECONNABORTED or ECANCELED: the kernel dismantles an io_uring a
// little after its owner's end.
func disconnected(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ECANCELED)
}
