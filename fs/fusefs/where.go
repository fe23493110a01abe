package fusefs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// ErrCovered is returned by Server.Unmount while other filesystems are mounted on the mount or
// below it. The daemon must not unmount them.
var ErrCovered = errors.New("other filesystems are mounted on it")

// ErrHidden is returned when a mount's mount point leads to another mount. That was mounted over it
// or over a directory above, or has replaced it. The daemon must not unmount it.
var ErrHidden = errors.New("its mount point leads to another mount")

// place identifies a mount in the mount table of this namespace, even after a move. The kernel
// reuses the number of a mount that is gone, so the device number is a part of the identity.
type place struct {
	id, major, minor int
}

// MountOf returns the mount that contains fd's file, or nil if this namespace does not have the
// mount. fd may be open with O_PATH; no request is sent to a filesystem.
func MountOf(fd int) (*mountinfo.Info, error) {
	id, err := tableID(fd)
	if err != nil {
		return nil, err
	}
	return findMount(func(m *mountinfo.Info) bool { return m.ID == id })
}

// tableID returns the mount table's number of the mount that contains fd's file.
func tableID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	_, s, _ := strings.Cut(string(b), "mnt_id:")
	s, _, _ = strings.Cut(s, "\n")
	id, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0, fmt.Errorf("/proc/self/fdinfo/%d names no mount: %w", fd, err)
	}
	return id, nil
}

// MountID returns a number that identifies the mount that contains fd's file. From Linux 6.8 on it
// is never reused; before, it is not reused while a descriptor keeps the mount. No request is sent
// to a filesystem.
func MountID(fd int) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID_UNIQUE, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		return st.Mnt_id, nil
	}
	id, err := tableID(fd)
	return uint64(id), err
}

// MountsOfDevice returns the mounts of one filesystem in this namespace, including bind mounts and
// moved ones.
func MountsOfDevice(major, minor int) ([]*mountinfo.Info, error) {
	return mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Major != major || m.Minor != minor, false
	})
}

// findMount returns the last mount in the mount table that wanted accepts, or nil.
func findMount(wanted func(*mountinfo.Info) bool) (*mountinfo.Info, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !wanted(m), false })
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all[len(all)-1], nil
}

// unmoved fails if the directory to mount on is no longer at the path Mountpoint.
func (o *Options) unmoved() error {
	switch at, err := os.Readlink(fdPath(o.Dir)); {
	case err != nil:
		return fmt.Errorf("mount point %s: %w", o.Mountpoint, err)
	case at != o.Mountpoint:
		return fmt.Errorf("mount point %s was moved to %s while the mount began: mount again", o.Mountpoint, at)
	}
	return nil
}

// takeBack unmounts what open has just mounted but place has not found. umount2(2) on Dir, the
// directory below the new mount, finds the mount on top of it.
func (o *Options) takeBack() {
	if os.Geteuid() == 0 {
		_ = unix.Unmount(fdPath(o.Dir), unix.MNT_DETACH)
		return
	}
	_ = Unmount(o.Mountpoint, Lazy)
}

// place finds the mount that open has just made.
func (o *Options) place() (place, error) {
	m, err := findMount(func(m *mountinfo.Info) bool {
		return m.Mountpoint == o.Mountpoint && m.FSType == "fuse."+Type && m.Source == o.Source
	})
	if err != nil {
		return place{}, err
	}
	if m == nil {
		return place{}, fmt.Errorf("the new mount on %s is not in the mount table", o.Mountpoint)
	}
	return place{m.ID, m.Major, m.Minor}, nil
}

// unmount unmounts this mount, wherever it is now, and never another one. It succeeds if the mount
// is no longer in the tree.
func (p place) unmount(mode UnmountMode) error {
	m, err := findMount(func(m *mountinfo.Info) bool {
		return m.ID == p.id && m.Major == p.major && m.Minor == p.minor
	})
	if err != nil || m == nil {
		return err
	}
	if err := Uncovered(m); err != nil {
		return err
	}
	return unmountIf(m.Mountpoint, mode, func(fd int) (bool, error) {
		id, err := tableID(fd)
		return id == p.id, err
	})
}

// UnmountID unmounts the mount at mountpoint if its MountID is id, and otherwise fails with
// ErrHidden.
func UnmountID(mountpoint string, id uint64, mode UnmountMode) error {
	return unmountIf(mountpoint, mode, func(fd int) (bool, error) {
		at, err := MountID(fd)
		return at == id, err
	})
}

// unmountIf unmounts the mount at mountpoint if wanted accepts it, and otherwise fails with
// ErrHidden. A lazy or forced lazy unmount by root applies to exactly the mount that was checked.
// Other unmounts must close the descriptor first, since it keeps the mount busy; they resolve the
// path again at once.
func unmountIf(mountpoint string, mode UnmountMode, wanted func(fd int) (bool, error)) error {
	fd, err := unix.Open(mountpoint, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	hidden := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
	if err == nil {
		defer func() {
			if fd >= 0 {
				_ = unix.Close(fd)
			}
		}()
		var ok bool
		ok, err = wanted(fd)
		hidden = err == nil && !ok
	}
	if err == nil && !hidden && mode.flags()&unix.MNT_DETACH != 0 && os.Geteuid() == 0 {
		err = unix.Unmount(fdPath(fd), mode.flags())
		hidden = errors.Is(err, unix.EINVAL) // detached by another process
		if err == nil {
			return nil
		}
	}
	switch {
	case hidden:
		return fmt.Errorf("unmounting %s: %w", mountpoint, ErrHidden)
	case err != nil:
		return fmt.Errorf("unmounting %s: %w", mountpoint, err)
	}
	_ = unix.Close(fd)
	fd = -1
	return Unmount(mountpoint, mode)
}

// fdPath returns a path to the file that fd is open on, whatever the file's name is now.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// Uncovered fails with ErrCovered if other filesystems are mounted on m or below it. Detaching m
// would take them along.
func Uncovered(m *mountinfo.Info) error {
	on, err := mountinfo.GetMounts(func(c *mountinfo.Info) (skip, stop bool) { return c.Parent != m.ID, false })
	if err != nil {
		return fmt.Errorf("reading the mount table: %w", err)
	}
	if len(on) == 0 {
		return nil
	}
	var names []string
	for _, c := range on {
		names = append(names, fmt.Sprintf("%s (%s)", c.Mountpoint, c.FSType))
	}
	return fmt.Errorf("unmounting %s: %w: %s", m.Mountpoint, ErrCovered, strings.Join(names, ", "))
}

// Abort ends the connection of the filesystem with the device number minor: every later request on
// it fails, and its daemon ends. The file in fusectl belongs to the user that mounted.
func Abort(minor int) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), []byte("1"), 0)
}

// lookHelper finds fusermount3, even without a PATH, as under mount(8).
func lookHelper() (string, error) {
	for _, dir := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin") {
		if bin := dir + "/" + helper; strings.HasPrefix(bin, "/") && unix.Access(bin, unix.X_OK) == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("there is no %s", helper)
}
