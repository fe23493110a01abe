//go:build arm64 && !purego && !race

package pmem

import "golang.org/x/sys/cpu"

// The arm64 instructions are tested under emulation only, never on hardware.
//
// A clean is complete only after a DSB of the processor that issued it, and
// a goroutine may have moved to another one by the time Fence runs. So every
// function here that cleans ends with its own DSB.

// cleanHow is what flushLinesAsm does: 1 cleans to the point of persistence, 0 to
// the point of coherency, which is durable only on platforms that say so.
var cleanHow = detectClean()

// cleanStep is the distance of two cleans in bytes: the smallest data cache line of
// any level, at most 64.
var cleanStep = min(uintptr(lineSize), uintptr(4)<<(ctr()>>16&15))

func detectClean() uintptr {
	if cpu.ARM64.HasDCPOP {
		return 1
	}
	return 0
}

// flushName is for messages and tests.
func flushName() string { return [...]string{"dc cvac", "dc cvap"}[cleanHow] }

func store8(p []byte, v uint64) { _ = p[7]; store8Asm(&p[0], v) }

func copyWords(dst, src []byte) {
	if len(src) > 0 {
		_ = dst[len(src)-1]
		copyWordsAsm(&dst[0], &src[0], uintptr(len(src)))
	}
}

func ntCopyLines(dst, src []byte) {
	if len(src) > 0 {
		_ = dst[len(src)-1]
		ntCopyLinesAsm(&dst[0], &src[0], uintptr(len(src)))
		flushLines(dst[:len(src)]) // STNP is a hint: the line may well be in a cache
	}
}

func ntZeroLines(dst []byte) {
	if len(dst) > 0 {
		ntZeroLinesAsm(&dst[0], uintptr(len(dst)))
		flushLines(dst)
	}
}

func flushLines(b []byte) {
	if len(b) > 0 {
		flushLinesAsm(&b[0], uintptr(len(b)), cleanStep, cleanHow)
	}
}

func flushLinesFence(b []byte) { flushLines(b) }

func fence() { fenceAsm() }

// In arm64.s. All are frameless leaves, so that a fault in them unwinds to the guard.

// store8Asm stores 8 bytes at p, a multiple of 8, at once.
//
//go:noescape
func store8Asm(p *byte, v uint64)

// copyWordsAsm stores n bytes in ascending order: bytes up to the first multiple of
// 8 in dst, then words of 8, then bytes. The architecture may make them visible
// in another order.
//
//go:noescape
func copyWordsAsm(dst, src *byte, n uintptr)

// ntCopyLinesAsm stores n bytes with STNP. dst and n are multiples of 64.
//
//go:noescape
func ntCopyLinesAsm(dst, src *byte, n uintptr)

// ntZeroLinesAsm is ntCopyLinesAsm of zeros.
//
//go:noescape
func ntZeroLinesAsm(dst *byte, n uintptr)

// flushLinesAsm cleans n bytes, one line each step bytes, and waits for it. p and n
// are multiples of 64.
//
//go:noescape
func flushLinesAsm(p *byte, n, step, how uintptr)

func fenceAsm()

// ctr is the cache type register.
func ctr() uint64
