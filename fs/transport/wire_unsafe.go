package transport

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Assertions that the sizes of wire.go are right.
var (
	_ = [1]int{}[unsafe.Sizeof(InHeader{})-inHeaderSize]
	_ = [1]int{}[unsafe.Sizeof(OutHeader{})-outHeaderSize]
	_ = [1]int{}[unsafe.Sizeof(ReadIn{})-readInSize]
	_ = [1]int{}[unsafe.Sizeof(WriteIn{})-writeInSize]
	_ = [1]int{}[unsafe.Sizeof(SetattrIn{})-setattrInSize]
	_ = [1]int{}[unsafe.Sizeof(Rename2In{})-rename2InSize]
	_ = [1]int{}[unsafe.Sizeof(AttrOut{})-attrOutSize]
	_ = [1]int{}[unsafe.Sizeof(EntryOut{})-entryOutSize]
	_ = [1]int{}[unsafe.Sizeof(CreateOut{})-createOutSize]
)

// as returns the structure at the beginning of b, or nil if b is too short or not aligned to 8
// bytes. The structure is valid as long as b.
func as[T any](b []byte) *T {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(len(b)) < unsafe.Sizeof(*new(T)) || uintptr(p)%8 != 0 {
		return nil
	}
	return (*T)(p)
}

// bytesOf returns the memory of a structure.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// nameOf returns b as a string without copying it. The callee must not use the string after it has
// returned.
func nameOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

const pageSize = 4096

// mapMemory maps memory for n bytes of payloads, in huge pages if available, because each request
// is copied between the kernel and this memory. Before Linux 6.7 the mapping may not be aligned to
// huge pages.
func mapMemory(n int) ([]byte, error) {
	const huge = 2 << 20
	mem, err := unix.Mmap(-1, 0, (n+huge-1)&^(huge-1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // an error means that the kernel has no huge pages
	return mem, nil
}

// unmapMemory unmaps memory that mapMemory returned.
func unmapMemory(mem []byte) { _ = unix.Munmap(mem) }

// iovec returns b as an element for writev(2).
func iovec(b []byte) unix.Iovec {
	return unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))}
}

// read is read(2), as a blocking system call that the scheduler knows of.
func read(fd int, b []byte) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), e
}

// rawMax is the longest answer in bytes that is written without notice to the Go scheduler. The
// scheduler and the garbage collector have to wait for such a write.
const rawMax = 64 << 10

// writev is writev(2) with a total of n bytes.
func writev(fd int, iov []unix.Iovec, n int) unix.Errno {
	p, c := uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov))
	if n <= rawMax {
		_, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), p, c)
		return e
	}
	_, _, e := unix.Syscall(unix.SYS_WRITEV, uintptr(fd), p, c)
	return e
}

// clone makes fd, newly opened from /dev/fuse, another descriptor of the connection conn.
func clone(fd, conn int) error {
	const devIocClone = 0x8004e500 // FUSE_DEV_IOC_CLONE
	c := uint32(conn)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), devIocClone, uintptr(unsafe.Pointer(&c))); e != 0 {
		return e
	}
	return nil
}
