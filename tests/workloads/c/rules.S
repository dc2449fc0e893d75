# Functions whose unwind rules are unusual and right. Each calls the function whose address is its argument.
	.text

# CFA by a register that is neither the stack nor the frame pointer: rbx holds the stack pointer of the entry.
	.globl cfa_by_rbx
	.type cfa_by_rbx, @function
cfa_by_rbx:
	.cfi_startproc
	push %rbx
	.cfi_def_cfa_offset 16
	.cfi_offset %rbx, -16
	lea 16(%rsp), %rbx
	.cfi_def_cfa %rbx, 0
	sub $4096, %rsp
	and $-64, %rsp
	call *%rdi
	lea -16(%rbx), %rsp
	.cfi_def_cfa %rsp, 16
	pop %rbx
	.cfi_def_cfa_offset 8
	.cfi_restore %rbx
	ret
	.cfi_endproc
	.size cfa_by_rbx, . - cfa_by_rbx

# CFA by an expression, CFA = *(rsp + 40) + 16, as OpenSSL's assembler has it.
	.globl cfa_by_expression
	.type cfa_by_expression, @function
cfa_by_expression:
	.cfi_startproc
	mov %rsp, %rax
	.cfi_def_cfa_register %rax
	push %r12
	.cfi_offset %r12, -16
	sub $128, %rsp
	and $-64, %rsp
	lea -8(%rax), %rax
	.cfi_def_cfa %rax, 16
	mov %rax, 40(%rsp)
	# DW_CFA_def_cfa_expression, 5 bytes: DW_OP_breg7 (rsp) 40; DW_OP_deref; DW_OP_plus_uconst 16
	.cfi_escape 0x0f, 0x05, 0x77, 0x28, 0x06, 0x23, 0x10
	call *%rdi
	mov 40(%rsp), %rax
	.cfi_def_cfa %rax, 16
	mov (%rax), %r12
	.cfi_restore %r12
	lea 8(%rax), %rsp
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size cfa_by_expression, . - cfa_by_expression

# The caller's frame pointer saved where only an expression says: at rsp + 24. rbp itself is filled with rubbish.
	.globl rbp_by_expression
	.type rbp_by_expression, @function
rbp_by_expression:
	.cfi_startproc
	sub $56, %rsp
	.cfi_def_cfa_offset 64
	mov %rbp, 24(%rsp)
	# DW_CFA_expression rbp (6), 2 bytes: DW_OP_breg7 (rsp) 24
	.cfi_escape 0x10, 0x06, 0x02, 0x77, 0x18
	xor %ebp, %ebp
	call *%rdi
	mov 24(%rsp), %rbp
	.cfi_same_value %rbp
	add $56, %rsp
	.cfi_def_cfa_offset 8
	ret
	.cfi_endproc
	.size rbp_by_expression, . - rbp_by_expression

# The caller's frame pointer in another register (r13), and rules remembered and restored around a second way out.
	.globl rbp_in_register
	.type rbp_in_register, @function
rbp_in_register:
	.cfi_startproc
	push %r13
	.cfi_def_cfa_offset 16
	.cfi_offset %r13, -16
	mov %rbp, %r13
	.cfi_register %rbp, %r13
	xor %ebp, %ebp
	.cfi_remember_state
	test %rdi, %rdi
	jnz 1f
	mov %r13, %rbp
	.cfi_same_value %rbp
	pop %r13
	.cfi_def_cfa_offset 8
	.cfi_restore %r13
	ret
1:
	.cfi_restore_state
	call *%rdi
	mov %r13, %rbp
	.cfi_same_value %rbp
	pop %r13
	.cfi_def_cfa_offset 8
	.cfi_restore %r13
	ret
	.cfi_endproc
	.size rbp_in_register, . - rbp_in_register

	.section .note.GNU-stack, "", @progbits
