package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// inherited lists the descriptors that this process got from its caller, standard streams left out:
// those that an exec passes on. Go opens none that way.
func inherited() (fds []int) {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range d {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			fds = append(fds, fd)
		}
	}
	return fds
}

// keepFromChildren keeps the caller's descriptors from the processes that we start. Some outlive
// us, and a lock or a pipe of the caller is held as long as anybody has it.
func keepFromChildren() {
	for _, fd := range inherited() {
		unix.CloseOnExec(fd)
	}
}

// closeInherited closes the caller's descriptors. The region may have been named by one of them
// (/dev/fd/N), so its path must have been resolved.
func closeInherited() {
	for _, fd := range inherited() {
		_ = unix.Close(fd)
	}
}
