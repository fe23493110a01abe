package fusefs

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// nameString is b as a string without a copy: for a callee that copies it before
// b changes.
func nameString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// ioctl is ioctl(2) with an argument of the size that cmd says.
func ioctl(fd int, cmd uint, buf []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(buf)))); e != 0 {
		return e
	}
	return nil
}
