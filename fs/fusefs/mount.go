package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// Errors of Attach and Unmount. They are wrapped in one sentence.
var (
	// ErrNoFUSE means that the kernel has no FUSE, or has not loaded it.
	ErrNoFUSE = errors.New("there is no /dev/fuse")
	// ErrBusy means that the mount is in use.
	ErrBusy = errors.New("the mount is in use")
)

// helper is the setuid program that mounts for users other than root.
const helper = "fusermount3"

// open mounts on o.Mountpoint and returns the descriptor of the connection.
func (o *Options) open() (fd int, err error) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return -1, fmt.Errorf("%w: load the module with `modprobe fuse`, or give the container the device", ErrNoFUSE)
	}
	if os.Geteuid() == 0 {
		return o.openDirect()
	}
	return o.openHelper()
}

// flagOptions are the mount options that mount(2) takes as flags: the flags to set and to clear.
var flagOptions = map[string]struct{ set, clear uintptr }{
	"ro": {unix.MS_RDONLY, 0}, "rw": {0, unix.MS_RDONLY},
	"nosuid": {unix.MS_NOSUID, 0}, "suid": {0, unix.MS_NOSUID},
	"nodev": {unix.MS_NODEV, 0}, "dev": {0, unix.MS_NODEV},
	"noexec": {unix.MS_NOEXEC, 0}, "exec": {0, unix.MS_NOEXEC},
	"sync": {unix.MS_SYNCHRONOUS, 0}, "async": {0, unix.MS_SYNCHRONOUS},
	"dirsync":     {unix.MS_DIRSYNC, 0},
	"nosymfollow": {unix.MS_NOSYMFOLLOW, 0}, "symfollow": {0, unix.MS_NOSYMFOLLOW},
	"noatime": {unix.MS_NOATIME, unix.MS_STRICTATIME}, "strictatime": {unix.MS_STRICTATIME, unix.MS_NOATIME},
	"nodiratime": {unix.MS_NODIRATIME, 0},
}

// FlagOption returns the flags of mount(2) that an option sets and clears; ok is false if the
// option is not in flagOptions.
func FlagOption(word string) (set, clear uintptr, ok bool) {
	f, ok := flagOptions[word]
	return f.set, f.clear, ok
}

// openDirect does what fusermount3 does, with the caller's own privilege. It mounts on the
// directory that Dir is open on, even if its name has changed.
func (o *Options) openDirect() (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(o.Dir, &st); err != nil {
		return -1, fmt.Errorf("mount point %s: %w", o.Mountpoint, err)
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return -1, fmt.Errorf("%w that answers: load the module with `modprobe fuse`", ErrNoFUSE)
		}
		return -1, fmt.Errorf("cannot open /dev/fuse: %w", err)
	}
	var flags uintptr
	data := []string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", st.Mode&unix.S_IFMT),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		fmt.Sprintf("max_read=%d", transport.MaxIO),
	}
	for _, opt := range o.Kernel {
		if f, ok := flagOptions[opt]; ok {
			flags = flags&^f.clear | f.set
		} else {
			data = append(data, opt)
		}
	}
	if err := unix.Mount(o.Source, fdPath(o.Dir), "fuse."+Type, flags, strings.Join(data, ",")); err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EPERM) {
			return -1, fmt.Errorf("mounting on %s is not permitted: it needs CAP_SYS_ADMIN", o.Mountpoint)
		}
		return -1, fmt.Errorf("mounting on %s: %w", o.Mountpoint, err)
	}
	return fd, nil
}

// openHelper runs fusermount3, which sends the descriptor through a socket.
func (o *Options) openHelper() (int, error) {
	bin, err := lookHelper()
	if err != nil {
		return -1, fmt.Errorf("mounting as a user needs %s: install the package fuse3, or mount as root", helper)
	}
	if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil { // the helper opens it with the caller's rights
		return -1, errors.New("no permission to open /dev/fuse: root can give it to all users with `chmod 666 /dev/fuse`, or mount as root")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(pair[0])
	remote := os.NewFile(uintptr(pair[1]), "fusermount socket")
	opts := []string{"fsname=" + escape(o.Source), "subtype=" + Type, fmt.Sprintf("max_read=%d", transport.MaxIO)}
	for _, opt := range o.Kernel {
		if opt != "rw" && opt != "strictatime" { // names that the helper does not know
			opts = append(opts, opt)
		}
	}
	var text bytes.Buffer
	cmd := exec.Command(bin, "-o", strings.Join(opts, ","), "--", o.Mountpoint)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{remote}
	cmd.Stderr = &text
	err = cmd.Run()
	remote.Close()
	if err != nil {
		return -1, helperError("mounting on "+o.Mountpoint, text.String(), err)
	}
	return receiveFD(pair[0])
}

// receiveFD receives the connection's descriptor from the helper.
func receiveFD(sock int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, make([]byte, 16), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%s: receiving the connection: %w", helper, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("%s sent no connection", helper)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%s sent no connection", helper)
	}
	return fds[0], nil
}

// escape escapes the separators of mount options.
func escape(s string) string { return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s) }

// helperError returns an error of one sentence, with what the helper printed.
func helperError(doing, text string, err error) error {
	text = strings.TrimSpace(text)
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimPrefix(text, helper+": ")
	if strings.Contains(strings.ToLower(text), "busy") {
		return fmt.Errorf("%s: %w", doing, ErrBusy)
	}
	if text == "" {
		return fmt.Errorf("%s: %s: %w", doing, helper, err)
	}
	return fmt.Errorf("%s: %s: %s", doing, helper, text)
}

// UnmountMode is how an unmount treats a mount in use.
type UnmountMode int

const (
	// Plain fails with ErrBusy while the mount is in use.
	Plain UnmountMode = iota
	// Lazy detaches the mount at once; it ends when its last user does.
	Lazy
	// Force aborts pending requests, and fails with ErrBusy if the mount is still in use.
	Force
	// ForceLazy aborts pending requests, and detaches the mount at once. For root only.
	ForceLazy
)

// flags returns the MNT_* flags of umount2(2).
func (m UnmountMode) flags() int {
	switch m {
	case Lazy:
		return unix.MNT_DETACH
	case Force:
		return unix.MNT_FORCE
	case ForceLazy:
		return unix.MNT_FORCE | unix.MNT_DETACH
	}
	return 0
}

// Unmount unmounts mountpoint: by umount2(2) as root, by fusermount3 otherwise.
func Unmount(mountpoint string, mode UnmountMode) error {
	doing := "unmounting " + mountpoint
	if os.Geteuid() == 0 {
		switch err := unix.Unmount(mountpoint, unix.UMOUNT_NOFOLLOW|mode.flags()); {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EBUSY):
			return fmt.Errorf("%s: %w", doing, ErrBusy)
		default:
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	bin, err := lookHelper()
	if err != nil {
		return fmt.Errorf("%s as a user needs %s: install the package fuse3", doing, helper)
	}
	args := []string{"-u", "--", mountpoint}
	if mode == Lazy {
		args = append([]string{"-z"}, args...)
	}
	var text bytes.Buffer
	cmd := exec.Command(bin, args...)
	cmd.Stderr = &text
	if err := cmd.Run(); err != nil {
		return helperError(doing, text.String(), err)
	}
	return nil
}
