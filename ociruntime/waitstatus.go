package ociruntime

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitStatus is what wait4(2) would have said for a siginfo of SIGCHLD.
func waitStatus(info *unix.Siginfo) syscall.WaitStatus {
	// si_signo, si_errno, si_code, padding, then pid, uid, status (sigaction(2)).
	type child struct {
		signo, errno, code, _ int32
		pid                   int32
		uid                   uint32
		status                int32
	}
	const exited, dumped = 1, 3
	c := (*child)(unsafe.Pointer(info))
	switch c.code {
	case exited:
		return syscall.WaitStatus(c.status << 8)
	case dumped:
		return syscall.WaitStatus(c.status | 0x80)
	}
	return syscall.WaitStatus(c.status)
}
