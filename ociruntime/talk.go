package ociruntime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// talk is what a parent and its child say to each other:
//
//	child                                  parent
//	  │  status: {statusForked, pid}          │  where the plan forks
//	  │  status: {statusTree, fd} ──────────▶ │  maps the ids of a mount
//	  │ ◀─────────────────────── start: byte  │
//	  │  status: {statusNamespaces, 0} ─────▶ │  runs hooks
//	  │ ◀─────────────────────── start: byte  │
//	  │  status: {statusListener, fd} ──────▶ │  where the seccomp filter notifies
//	  │  status: {statusReady, 0} ──────────▶ │  create returns
//	  │ ◀─────────────────────── start: byte  │  start, of any process
//	  │  execve closes status ──────────────▶ │  start returns
//	  │  status: {step, errno} ─────────────▶ │  or: this step failed, the child is gone
//
// For a container's first process these are fifos that every process can open,
// and which the child holds open in both directions; for an exec they are pipes.
type talk struct {
	status  *os.File // what the child reports
	start   *os.File // what it waits for
	console int      // where its terminal comes from, or -1
	theirs  map[string]int
}

func newTalk() *talk { return &talk{console: -1, theirs: map[string]int{}} }

// talkByFifos opens the fifos in dir.
func talkByFifos(dir string, terminal bool) (t *talk, err error) {
	t = newTalk()
	defer t.closeUnless(&err)
	for _, end := range []struct {
		name, file string
		ours       **os.File
		flags      int
	}{
		{"status fifo", statusFifo, &t.status, unix.O_RDONLY},
		{"start fifo", startFifo, &t.start, unix.O_RDWR},
	} {
		name := filepath.Join(dir, end.file)
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return t, fmt.Errorf("open %s: %w", name, err)
		}
		t.theirs[end.name] = fd
		if *end.ours, err = openFifo(name, end.flags); err != nil {
			return t, err
		}
	}
	return t, t.openConsole(terminal)
}

// talkByPipes makes pipes.
func talkByPipes(terminal bool) (t *talk, err error) {
	t = newTalk()
	defer t.closeUnless(&err)
	var status, start [2]int
	if err := unix.Pipe2(status[:], unix.O_CLOEXEC); err != nil {
		return t, fmt.Errorf("make a pipe: %w", err)
	}
	t.status, t.theirs["status fifo"] = os.NewFile(uintptr(status[0]), "status"), status[1]
	if err := unix.Pipe2(start[:], unix.O_CLOEXEC); err != nil {
		return t, fmt.Errorf("make a pipe: %w", err)
	}
	t.theirs["start fifo"], t.start = start[0], os.NewFile(uintptr(start[1]), "start")
	return t, t.openConsole(terminal)
}

// openFifo opens a fifo without waiting for its other end.
func openFifo(name string, flags int) (*os.File, error) {
	fd, err := unix.Open(name, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (t *talk) openConsole(terminal bool) error {
	if !terminal {
		return nil
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket for the terminal: %w", err)
	}
	t.console, t.theirs["console socket"] = pair[0], pair[1]
	return nil
}

// launched closes the child's ends: the child has them now.
func (t *talk) launched() {
	for _, fd := range t.theirs {
		unix.Close(fd)
	}
	clear(t.theirs)
}

func (t *talk) close() {
	t.launched()
	for _, f := range []*os.File{t.status, t.start} {
		if f != nil {
			f.Close()
		}
	}
	if t.console >= 0 {
		unix.Close(t.console)
	}
}

func (t *talk) closeUnless(err *error) {
	if *err != nil {
		t.close()
	}
}

// goOn lets the child go on.
func (t *talk) goOn() error {
	if _, err := t.start.Write([]byte{0}); err != nil {
		return fmt.Errorf("let the child go on: %w", err)
	}
	return nil
}

// cancelWith makes waits for the child end with ctx; stop undoes that.
func (t *talk) cancelWith(ctx context.Context) (stop func()) {
	undo := context.AfterFunc(ctx, func() { t.status.SetReadDeadline(time.Unix(1, 0)) })
	return func() { undo() }
}

// terminal is the master that the child sent before it was ready, nil without.
func (t *talk) terminal() (*os.File, error) {
	if t.console < 0 {
		return nil, nil
	}
	var body [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(t.console, body[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, fmt.Errorf("receive the terminal: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive the terminal: %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive the terminal: %d descriptors: %w", len(fds), err)
	}
	return os.NewFile(uintptr(fds[0]), "/dev/ptmx"), nil
}

// readReport is one message of the child: a word of compile.go and its value,
// or the address of a step that failed and the errno. io.EOF says that the child
// closed its end: it executed its program, or died.
func readReport(r io.Reader) (word, value uint64, err error) {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:]), nil
}

// errSilent says that the child closed its status before it was due to.
var errSilent = errors.New("the child died on its way, without a word (killed from outside, or for want of memory)")

// await waits until the child says word. A step that failed is returned as a
// *StepError. Where the plan forks, the new process may be faster with its word
// than the old one with the new one's id.
func (c *child) await(status io.Reader, word uint64) error {
	var failed error
	listener := -1
	for said := false; !said || c.forks; {
		got, value, err := readReport(status)
		switch {
		case failed != nil && err != nil:
			return failed // it never forked
		case errors.Is(err, io.EOF):
			return errSilent
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("wait for the child: %w", context.Canceled)
		case err != nil:
			return fmt.Errorf("read the child's status: %w", err)
		case got >= dataBase:
			failed, said = c.plan.failure(got, syscall.Errno(value)), true
		case got == statusForked:
			if err := c.follow(int(value)); err != nil {
				return err
			}
		case got == statusTree:
			if err := c.mapTree(int(value)); err != nil {
				return err
			}
		case got == statusListener:
			listener = int(value)
		case got == word:
			said = true
		default:
			return fmt.Errorf("the child says %d where %d was due", got, word)
		}
	}
	if failed == nil && listener >= 0 {
		return c.heard(listener)
	}
	return failed
}

// awaitProgram waits until the child has executed its program. All that can fail
// now is execve.
func awaitProgram(status io.Reader) error {
	_, value, err := readReport(status)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("wait for the program: %w", context.Canceled)
	case err != nil:
		return fmt.Errorf("read the child's status: %w", err)
	}
	return &StepError{Name: execute, Call: "execve", Errno: syscall.Errno(value)}
}
