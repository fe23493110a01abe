package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs/fusefs"
)

const fsType = "fuse." + fusefs.Type

// resolve makes a path absolute and free of symbolic links, without touching what
// is mounted on its last element: that may be a mount whose daemon is gone.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return abs, nil // whoever uses it says what is wrong
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// mountAt is the mount on top at a resolved path, or nil.
func mountAt(path string) (*mountinfo.Info, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != path, false })
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all[len(all)-1], nil
}

// mountsOf lists the daxfs mounts of a region.
func mountsOf(region string) []*mountinfo.Info {
	all, _ := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != fsType || m.Source != region, false
	})
	return all
}

// stale reports whether a mount's daemon is gone. A plain stat would be answered from
// the kernel's cache, which outlives the daemon.
func stale(mountpoint string) bool {
	var st unix.Statx_t
	return disconnected(unix.Statx(unix.AT_FDCWD, mountpoint, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st))
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
	case err != nil:
		return nil, fmt.Errorf("asking the daemon behind %s: %w", mountpoint, err)
	}
	return &a, nil
}

// ask asks the daemon behind a mount point for an attribute whose value is v as JSON. A daemon
// that does not answer within the limit is given up.
func ask(mountpoint, xattr string, limit time.Duration, v any) error {
	type answer struct {
		b   []byte
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		b := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(mountpoint, xattr, b)
		ch <- answer{b[:max(n, 0)], err}
	}()
	select {
	case a := <-ch:
		if a.err != nil {
			return a.err
		}
		if err := json.Unmarshal(a.b, v); err != nil {
			return fmt.Errorf("the daemon's answer is not understood: %w", err)
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("the daemon behind %s does not answer", mountpoint)
	}
}

// checkMountpoint makes sure that path is a directory to mount on. It takes away
// daxfs mounts whose daemon is gone and tells about it; nothing else is touched.
func checkMountpoint(path string, tell func(string)) (string, error) {
	mp, err := resolve(path)
	if err != nil {
		return "", err
	}
	for range 16 { // stale mounts may be stacked
		m, err := mountAt(mp)
		if err != nil {
			return "", err
		}
		if m == nil || !stale(mp) {
			if m != nil && m.FSType == fsType {
				return "", fmt.Errorf("mount point %s already has the daxfs of %s mounted; unmount it first with `daxfsd umount %s`", mp, m.Source, mp)
			}
			break
		}
		if m.FSType != fsType {
			return "", fmt.Errorf("mount point %s is a dead %s mount (Transport endpoint is not connected); unmount it first", mp, m.FSType)
		}
		if err := fusefs.Unmount(mp, fusefs.Lazy); err != nil {
			return "", fmt.Errorf("mount point %s is a dead daxfs mount and could not be cleaned: %w", mp, err)
		}
		tell(fmt.Sprintf("removed the dead mount of %s from %s: its daemon had gone without unmounting", m.Source, mp))
	}
	st, err := os.Stat(mp)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("mount point %s does not exist; create it with mkdir", mp)
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("mount point %s: permission denied", mp)
	case err != nil:
		return "", fmt.Errorf("mount point %s cannot be used: %w", mp, err)
	case !st.IsDir():
		return "", fmt.Errorf("mount point %s is not a directory", mp)
	}
	if os.Geteuid() != 0 && unix.Access(mp, unix.W_OK) != nil {
		return "", fmt.Errorf("mount point %s is not writable by you, which a mount by a user needs", mp)
	}
	return mp, nil
}

// disconnected reports whether an error of a mount says that its daemon is gone, or, which is
// ECONNABORTED or ECANCELED, is just going: the kernel takes an io_uring down a little after its owner.
func disconnected(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ECANCELED)
}
