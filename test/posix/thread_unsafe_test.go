package posix

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// become changes the real uid of this thread to real, and the other ids to those of w. It changes
// only this thread; the functions of x/sys/unix change all threads.
func become(real int, w who) error {
	groups := make([]uint32, len(w.groups)+1)
	for i, g := range w.groups {
		groups[i] = uint32(g)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(w.groups)), uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(w.gid), uintptr(w.gid), uintptr(w.gid)); e != 0 {
		return e
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(real), uintptr(w.uid), uintptr(w.uid)); e != 0 {
		return e
	}
	return nil
}
