package hugepage

import "unsafe"

// address is where a slice is.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
