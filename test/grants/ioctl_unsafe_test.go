package grants

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl sends arg, which then holds the reply.
func ioctl(f *os.File, cmd uintptr, arg []byte) error {
	for {
		_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), cmd, uintptr(unsafe.Pointer(&arg[0])))
		switch e {
		case 0:
			return nil
		case unix.EINTR: // a signal of Go's scheduler
			continue
		}
		return e
	}
}
