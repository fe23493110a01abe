//go:build amd64 && !purego && !race

#include "textflag.h"

// Every function in this file is NOSPLIT and has no frame. So when a load or store faults, the
// runtime finds the return address on top of the stack, and panics in the caller.

// func cpuid7() (ebx uint32)
TEXT ·cpuid7(SB), NOSPLIT, $0-4
	XORL AX, AX
	XORL CX, CX
	CPUID
	CMPL AX, $7
	JB   none
	MOVL $7, AX
	XORL CX, CX
	CPUID
	MOVL BX, ebx+0(FP)
	RET
none:
	MOVL $0, ebx+0(FP)
	RET

// func fenceAsm()
TEXT ·fenceAsm(SB), NOSPLIT, $0-0
	SFENCE
	RET

// func store8Asm(p *byte, v uint64)
TEXT ·store8Asm(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), DI
	MOVQ v+8(FP), AX
	MOVQ AX, (DI)
	RET

// func copyWordsAsm(dst, src *byte, n uintptr)
TEXT ·copyWordsAsm(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
head:
	TESTQ CX, CX
	JZ    done
	TESTQ $7, DI
	JZ    lines
	MOVB  (SI), AX
	MOVB  AX, (DI)
	INCQ  SI
	INCQ  DI
	DECQ  CX
	JMP   head
lines:
	CMPQ CX, $64
	JB   words
	MOVQ 0(SI), R8
	MOVQ 8(SI), R9
	MOVQ 16(SI), R10
	MOVQ 24(SI), R11
	MOVQ R8, 0(DI)
	MOVQ R9, 8(DI)
	MOVQ R10, 16(DI)
	MOVQ R11, 24(DI)
	MOVQ 32(SI), R8
	MOVQ 40(SI), R9
	MOVQ 48(SI), R10
	MOVQ 56(SI), R11
	MOVQ R8, 32(DI)
	MOVQ R9, 40(DI)
	MOVQ R10, 48(DI)
	MOVQ R11, 56(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	SUBQ $64, CX
	JMP  lines
words:
	CMPQ CX, $8
	JB   tail
	MOVQ (SI), AX
	MOVQ AX, (DI)
	ADDQ $8, SI
	ADDQ $8, DI
	SUBQ $8, CX
	JMP  words
tail:
	TESTQ CX, CX
	JZ    done
	MOVB  (SI), AX
	MOVB  AX, (DI)
	INCQ  SI
	INCQ  DI
	DECQ  CX
	JMP   tail
done:
	RET

// func ntCopyLinesAsm(dst, src *byte, n uintptr)
TEXT ·ntCopyLinesAsm(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ n+16(FP), CX
	CMPQ CX, $64
	JB   done
line:
	MOVOU  0(SI), X0
	MOVOU  16(SI), X1
	MOVOU  32(SI), X2
	MOVOU  48(SI), X3
	MOVNTO X0, 0(DI)
	MOVNTO X1, 16(DI)
	MOVNTO X2, 32(DI)
	MOVNTO X3, 48(DI)
	ADDQ   $64, SI
	ADDQ   $64, DI
	SUBQ   $64, CX
	CMPQ   CX, $64
	JAE    line
done:
	RET

// func ntZeroLinesAsm(dst *byte, n uintptr)
TEXT ·ntZeroLinesAsm(SB), NOSPLIT, $0-16
	MOVQ dst+0(FP), DI
	MOVQ n+8(FP), CX
	PXOR X0, X0
	CMPQ CX, $64
	JB   done
line:
	MOVNTO X0, 0(DI)
	MOVNTO X0, 16(DI)
	MOVNTO X0, 32(DI)
	MOVNTO X0, 48(DI)
	ADDQ   $64, DI
	SUBQ   $64, CX
	CMPQ   CX, $64
	JAE    line
done:
	RET

// func flushLinesAsm(p *byte, n uintptr, how uintptr)
TEXT ·flushLinesAsm(SB), NOSPLIT, $0-24
	MOVQ p+0(FP), DI
	MOVQ n+8(FP), CX
	MOVQ how+16(FP), DX
	ADDQ DI, CX // CX is the end
	MOVQ DX, AX
	ANDQ $3, AX
	CMPQ AX, $1
	JB   flush
	JE   flushopt
clwb:
	CMPQ DI, CX
	JAE  end
	CLWB (DI)
	ADDQ $64, DI
	JMP  clwb
flushopt:
	CMPQ DI, CX
	JAE  end
	CLFLUSHOPT (DI)
	ADDQ $64, DI
	JMP  flushopt
flush:
	CMPQ DI, CX
	JAE  end
	CLFLUSH (DI)
	ADDQ $64, DI
	JMP  flush
end:
	TESTQ $4, DX
	JZ    done
	SFENCE
done:
	RET

// func prefetchAsm(p, lines uintptr)
TEXT ·prefetchAsm(SB), NOSPLIT, $0-16
	MOVQ p+0(FP), AX
	MOVQ lines+8(FP), CX
next:
	PREFETCHT0 (AX)
	ADDQ $64, AX
	DECQ CX
	JNZ  next
	RET
