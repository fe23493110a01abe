package fusefs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
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

// The kernel's structures as go-fuse calls them.
func attrOut(o *transport.AttrOut) *fuse.AttrOut    { return (*fuse.AttrOut)(unsafe.Pointer(o)) }
func entryOut(o *transport.EntryOut) *fuse.EntryOut { return (*fuse.EntryOut)(unsafe.Pointer(o)) }

var (
	_ = [1]int{}[unsafe.Sizeof(fuse.AttrOut{})-unsafe.Sizeof(transport.AttrOut{})]
	_ = [1]int{}[unsafe.Sizeof(fuse.EntryOut{})-unsafe.Sizeof(transport.EntryOut{})]
)

// bytesOf is the memory of a structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
