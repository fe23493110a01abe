//go:build arm64 && !purego && !race

#include "textflag.h"

// Every function in this file is NOSPLIT and has no frame. So when a load or store faults, the
// runtime finds the return address in the link register, and panics in the caller.

// func ctr() uint64
TEXT ·ctr(SB), NOSPLIT, $0-8
	MRS  CTR_EL0, R0
	MOVD R0, ret+0(FP)
	RET

// func fenceAsm()
TEXT ·fenceAsm(SB), NOSPLIT, $0-0
	DSB $15 // SY
	RET

// func loadBarrierAsm()
TEXT ·loadBarrierAsm(SB), NOSPLIT, $0-0
	DMB $9 // ISHLD
	RET

// func prefetchAsm(p, lines uintptr)
TEXT ·prefetchAsm(SB), NOSPLIT, $0-16
	MOVD p+0(FP), R0
	MOVD lines+8(FP), R1
next:
	PRFM (R0), PLDL1KEEP
	ADD  $64, R0
	SUBS $1, R1
	BNE  next
	RET

// func store8Asm(p *byte, v uint64)
TEXT ·store8Asm(SB), NOSPLIT, $0-16
	MOVD p+0(FP), R0
	MOVD v+8(FP), R1
	MOVD R1, (R0)
	RET

// func copyWordsAsm(dst, src *byte, n uintptr)
TEXT ·copyWordsAsm(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
head:
	CBZ   R2, done
	TST   $7, R0
	BEQ   words
	MOVBU.P 1(R1), R3
	MOVB.P  R3, 1(R0)
	SUB   $1, R2
	B     head
words:
	CMP    $8, R2
	BLO    tail
	MOVD.P 8(R1), R3
	MOVD.P R3, 8(R0)
	SUB    $8, R2
	B      words
tail:
	CBZ   R2, done
	MOVBU.P 1(R1), R3
	MOVB.P  R3, 1(R0)
	SUB   $1, R2
	B     tail
done:
	RET

// func ntCopyLinesAsm(dst, src *byte, n uintptr)
TEXT ·ntCopyLinesAsm(SB), NOSPLIT, $0-24
	MOVD dst+0(FP), R0
	MOVD src+8(FP), R1
	MOVD n+16(FP), R2
	CMP  $64, R2
	BLO  done
line:
	LDP.P 16(R1), (R3, R4)
	LDP.P 16(R1), (R5, R6)
	LDP.P 16(R1), (R7, R8)
	LDP.P 16(R1), (R9, R10)
	WORD  $0xA8001003 // STNP X3, X4, [X0]
	WORD  $0xA8011805 // STNP X5, X6, [X0, #16]
	WORD  $0xA8022007 // STNP X7, X8, [X0, #32]
	WORD  $0xA8032809 // STNP X9, X10, [X0, #48]
	ADD   $64, R0
	SUB   $64, R2
	CMP   $64, R2
	BHS   line
done:
	RET

// func ntZeroLinesAsm(dst *byte, n uintptr)
TEXT ·ntZeroLinesAsm(SB), NOSPLIT, $0-16
	MOVD dst+0(FP), R0
	MOVD n+8(FP), R2
	CMP  $64, R2
	BLO  done
line:
	WORD $0xA8007C1F // STNP XZR, XZR, [X0]
	WORD $0xA8017C1F // STNP XZR, XZR, [X0, #16]
	WORD $0xA8027C1F // STNP XZR, XZR, [X0, #32]
	WORD $0xA8037C1F // STNP XZR, XZR, [X0, #48]
	ADD  $64, R0
	SUB  $64, R2
	CMP  $64, R2
	BHS  line
done:
	RET

// func flushLinesAsm(p *byte, n, step, how uintptr)
TEXT ·flushLinesAsm(SB), NOSPLIT, $0-32
	MOVD p+0(FP), R0
	MOVD n+8(FP), R1
	MOVD step+16(FP), R2
	MOVD how+24(FP), R3
	ADD  R0, R1 // R1 is the end
	CBZ  R3, cvac
cvap:
	CMP R1, R0
	BHS end
	DC  CVAP, R0
	ADD R2, R0
	B   cvap
cvac:
	CMP R1, R0
	BHS end
	DC  CVAC, R0
	ADD R2, R0
	B   cvac
end:
	DSB $15 // SY
	RET
