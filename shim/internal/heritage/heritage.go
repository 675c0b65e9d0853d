// Package heritage carries open files across an execve(2): they are named by the
// numbers of their descriptors, which stay what they are.
package heritage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Files are the files that the next program gets.
type Files struct{ fds []int }

// FD is the number of f's descriptor, which the next program gets; 0 where f is
// nil or closed. (No file that is passed on is descriptor 0.)
func (s *Files) FD(f *os.File) int32 {
	fd := 0
	if f == nil {
		return 0
	}
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(n uintptr) { fd = int(n) })
	}
	if fd > 0 {
		s.fds = append(s.fds, fd)
	}
	return int32(fd)
}

// Inherit has the files stay open at the next exec, or, undoing that, not.
func (s *Files) Inherit(yes bool) error {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	var errs []error
	for _, fd := range s.fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			errs = append(errs, fmt.Errorf("pass descriptor %d on: %w", fd, err))
		}
	}
	return errors.Join(errs...)
}

// Heir has the files that the program before passed on.
type Heir struct{ files map[int32]*os.File }

// File is the file of fd, nil of 0, and the same one each time. It waits in Go's
// poller if it did before: not to block is an attribute of the open file (open(2),
// "Open file descriptions").
func (h *Heir) File(fd int32, name string) *os.File {
	if fd == 0 {
		return nil
	}
	f, ok := h.files[fd]
	if !ok {
		if h.files == nil {
			h.files = map[int32]*os.File{}
		}
		f = os.NewFile(uintptr(fd), name)
		h.files[fd] = f
	}
	return f
}
