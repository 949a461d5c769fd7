//go:build !race

#include "textflag.h"

// func cloneOnStack(args *cloneArgs, size uintptr, m *image) (pid uintptr, errno syscall.Errno)
TEXT ·cloneOnStack(SB),NOSPLIT|NOFRAME,$0-40
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	m+16(FP), R12 // a system call keeps it
	MOVQ	$435, AX // clone3
	SYSCALL
	TESTQ	AX, AX
	JZ	child
	CMPQ	AX, $0xfffffffffffff001
	JCC	failed
	MOVQ	AX, pid+24(FP)
	MOVQ	$0, errno+32(FP)
	RET
failed:
	MOVQ	$0, pid+24(FP)
	NEGQ	AX
	MOVQ	AX, errno+32(FP)
	RET
child:
	// Here SP is the end of the new stack, and nothing of the old frame is left.
	SUBQ	$32, SP
	MOVQ	R12, 0(SP)
	CALL	·childOf(SB)
	INT	$3
