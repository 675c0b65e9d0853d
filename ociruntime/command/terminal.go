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
	if err := plainOutput(master); err != nil {
		return nil, err
	}
	t := &terminal{master: master, stdin: s.stdin, copied: make(chan error, 1)}
	if fd := int(s.stdin.Fd()); term.IsTerminal(fd) {
		saved, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("make the terminal raw: %w", err)
		}
		t.saved = saved
		if err := changeOutput(fd, func(flags uint32) uint32 { return flags | unix.OPOST }); err != nil {
			t.restore()
			return nil, err
		}
		t.resize()
	}
	go io.Copy(master, s.stdin) // ends with the program: a read of stdin cannot be called off
	go func() {
		_, err := io.Copy(s.stdout, master)
		t.copied <- err
	}()
	return t, nil
}

// plainOutput leaves it to our own terminal to begin lines at the left: where our
// output is a file or a pipe, lines end as the program ends them.
func plainOutput(master *os.File) error {
	return changeOutput(int(master.Fd()), func(flags uint32) uint32 { return flags &^ unix.ONLCR })
}

// changeOutput changes what a terminal makes of output (termios(3), c_oflag).
func changeOutput(fd int, change func(flags uint32) uint32) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		t.Oflag = change(t.Oflag)
		err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	if err != nil {
		return fmt.Errorf("set up the terminal: %w", err)
	}
	return nil
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
