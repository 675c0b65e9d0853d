#include "textflag.h"

// The loop over the table: machine.go has the layout.
// R12 is the step, R13 its mask of registers.
TEXT ·machine(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ $0x500040, R12

next:
	MOVQ 56(R12), R13
	MOVQ 8(R12), DI
	BTQ  $0, R13
	JCC  2(PC)
	MOVQ (DI), DI
	MOVQ 16(R12), SI
	BTQ  $1, R13
	JCC  2(PC)
	MOVQ (SI), SI
	MOVQ 24(R12), DX
	BTQ  $2, R13
	JCC  2(PC)
	MOVQ (DX), DX
	MOVQ 32(R12), R10
	BTQ  $3, R13
	JCC  2(PC)
	MOVQ (R10), R10
	MOVQ 40(R12), R8
	BTQ  $4, R13
	JCC  2(PC)
	MOVQ (R8), R8
	MOVQ 48(R12), R9
	BTQ  $5, R13
	JCC  2(PC)
	MOVQ (R9), R9
	MOVQ 0(R12), AX
	CMPQ AX, $-1
	JEQ  move
	SYSCALL
	CMPQ AX, 96(R12)
	JLT  failed

done:
	MOVQ 64(R12), BX
	MOVQ AX, (BX)
	MOVQ 72(R12), R12
	JMP  next

move:
	MOVQ DI, AX
	JMP  done

failed:
	NEGQ AX
	CMPQ AX, $63
	JHI  report
	MOVQ 88(R12), BX
	BTQ  AX, BX
	JCC  report
	MOVQ 80(R12), R12
	JMP  next

report:
	MOVQ $0x500000, BX
	MOVQ R12, 8(BX)
	MOVQ AX, 16(BX)
	MOVQ 0(BX), DI
	LEAQ 8(BX), SI
	MOVQ $16, DX
	MOVQ $1, AX        // write
	SYSCALL
	MOVQ $1, DI
	MOVQ $231, AX      // exit_group
	SYSCALL
	UNDEF

	// A signal that ends the child: its handler, endedSize long.
	ADDQ $0x80, DI
	MOVQ $231, AX      // exit_group
	SYSCALL
	UNDEF
	QUAD $0x00007972746e6167 // the marker

// func machineAddr() uintptr
TEXT ·machineAddr(SB), NOSPLIT, $0-8
	LEAQ ·machine(SB), AX
	MOVQ AX, ret+0(FP)
	RET
