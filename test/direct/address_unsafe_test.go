package direct

import "unsafe"

// address returns where b is.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }
