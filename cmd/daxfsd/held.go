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

// heldMount is a mount that is kept from being replaced by another mount with the same numbers,
// between the time when it is examined and the time when it is changed. The descriptor that does so
// also keeps it busy.
type heldMount struct {
	*mountinfo.Info
	id uint64 // fusefs.MountID
	fd int    // O_PATH descriptor of its root; -1: released
}

// hold holds a mount by a descriptor on its root, and becomes the owner of the descriptor.
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

// again holds a released mount again. It fails with fusefs.ErrHidden if another mount is there by
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

// unmount unmounts this mount and no other, and releases it. A probe makes the call: umount2(2) may
// wait until the daemon has taken what is in the kernel's page cache, and a daemon that answers may
// take its time. The process that drops the last reference to a detached mount waits, and cannot be
// killed, until the daemon has given back what its ring holds (fuse_wait_aborted). So the probe
// must drop it, not this process.
func (h *heldMount) unmount(mode fusefs.UnmountMode) error {
	mp := h.Mountpoint
	if mode == fusefs.Plain || os.Geteuid() != 0 {
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
			return nil // removed from the tree; the daemon may finish later
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

// removeDead removes a mount whose daemon is gone.
func (h *heldMount) removeDead() error {
	if err := fusefs.Uncovered(h.Info); err != nil {
		return err
	}
	return h.unmount(fusefs.Lazy)
}
