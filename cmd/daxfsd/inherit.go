package main

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// inherited lists the descriptors that this process got from its caller, without the standard
// streams: those that an exec passes on. Go opens no such descriptors.
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

// keepFromChildren keeps the caller's descriptors from the processes that this one starts. Some
// outlive this process, and would keep a lock or a pipe of the caller open.
func keepFromChildren() {
	for _, fd := range inherited() {
		unix.CloseOnExec(fd)
	}
}

// closeInherited closes the caller's descriptors. The region's path must have been resolved,
// because it may name one of them (/dev/fd/N).
func closeInherited() {
	for _, fd := range inherited() {
		_ = unix.Close(fd)
	}
}
