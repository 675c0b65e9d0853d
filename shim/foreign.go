package shim

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/stream"
)

// loggerTimeout is how long a logger program may take until it is ready.
const loggerTimeout = 10 * time.Second

// openForeign starts a logger program for the process (containerd runtime v2
// README, "Logging"): stdout and stderr are its descriptors 3 and 4, and it
// closes 5 when it is ready. The program outlives us; we keep the pipes' read
// ends open so that a logger that dies does not kill the container.
func (s *streams) openForeign(u uris, o owner) error {
	l, err := url.Parse(u.stdout)
	if err != nil {
		return fmt.Errorf("parse logger URI: %w", err)
	}
	if u.stdin != "" && !u.terminal {
		if s.ends.in, s.stdin, err = openStdin(u.stdin); err != nil {
			return err
		}
		setBlocking(s.ends.in)
	}
	var fds [2][2]int
	for i := range fds {
		if err := unix.Pipe2(fds[i][:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("make pipe: %w", err)
		}
		s.ours = append(s.ours, os.NewFile(uintptr(fds[i][0]), "pipe"))
	}
	if u.terminal {
		s.logger = stream.Pollable(fds[0][1], "logger")
		s.ours = append(s.ours, s.logger)
		unix.Close(fds[1][1])
	} else {
		s.ends.out = os.NewFile(uintptr(fds[0][1]), "pipe")
		s.ends.err = os.NewFile(uintptr(fds[1][1]), "pipe")
	}
	ready, theirs, err := stream.OutPipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	o.reaper.hold()
	defer o.reaper.release()
	p, err := os.StartProcess(l.Path, loggerArgs(l), &os.ProcAttr{
		Env:   append(environ(), "CONTAINER_ID="+o.id, "CONTAINER_NAMESPACE="+o.namespace),
		Files: []*os.File{nil, nil, nil, s.ours[0], s.ours[1], theirs},
		Sys:   nil,
	})
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start logger: %w", err)
	}
	o.reaper.watch(p.Pid, func(exit) {})
	if err := p.Release(); err != nil {
		return fmt.Errorf("start logger: %w", err)
	}
	ready.SetReadDeadline(time.Now().Add(loggerTimeout))
	var b [1]byte
	if _, err := ready.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("start logger %s: it is not ready after %v", l.Path, loggerTimeout)
	}
	return nil
}

// loggerArgs are the words of the URI's query: key, value, key, value.
func loggerArgs(l *url.URL) []string {
	args := []string{l.Path}
	for k, vs := range l.Query() {
		args = append(args, k)
		if len(vs) > 0 {
			args = append(args, vs[0])
		}
	}
	return args
}
