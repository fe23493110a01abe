package pmem

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// The portable twins of the assembly functions. They run on other architectures, with the build tag
// purego, and under the race detector, which cannot see into assembly. They write nothing back:
// builds with them do not promise durability after a power loss on DAX.

// portableStore8 stores 8 bytes at p, a multiple of 8, with one store, little-endian.
func portableStore8(p []byte, v uint64) {
	_ = p[7]
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&p[0])), binary.NativeEndian.Uint64(b[:]))
}

// portableCopyWords stores src at dst in ascending order: single bytes up to the first multiple of
// 8 in dst, then words of 8 bytes, then single bytes. Each word is one store, also under the race
// detector, which splits the stores of encoding/binary.
func portableCopyWords(dst, src []byte) {
	for len(src) > 0 && uintptr(unsafe.Pointer(&dst[0]))&7 != 0 {
		dst[0] = src[0]
		dst, src = dst[1:], src[1:]
	}
	for len(src) >= 8 {
		_ = dst[7]
		*(*uint64)(unsafe.Pointer(&dst[0])) = binary.NativeEndian.Uint64(src)
		dst, src = dst[8:], src[8:]
	}
	for len(src) > 0 {
		dst[0] = src[0]
		dst, src = dst[1:], src[1:]
	}
}

// portableNTCopyLines copies whole lines.
func portableNTCopyLines(dst, src []byte) { copy(dst[:len(src)], src) }

// portableNTZeroLines zeroes whole lines.
func portableNTZeroLines(dst []byte) { clear(dst) }

// portableFlushLines cannot write back, but faults where a flush would.
func portableFlushLines(b []byte) { touch(b) }

// portableFence orders this processor's memory accesses. The variable is local: a shared one would
// order goroutines in the race detector's view.
func portableFence() {
	var x uint32
	atomic.AddUint32(&x, 1)
}

// touch loads one byte in each 4 KiB of b, and its last byte. The values do not matter, so another
// goroutine may be storing there. touch returns them, and is not inlined, so that the compiler must
// load them.
//
//go:norace
//go:noinline
func touch(b []byte) (x byte) {
	for i := 0; i < len(b); i += pageSize {
		x |= b[i]
	}
	if n := len(b); n > 0 {
		x |= b[n-1]
	}
	return x
}
