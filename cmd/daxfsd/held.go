package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// heldMount is a mount that a descriptor keeps from making way for another one with the same
// numbers, between the time when it is looked at and the time when something is done with it. It is
// busy meanwhile.
//
// States: held -> released (release) -> held (again).
type heldMount struct {
	*mountinfo.Info
	id uint64 // fusefs.MountID
	fd int    // of its root, open by O_PATH; -1: released
}

// hold holds a mount by a descriptor on its root, which it takes over.
func hold(m *mountinfo.Info, fd int) (*heldMount, error) {
	id, err := fusefs.MountID(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &heldMount{m, id, fd}, nil
}

func (h *heldMount) release() {
	if h.fd >= 0 {
		unix.Close(h.fd)
	}
	h.fd = -1
}

// again holds a mount that was released, or fails with fusefs.ErrHidden if another one is there by
// now.
func (h *heldMount) again() error {
	_, fd, err := findOpen(h.Mountpoint)
	if err != nil {
		return err
	}
	n, err := hold(h.Info, fd)
	if err != nil {
		return err
	}
	if n.id != h.id {
		n.release()
		return fmt.Errorf("%s: %w", h.Mountpoint, fusefs.ErrHidden)
	}
	h.fd = n.fd
	return nil
}

// gone reports whether the mount's daemon is gone, or fails with a silentError.
func (h *heldMount) gone() (bool, error) { return daemonGone(h.Info, h.fd) }

// unmount unmounts this mount and no other, and releases it. A probe does so: umount2(2) may wait
// for a daemon to take what is in the kernel's page cache, and while the daemon answers it may take
// its time. Whoever drops the last reference to a detached mount waits, and cannot be killed, until
// the daemon has given back what its ring holds (fuse_wait_aborted): so that is the probe, not this
// process.
func (h *heldMount) unmount(mode fusefs.UnmountMode) error {
	mp := h.Mountpoint
	if mode != fusefs.Lazy || os.Geteuid() != 0 {
		h.release()
	}
	if os.Geteuid() != 0 {
		return fusefs.UnmountID(mp, h.id, mode)
	}
	p, err := startProbe(h.fd, "umount", mp, strconv.Itoa(int(mode)), strconv.FormatUint(h.id, 10))
	h.release()
	if err == nil {
		p.last = true
		_, err = p.answer(unmountLimit)
	}
	switch {
	case errors.Is(err, errSilent):
		if m, merr := mountAt(mp); merr == nil && (m == nil || m.FSType != fsType) {
			return nil // out of the tree; the daemon's share may come later
		}
		return fmt.Errorf("unmounting %s: the kernel is not done after %v", mp, unmountLimit)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("unmounting %s: %w", mp, fusefs.ErrBusy)
	case errors.Is(err, unix.ESTALE):
		return fmt.Errorf("unmounting %s: %w", mp, fusefs.ErrHidden)
	case err != nil:
		return fmt.Errorf("unmounting %s: %w", mp, err)
	}
	return nil
}

// removeDead takes a mount away whose daemon is gone.
func (h *heldMount) removeDead() error {
	if err := fusefs.Uncovered(h.Info); err != nil {
		return err
	}
	return h.unmount(fusefs.Lazy)
}
