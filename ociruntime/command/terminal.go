package command

import (
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// terminal joins the container's terminal to the one that we run in. A nil
// terminal is a process without one.
type terminal struct {
	master *os.File
	stdin  *os.File
	saved  *term.State // nil when stdin is no terminal
	copied chan error  // has the end of the output
}

// drive starts to drive the terminal with this master, nil for none.
func (s *session) drive(master *os.File) (*terminal, error) {
	if master == nil {
		return nil, nil
	}
	t := &terminal{master: master, stdin: s.stdin, copied: make(chan error, 1)}
	if fd := int(s.stdin.Fd()); term.IsTerminal(fd) {
		saved, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("make the terminal raw: %w", err)
		}
		t.saved = saved
		t.resize()
	}
	go io.Copy(master, s.stdin) // ends with the program: a read of stdin cannot be called off
	go func() {
		_, err := io.Copy(s.stdout, master)
		t.copied <- err
	}()
	return t, nil
}

// fit makes the terminal of a process that we drive as large as ours, if nothing
// else is said, before the process can ask.
func (s *session) fit(p *specs.Process) {
	if p == nil || !p.Terminal || p.ConsoleSize != nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(s.stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		p.ConsoleSize = &specs.Box{Height: uint(size.Row), Width: uint(size.Col)}
	}
}

// resize gives the container's terminal the size of ours.
func (t *terminal) resize() {
	if t == nil || t.saved == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(int(t.stdin.Fd()), unix.TIOCGWINSZ); err == nil {
		unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, size)
	}
}

// drain waits for the last output. The process that had the terminal as its
// controlling one is gone, so the kernel has hung it up: the read ends with EIO.
func (t *terminal) drain() {
	if t == nil {
		return
	}
	<-t.copied
}

// restore gives our terminal back as it was.
func (t *terminal) restore() {
	if t == nil {
		return
	}
	if t.saved != nil {
		term.Restore(int(t.stdin.Fd()), t.saved)
	}
	t.master.Close()
}
