package direct

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl sends a command with its argument, which holds the reply afterwards.
func ioctl(f *os.File, cmd uint, arg []byte) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var e unix.Errno
	err = c.Control(func(fd uintptr) {
		for {
			_, _, e = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
			if e != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if e != 0 {
		return e
	}
	return nil
}
