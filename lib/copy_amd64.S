/*
 * Copies that survive a fault. Between dx_guard_begin and dx_guard_end every instruction may fault:
 * the handler (guard.c) then goes on at dx_guard_fault, and the function returns -1. No function
 * here uses the stack between these labels, so that the return address is where rsp points.
 */
	.text
	.globl	dx_guard_begin, dx_guard_end, dx_guard_fault
	.hidden	dx_guard_begin, dx_guard_end, dx_guard_fault
dx_guard_begin:

/* int dx_copy(void *dst, const void *src, size_t n): memcpy(3). */
	.globl	dx_copy
	.hidden	dx_copy
	.type	dx_copy, @function
	.p2align 4
dx_copy:
	movq	%rdx, %rcx
	rep movsb
	xorl	%eax, %eax
	ret
	.size	dx_copy, .-dx_copy

/*
 * int dx_copy_lines(void *dst, const void *src, size_t n): copies n bytes, a multiple of 64, to dst,
 * which is too, past the caches. Durable after sfence.
 */
	.globl	dx_copy_lines
	.hidden	dx_copy_lines
	.type	dx_copy_lines, @function
	.p2align 4
dx_copy_lines:
	testq	%rdx, %rdx
	jz	2f
1:	movdqu	0(%rsi), %xmm0
	movdqu	16(%rsi), %xmm1
	movdqu	32(%rsi), %xmm2
	movdqu	48(%rsi), %xmm3
	movntdq	%xmm0, 0(%rdi)
	movntdq	%xmm1, 16(%rdi)
	movntdq	%xmm2, 32(%rdi)
	movntdq	%xmm3, 48(%rdi)
	addq	$64, %rsi
	addq	$64, %rdi
	subq	$64, %rdx
	jnz	1b
2:	xorl	%eax, %eax
	ret
	.size	dx_copy_lines, .-dx_copy_lines

/* int dx_load2(const void *src, uint64_t v[2]): loads two adjacent numbers, the first one first. */
	.globl	dx_load2
	.hidden	dx_load2
	.type	dx_load2, @function
	.p2align 4
dx_load2:
	movq	0(%rdi), %rax
	movq	8(%rdi), %rdx
	movq	%rax, 0(%rsi)
	movq	%rdx, 8(%rsi)
	xorl	%eax, %eax
	ret
	.size	dx_load2, .-dx_load2

/* int dx_flush_*(const void *p, size_t n): writes back the lines from p on, n times 64 bytes. */
	.macro	flush name, insn:vararg
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.p2align 4
\name:
	testq	%rsi, %rsi
	jz	2f
1:	\insn	(%rdi)
	addq	$64, %rdi
	decq	%rsi
	jnz	1b
2:	xorl	%eax, %eax
	ret
	.size	\name, .-\name
	.endm

	flush	dx_flush_clwb, clwb
	flush	dx_flush_clflushopt, clflushopt
	flush	dx_flush_clflush, clflush

dx_guard_end:
dx_guard_fault:
	movl	$-1, %eax
	ret

	.section .note.GNU-stack,"",@progbits
