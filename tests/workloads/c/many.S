/* 10,001 functions, many_0 to many_10000, of which main calls the first and the last. Any x86 or Arm. */
	.altmacro
	.macro one number
	.type many_\number, %function
many_\number:
	nop
	ret
	.size many_\number, . - many_\number
	.endm

	.text
	.set number, 0
	.rept 10001
	one %number
	.set number, number + 1
	.endr

	.globl calls_first_and_last
	.type calls_first_and_last, %function
calls_first_and_last:
#ifdef __x86_64__
	sub $8, %rsp
	call many_0
	call many_10000
	add $8, %rsp
#else
	stp x29, x30, [sp, -16]!
	bl many_0
	bl many_10000
	ldp x29, x30, [sp], 16
#endif
	ret
	.size calls_first_and_last, . - calls_first_and_last
	.section .note.GNU-stack, "", %progbits
