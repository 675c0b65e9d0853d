// Package criu speaks with CRIU: one program ("criu swrk FD"), one connection,
// one request (criu.org/RPC).
//
//	we                              criu swrk 3
//	 │  request ──────────────────────▶ │
//	 │ ◀── notify: setup-namespaces, pid │  hooks run
//	 │  go on ────────────────────────▶ │
//	 │ ◀── notify: orphan-pts-master, fd │
//	 │  go on ────────────────────────▶ │
//	 │ ◀─────────────────────── response │
//	 │  close ────────────────────────▶ │  it exits
package criu

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
)

// Conn is our end of the connection.
type Conn struct{ fd int }

// Pair makes a connection and the end that CRIU is to have as a descriptor. The
// caller closes both.
func Pair() (c *Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket for criu: %w", err)
	}
	return &Conn{fds[0]}, os.NewFile(uintptr(fds[1]), "criu"), nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Notice is a step that CRIU has come to, and waits at until it is dealt with.
type Notice struct {
	Step string   // in CRIU's words: "setup-namespaces", "post-restore", "orphan-pts-master"
	Pid  int      // of the first process, in CRIU's pid namespace
	File *os.File // the terminal's master with "orphan-pts-master"; the receiver's
}

// Ask sends a request and deals with what CRIU tells meanwhile; an error of tell
// ends it.
func (c *Conn) Ask(kind Kind, o *Options, tell func(Notice) error) error {
	if err := c.send(&request{kind: kind, options: o}); err != nil {
		return err
	}
	for {
		r, file, err := c.receive()
		if err != nil {
			return err
		}
		if r.kind != notification || r.notify == nil {
			return r.err()
		}
		if err := tell(Notice{r.notify.script, int(r.notify.pid), file}); err != nil {
			return errors.Join(err, c.send(&request{kind: notification}))
		}
		if err := c.send(&request{kind: notification, agreed: true}); err != nil {
			return err
		}
	}
}

// Features asks which of want CRIU can do here.
func (c *Conn) Features(want Features) (Features, error) {
	if err := c.send(&request{kind: featureCheck, features: &want}); err != nil {
		return Features{}, err
	}
	r, _, err := c.receive()
	if err == nil {
		err = r.err()
	}
	if err != nil || r.features == nil {
		return Features{}, err
	}
	return *r.features, nil
}

// errRefused says that CRIU could not do it; its log says why.
var errRefused = errors.New("criu failed")

func (r *response) err() error {
	switch {
	case r.success:
		return nil
	case r.message != "":
		return fmt.Errorf("%w: %s", errRefused, r.message)
	case r.errno != 0:
		return fmt.Errorf("%w: %w", errRefused, syscall.Errno(r.errno))
	}
	return errRefused
}

func (c *Conn) send(m wire.Message) error {
	for {
		err := unix.Sendto(c.fd, wire.Marshal(m), unix.MSG_NOSIGNAL, nil)
		if !errors.Is(err, unix.EINTR) {
			return gone("write to criu", err)
		}
	}
}

// mostMessage is longer than any message of CRIU's.
const mostMessage = 64 << 10

// receive waits for one message, and the descriptor that comes with it.
func (c *Conn) receive() (*response, *os.File, error) {
	body, control := make([]byte, mostMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, err := 0, 0, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(c.fd, body, control, unix.MSG_CMSG_CLOEXEC)
	}
	if err == nil && n == 0 {
		err = unix.EPIPE
	}
	if err != nil {
		return nil, nil, gone("read from criu", err)
	}
	file, err := passed(control[:oobn])
	if err != nil {
		return nil, nil, err
	}
	var r response
	if err := wire.Unmarshal(body[:n], &r); err != nil {
		return nil, nil, fmt.Errorf("read from criu: %w", err)
	}
	return &r, file, nil
}

// gone says in words that the other end is closed.
func gone(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
		return fmt.Errorf("%s: it died", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// passed is the descriptor in a control message, nil without one.
func passed(control []byte) (*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("read from criu: %w", err)
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return os.NewFile(uintptr(fds[0]), "/dev/ptmx"), nil
		}
	}
	return nil, nil
}
