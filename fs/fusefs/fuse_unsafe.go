package fusefs

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
)

// nameString returns b as a string without copying it. The callee must copy the string before b
// changes.
func nameString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// ioctl is ioctl(2). buf must have the size that cmd encodes.
func ioctl(fd int, cmd uint, buf []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(unsafe.SliceData(buf)))); e != 0 {
		return e
	}
	return nil
}

// attrOut and entryOut return the kernel's structures under go-fuse's types.
func attrOut(o *transport.AttrOut) *fuse.AttrOut    { return (*fuse.AttrOut)(unsafe.Pointer(o)) }
func entryOut(o *transport.EntryOut) *fuse.EntryOut { return (*fuse.EntryOut)(unsafe.Pointer(o)) }

var (
	_ = [1]int{}[unsafe.Sizeof(fuse.AttrOut{})-unsafe.Sizeof(transport.AttrOut{})]
	_ = [1]int{}[unsafe.Sizeof(fuse.EntryOut{})-unsafe.Sizeof(transport.EntryOut{})]
)

// bytesOf returns the memory of a structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
