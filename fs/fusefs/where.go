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

// ErrCovered is returned by Server.Unmount while other filesystems are mounted on the mount or below
// it. They are not ours to take away.
var ErrCovered = errors.New("other filesystems are mounted on it")

// place identifies one mount in the mount table of this namespace, wherever it has been moved to. The
// kernel uses the number of a mount again once that is gone, so the device belongs to it.
type place struct {
	id, major, minor int
}

// MountOf returns the mount that a descriptor lies on, or nil if this namespace does not have it.
// The descriptor may be open by O_PATH; no request is sent to a filesystem.
func MountOf(fd int) (*mountinfo.Info, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return nil, err
	}
	_, s, _ := strings.Cut(string(b), "mnt_id:")
	s, _, _ = strings.Cut(s, "\n")
	id, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return nil, fmt.Errorf("/proc/self/fdinfo/%d names no mount: %w", fd, err)
	}
	return findMount(func(m *mountinfo.Info) bool { return m.ID == id })
}

// MountsOfDevice lists the mounts of one filesystem in this namespace: m itself, bind mounts, moved ones.
func MountsOfDevice(major, minor int) ([]*mountinfo.Info, error) {
	return mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Major != major || m.Minor != minor, false
	})
}

// findMount returns the last mount in the table that is wanted, or nil.
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

// unmount unmounts this mount, wherever it is now, and never another one. A mount that has left the tree
// is no error.
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
	return Unmount(m.Mountpoint, mode)
}

// Uncovered fails with ErrCovered if other filesystems are mounted on a mount or below it. Detached, it would
// take them along.
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

// Abort ends the connection of the filesystem with that device number: every request on it fails from
// now on, and its daemon ends. The file of fusectl belongs to the user who mounted.
func Abort(minor int) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), []byte("1"), 0)
}

// lookHelper finds fusermount3: also without a PATH, which mount(8) gives to nobody.
func lookHelper() (string, error) {
	for _, dir := range append(strings.Split(os.Getenv("PATH"), ":"), "/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin") {
		if bin := dir + "/" + helper; strings.HasPrefix(bin, "/") && unix.Access(bin, unix.X_OK) == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("there is no %s", helper)
}
