package e2e

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fsXattr is struct fsxattr of linux/fs.h.
type fsXattr struct {
	Xflags, Extsize, Nextents, Projid, Cowextsize uint32
	_                                             [8]byte
}

func getFSXattr(fd int) (x fsXattr, err error) {
	return x, ioctl(fd, 0x801c581f, unsafe.Pointer(&x)) // FS_IOC_FSGETXATTR
}

func setFSXattr(fd int, x fsXattr) error {
	return ioctl(fd, 0x401c5820, unsafe.Pointer(&x)) // FS_IOC_FSSETXATTR
}

func ioctl(fd int, cmd uintptr, p unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cmd, uintptr(p)); e != 0 {
		return e
	}
	return nil
}
