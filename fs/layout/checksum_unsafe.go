package layout

import (
	"hash/crc32"
	"unsafe"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum returns the CRC-32C of b, continued from seed.
func Checksum(seed uint32, b []byte) uint32 { return crc32.Update(seed, castagnoli, unleaked(b)) }

// unleaked returns b, hidden from escape analysis. crc32 calls its implementation through a
// variable, so the compiler would otherwise allocate every checked line on the heap. This is safe
// because crc32 does not keep b.
func unleaked(b []byte) []byte {
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), len(b))
}
