package pmem

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// The portable twins of the assembly functions. They are what runs on other
// architectures, with the build tag purego, and under the race detector, which
// cannot see into assembly. They write nothing back: where they run, power-loss
// durability on DAX is not promised.

// portableStore8 stores 8 bytes at p, a multiple of 8, at once, little-endian.
func portableStore8(p []byte, v uint64) {
	_ = p[7]
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&p[0])), binary.NativeEndian.Uint64(b[:]))
}

// portableCopyWords stores src at dst in ascending order: bytes up to the first
// multiple of 8 in dst, then words of 8, then bytes. Each word is one store, also
// under the race detector, which splits what encoding/binary stores.
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

// portableFence orders this processor's memory accesses. The variable is its own:
// a shared one would order goroutines in the race detector's eyes.
func portableFence() {
	var x uint32
	atomic.AddUint32(&x, 1)
}

// touch loads one byte in each 4 KiB of b, and its last. What it loads does not
// matter, so another goroutine may be storing there; it is returned, uninlined, so
// that the compiler must load it.
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
