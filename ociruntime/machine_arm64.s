#include "textflag.h"

// The loop over the table: machine.go has the layout.
// R19 is the step, R20 its mask of registers.
TEXT ·machine(SB), NOSPLIT|NOFRAME, $0-0
	MOVD $0x500040, R19

next:
	MOVD 56(R19), R20
	MOVD 8(R19), R0
	TBZ  $0, R20, 2(PC)
	MOVD (R0), R0
	MOVD 16(R19), R1
	TBZ  $1, R20, 2(PC)
	MOVD (R1), R1
	MOVD 24(R19), R2
	TBZ  $2, R20, 2(PC)
	MOVD (R2), R2
	MOVD 32(R19), R3
	TBZ  $3, R20, 2(PC)
	MOVD (R3), R3
	MOVD 40(R19), R4
	TBZ  $4, R20, 2(PC)
	MOVD (R4), R4
	MOVD 48(R19), R5
	TBZ  $5, R20, 2(PC)
	MOVD (R5), R5
	MOVD 0(R19), R8
	CMP  $-1, R8
	BEQ  done
	SVC
	MOVD 96(R19), R21
	CMP  R21, R0
	BLT  failed

done:
	MOVD 64(R19), R21
	MOVD R0, (R21)
	MOVD 72(R19), R19
	B    next

failed:
	NEG  R0, R0
	CMP  $63, R0
	BHI  report
	MOVD 88(R19), R21
	LSR  R0, R21, R21
	TBZ  $0, R21, report
	MOVD 80(R19), R19
	B    next

report:
	MOVD $0x500000, R21
	MOVD R19, 8(R21)
	MOVD R0, 16(R21)
	MOVD 0(R21), R0
	ADD  $8, R21, R1
	MOVD $16, R2
	MOVD $64, R8       // write
	SVC
	MOVD $1, R0
	MOVD $94, R8       // exit_group
	SVC
	UNDEF

	// A signal that ends the child: its handler, endedSize long.
	ADD  $0x80, R0, R0
	MOVD $94, R8       // exit_group
	SVC
	UNDEF
	WORD $0x746e6167   // the marker
	WORD $0x00007972

// func machineAddr() uintptr
TEXT ·machineAddr(SB), NOSPLIT, $0-8
	MOVD $·machine(SB), R0
	MOVD R0, ret+0(FP)
	RET
