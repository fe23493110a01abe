//go:build amd64 && !purego && !race

package pmem

// flushHow selects the best write-back instruction of this processor. howFence may be added to it.
var flushHow = detectFlush(cpuid7())

const (
	howCLFLUSH    = 0 // writes back and evicts, in program order
	howCLFLUSHOPT = 1 // writes back and evicts
	howCLWB       = 2 // writes back and keeps the line
	howFence      = 4 // bit: SFENCE afterwards
)

// detectFlush selects by register EBX of CPUID leaf 7.
func detectFlush(ebx uint32) uintptr {
	switch {
	case ebx&(1<<24) != 0:
		return howCLWB
	case ebx&(1<<23) != 0:
		return howCLFLUSHOPT
	}
	return howCLFLUSH
}

// flushName returns the name of the write-back instruction, for messages and tests.
func flushName() string {
	return [...]string{"clflush", "clflushopt", "clwb"}[flushHow]
}

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
	}
}

func ntZeroLines(dst []byte) {
	if len(dst) > 0 {
		ntZeroLinesAsm(&dst[0], uintptr(len(dst)))
	}
}

func flushLines(b []byte) {
	if len(b) > 0 {
		flushLinesAsm(&b[0], uintptr(len(b)), flushHow)
	}
}

func flushLinesFence(b []byte) {
	if len(b) > 0 {
		flushLinesAsm(&b[0], uintptr(len(b)), flushHow|howFence)
	}
}

func fence() { fenceAsm() }

func prefetch(p, lines uintptr) { prefetchAsm(p, lines) }

// loadBarrier orders loads before it before loads after it. The processor does so for all loads of
// ordinary memory; the compiler does, since the load after it is atomic.
func loadBarrier() {}

// In amd64.s. All are frameless leaves, so that a fault in them unwinds to the guard.

// store8Asm stores 8 bytes at p, a multiple of 8, with one store.
//
//go:noescape
func store8Asm(p *byte, v uint64)

// copyWordsAsm stores n bytes in ascending order: single bytes up to the first multiple of 8 in
// dst, then words of 8 bytes, then single bytes.
//
//go:noescape
func copyWordsAsm(dst, src *byte, n uintptr)

// ntCopyLinesAsm stores n bytes past the caches. dst and n are multiples of 64.
//
//go:noescape
func ntCopyLinesAsm(dst, src *byte, n uintptr)

// ntZeroLinesAsm is ntCopyLinesAsm of n zeros.
//
//go:noescape
func ntZeroLinesAsm(dst *byte, n uintptr)

// flushLinesAsm writes back n bytes, as how selects. p and n are multiples of 64.
//
//go:noescape
func flushLinesAsm(p *byte, n uintptr, how uintptr)

func fenceAsm()

// prefetchAsm begins loading lines of 64 bytes from address p on, at least one. It never faults.
func prefetchAsm(p, lines uintptr)

// cpuid7 returns EBX of CPUID leaf 7, subleaf 0; 0 on a processor without that leaf.
func cpuid7() (ebx uint32)
