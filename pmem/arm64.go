//go:build arm64 && !purego && !race

package pmem

import "golang.org/x/sys/cpu"

// The arm64 instructions are tested under emulation only, never on hardware.
//
// A clean is complete only after a DSB of the processor that issued it. A goroutine may run on
// another processor by the time it calls Fence. So every function here that cleans ends with its
// own DSB.

// cleanHow selects what flushLinesAsm does. 1 cleans to the point of persistence. 0 cleans to the
// point of coherency, which is durable only on platforms that promise it.
var cleanHow = detectClean()

// cleanStep is the distance of two cleans in bytes: the smallest data cache line of any level, but
// at most 64.
var cleanStep = min(uintptr(lineSize), uintptr(4)<<(ctr()>>16&15))

func detectClean() uintptr {
	if cpu.ARM64.HasDCPOP {
		return 1
	}
	return 0
}

// flushName returns the name of the clean instruction, for messages and tests.
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
		flushLines(dst[:len(src)]) // STNP is only a hint: the lines may be in a cache
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

func prefetch(p, lines uintptr) { prefetchAsm(p, lines) }

// loadBarrier orders loads before it before loads after it. Go's atomic load, a LDAR, orders only
// what comes after.
func loadBarrier() { loadBarrierAsm() }

// In arm64.s. All are frameless leaves, so that a fault in them unwinds to the guard.

// store8Asm stores 8 bytes at p, a multiple of 8, with one store.
//
//go:noescape
func store8Asm(p *byte, v uint64)

// copyWordsAsm stores n bytes in ascending order: single bytes up to the first multiple of 8 in
// dst, then words of 8 bytes, then single bytes. The architecture may make them visible in another
// order.
//
//go:noescape
func copyWordsAsm(dst, src *byte, n uintptr)

// ntCopyLinesAsm stores n bytes with STNP. dst and n are multiples of 64.
//
//go:noescape
func ntCopyLinesAsm(dst, src *byte, n uintptr)

// ntZeroLinesAsm is ntCopyLinesAsm of n zeros.
//
//go:noescape
func ntZeroLinesAsm(dst *byte, n uintptr)

// flushLinesAsm cleans n bytes, a line every step bytes, as how selects, and waits until the cleans
// are complete. p and n are multiples of 64.
//
//go:noescape
func flushLinesAsm(p *byte, n, step, how uintptr)

func fenceAsm()

func loadBarrierAsm()

// prefetchAsm begins loading lines of 64 bytes from address p on, at least one. It never faults.
func prefetchAsm(p, lines uintptr)

// ctr returns the cache type register, CTR_EL0.
func ctr() uint64
