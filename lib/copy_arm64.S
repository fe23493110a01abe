/* As copy_amd64.S. A function returns by x30, which none of them changes. */
	.text
	.globl	dx_guard_begin, dx_guard_end, dx_guard_fault
	.hidden	dx_guard_begin, dx_guard_end, dx_guard_fault
dx_guard_begin:

	.globl	dx_copy
	.hidden	dx_copy
	.type	dx_copy, %function
	.p2align 4
dx_copy:
	cmp	x2, #16
	b.lo	2f
1:	ldp	x3, x4, [x1], #16
	stp	x3, x4, [x0], #16
	sub	x2, x2, #16
	cmp	x2, #16
	b.hs	1b
2:	cbz	x2, 4f
3:	ldrb	w3, [x1], #1
	strb	w3, [x0], #1
	subs	x2, x2, #1
	b.ne	3b
4:	mov	w0, #0
	ret
	.size	dx_copy, .-dx_copy

	.globl	dx_copy_lines
	.hidden	dx_copy_lines
	.type	dx_copy_lines, %function
	.p2align 4
dx_copy_lines:
	cbz	x2, 2f
1:	ldp	x3, x4, [x1]
	ldp	x5, x6, [x1, #16]
	ldp	x7, x8, [x1, #32]
	ldp	x9, x10, [x1, #48]
	stnp	x3, x4, [x0]
	stnp	x5, x6, [x0, #16]
	stnp	x7, x8, [x0, #32]
	stnp	x9, x10, [x0, #48]
	add	x1, x1, #64
	add	x0, x0, #64
	subs	x2, x2, #64
	b.ne	1b
2:	mov	w0, #0
	ret
	.size	dx_copy_lines, .-dx_copy_lines

	.globl	dx_load2
	.hidden	dx_load2
	.type	dx_load2, %function
	.p2align 4
dx_load2:
	ldar	x2, [x0]
	add	x0, x0, #8
	ldar	x3, [x0]
	stp	x2, x3, [x1]
	mov	w0, #0
	ret
	.size	dx_load2, .-dx_load2

	.macro	flush name, insn:vararg
	.globl	\name
	.hidden	\name
	.type	\name, %function
	.p2align 4
\name:
	cbz	x1, 2f
1:	\insn
	add	x0, x0, #64
	subs	x1, x1, #1
	b.ne	1b
2:	dsb	sy
	mov	w0, #0
	ret
	.size	\name, .-\name
	.endm

	flush	dx_flush_cvac, dc cvac, x0
	flush	dx_flush_cvap, sys #3, c7, c12, #1, x0

dx_guard_end:
dx_guard_fault:
	mov	w0, #-1
	ret

	.section .note.GNU-stack,"",%progbits
