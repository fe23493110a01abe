package layout

import (
	"hash/crc32"
	"unsafe"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C of b, continued from seed.
func Checksum(seed uint32, b []byte) uint32 { return crc32.Update(seed, castagnoli, unleaked(b)) }

// unleaked is b, of which the compiler does not see that crc32 gets it: through a variable, so
// that everything checked would be allocated. crc32 keeps nothing.
func unleaked(b []byte) []byte {
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), len(b))
}
