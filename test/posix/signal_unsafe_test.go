package posix

import (
	"os"
	"os/signal"
	"unsafe"

	"golang.org/x/sys/unix"
)

// interruptible makes SIGUSR1 interrupt system calls. Go installs its handlers with SA_RESTART, so
// interruptible removes that flag from the handler that os/signal installed. undo ends Go's
// handling of the signal.
func interruptible() (undo func(), err error) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, unix.SIGUSR1)
	undo = func() { signal.Stop(ch) }
	var act struct { // struct kernel_sigaction
		handler, flags, restorer uintptr
		mask                     uint64
	}
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR1), 0, uintptr(unsafe.Pointer(&act)), 8, 0, 0); e != 0 {
		return undo, e
	}
	const saRestart = 0x10000000
	act.flags &^= saRestart
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGUSR1), uintptr(unsafe.Pointer(&act)), 0, 8, 0, 0); e != 0 {
		return undo, e
	}
	return undo, nil
}
