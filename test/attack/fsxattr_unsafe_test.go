package attack

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// countExtents makes the daemon count a file's extents, by FS_IOC_FSGETXATTR.
func countExtents(f *os.File) error {
	return ioctl(f, 0x801c581f, make([]byte, 28)) // struct fsxattr
}

// ioctl sends arg, which then holds the reply.
func ioctl(f *os.File, cmd uintptr, arg []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), cmd, uintptr(unsafe.Pointer(&arg[0]))); e != 0 {
		return e
	}
	return nil
}
