package hugepage

import "unsafe"

// address returns the address of a slice's first byte.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
