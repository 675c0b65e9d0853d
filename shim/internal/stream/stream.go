// Package stream reads and opens the descriptors that a container's streams go
// through, with Go's poller, so that an idle container costs neither a thread
// nor a buffer.
package stream

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/gate"
)

const (
	smallBuf = 4 << 10  // what a quiet container's line fits in
	largeBuf = 64 << 10 // the size of a pipe
)

// Buffers between reads; the collector takes them when output stops.
var (
	small = sync.Pool{New: func() any { b := make([]byte, smallBuf); return &b }}
	large = sync.Pool{New: func() any { b := make([]byte, largeBuf); return &b }}
)

func put(p *[]byte) {
	if len(*p) == smallBuf {
		small.Put(p)
	} else {
		large.Put(p)
	}
}

// Sink takes what a stream carries.
type Sink interface {
	// Write takes p, which is the caller's again when it returns.
	Write(p []byte)
	// Drained says that nothing more is there to be read just now.
	Drained()
}

// Copy reads f until its end and hands everything to s, inside g. f must be
// pollable. The end of a terminal whose other side is closed (EIO) is an end too.
// Between reads it holds no buffer.
func Copy(s Sink, f *os.File, g *gate.Gate) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	c := copier{sink: s, gate: g}
	if err = raw.Read(c.ready); err == nil {
		err = c.err
	}
	if err != nil && isClosed(f) {
		return nil
	}
	return err
}

// Await calls try, inside g, whenever f may be readable, until it says that it is
// done. f must be pollable, and try must not wait. When f is closed, the error is
// os.ErrClosed.
func Await(f *os.File, g *gate.Gate, try func(fd int) (done bool)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		g.Enter()
		defer g.Leave()
		return try(int(fd))
	})
	if err != nil && isClosed(f) {
		return os.ErrClosed
	}
	return err
}

// isClosed says whether f is; a RawConn says so in a word of its own, which is
// not os.ErrClosed.
func isClosed(f *os.File) bool {
	_, err := f.Read(nil)
	return errors.Is(err, os.ErrClosed)
}

type copier struct {
	reader
	sink Sink
	gate *gate.Gate

	came  int  // bytes since the stream was last waited for
	asked bool // roomy is known
	roomy bool // its pipe has room for fastPipe bytes
}

// A stream of which more than smallBuf comes at once is fast. To be woken for each
// write(2) of its writer would cost more than what is done with it, so its pipe gets
// room for fastPipe bytes, and what comes within fastPause is read together.
const (
	fastPipe  = 256 << 10
	fastPause = 500 * time.Microsecond
)

// pause lets more of a fast stream come, and says whether it did so.
func (c *copier) pause(fd uintptr) bool {
	fast := c.came > smallBuf
	c.came = 0
	if fast && !c.asked {
		c.asked, c.roomy = true, makeRoom(fd)
	}
	if !fast || !c.roomy {
		return false
	}
	// Not time.Sleep, which waits in the poller, whom each write(2) wakes.
	_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(fastPause)}, nil)
	return true
}

// makeRoom makes a pipe that is smaller hold fastPipe bytes, where its user may have
// so much (pipe(7), pipe-user-pages-soft). What is no pipe has no such room.
func makeRoom(fd uintptr) bool {
	size, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0)
	if err == nil && size < fastPipe {
		_, err = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, fastPipe)
	}
	return err == nil
}

// ready reads what is there; it says whether the stream has ended. Between two reads
// it is outside of the gate, so that output without a pause keeps nobody waiting.
func (c *copier) ready(fd uintptr) bool {
	p := small.Get().(*[]byte)
	defer func() { put(p) }()
	for {
		n, ended := c.once(int(fd), *p)
		switch {
		case n == 0 && !ended && c.pause(fd):
		case n == 0:
			c.gate.Enter()
			defer c.gate.Leave()
			c.sink.Drained()
			return ended
		case n == smallBuf:
			put(p)
			p = large.Get().(*[]byte)
		}
	}
}

func (c *copier) once(fd int, buf []byte) (n int, ended bool) {
	c.gate.Enter()
	defer c.gate.Leave()
	n, ended = c.read(fd, buf)
	if n > 0 {
		c.sink.Write(buf[:n])
	}
	c.came += n
	return n, ended
}

// reader reads from one descriptor that does not block.
type reader struct {
	fed bool // a writer was there once
	err error
}

// read reads once; nothing, and no end, is what there is to read just now. A fifo
// that no writer has opened yet reads as one that has ended does, but poll(2) tells
// the two apart (fs/pipe.c: POLLHUP needs a writer that came and went).
func (r *reader) read(fd int, buf []byte) (n int, ended bool) {
	if !r.fed && !Readable(fd) {
		return 0, false
	}
	err := error(unix.EINTR)
	for err == unix.EINTR {
		n, err = unix.Read(fd, buf)
	}
	switch {
	case err == unix.EAGAIN:
		return 0, false
	case err == unix.EIO:
		return 0, true
	case err != nil:
		r.err = fmt.Errorf("read: %w", err)
		return 0, true
	}
	r.fed = true
	return n, n == 0
}

// Readable says whether a read would not wait: there is something, or the end.
func Readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err != nil || n > 0
		}
	}
}

// OutPipe is a pipe whose read end is ours, and pollable; the container writes.
// Neither end outlives an exec.
func OutPipe() (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return Pollable(fds[0], "pipe"), os.NewFile(uintptr(fds[1]), "pipe"), nil
}

// InPipe is a pipe whose write end is ours, and pollable; the container reads.
func InPipe() (ours, theirs *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return Pollable(fds[1], "pipe"), os.NewFile(uintptr(fds[0]), "pipe"), nil
}

// Pollable makes a file of fd, which it then owns, that waits in Go's poller.
// O_NONBLOCK belongs to this end of a pipe only: the other goes on blocking.
func Pollable(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// Repoll makes f, which it closes, wait in Go's poller, if it does not yet.
func Repoll(f *os.File) (*os.File, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var derr error
	if err := raw.Control(func(old uintptr) { fd, derr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, fmt.Errorf("dup %s: %w", f.Name(), derr)
	}
	return Pollable(fd, f.Name()), nil
}

// Accept hands every client of the listening socket l to welcome, inside g; the
// connections are pollable. After l is closed the error is os.ErrClosed.
func Accept(l *os.File, g *gate.Gate, welcome func(conn *os.File)) error {
	for {
		var conn *os.File
		var aerr error
		err := Await(l, g, func(fd int) bool {
			if conn, aerr = accept(fd); conn != nil {
				welcome(conn)
			}
			return aerr != unix.EAGAIN
		})
		if err = errors.Join(err, aerr); err != nil {
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// AcceptOne waits for one client of the listening socket l.
func AcceptOne(l *os.File) (conn *os.File, err error) {
	var aerr error
	err = Await(l, nil, func(fd int) bool {
		conn, aerr = accept(fd)
		return aerr != unix.EAGAIN
	})
	return conn, errors.Join(err, aerr)
}

func accept(fd int) (*os.File, error) {
	for {
		conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			return os.NewFile(uintptr(conn), "client"), nil
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return nil, err
		}
	}
}
