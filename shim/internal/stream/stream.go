// Package stream reads and opens the descriptors that a container's streams go
// through, with Go's poller, so that an idle container costs neither a thread
// nor a buffer.
package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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

// Copy reads f until its end and hands everything to s. f must be pollable. The
// end of a terminal whose other side is closed (EIO) is an end too. Between
// reads it holds no buffer.
func Copy(s Sink, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	c := copier{sink: s}
	err = raw.Read(c.ready)
	s.Drained()
	if err == nil {
		err = c.err
	}
	if err != nil && isClosed(f) {
		return nil
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
	sink Sink
	err  error
	fed  bool // a writer was there once

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

// ready reads what is there; it says whether the stream has ended. A fifo that no
// writer has opened yet reads as one that has ended does, but poll(2) tells the two
// apart (fs/pipe.c: POLLHUP needs a writer that came and went).
func (c *copier) ready(fd uintptr) bool {
	if !c.fed && !readable(fd) {
		c.sink.Drained()
		return false
	}
	p := small.Get().(*[]byte)
	defer func() { put(p) }()
	for {
		buf := *p
		n, err := unix.Read(int(fd), buf)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if c.pause(fd) {
				continue
			}
			c.sink.Drained()
			return false
		case err == unix.EIO || n == 0:
			return true
		case err != nil:
			c.err = fmt.Errorf("read: %w", err)
			return true
		default:
			c.fed = true
			c.came += n
			c.sink.Write(buf[:n])
			if n == smallBuf {
				put(p)
				p = large.Get().(*[]byte)
			}
		}
	}
}

// readable says whether a read would not wait: there is something, or the end.
func readable(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err != nil || n > 0
		}
	}
}

// AwaitReadable waits until f, which must be pollable, can be read or has ended.
func AwaitReadable(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(readable)
}

// Pump copies src to dst, waiting for dst, until either ends; the first error is
// returned, the end of src is none.
func Pump(dst io.Writer, src *os.File) error {
	s := &pump{dst: dst, src: src}
	if err := Copy(s, src); err != nil {
		return err
	}
	return s.err
}

type pump struct {
	dst io.Writer
	src *os.File
	err error
}

func (p *pump) Write(b []byte) {
	if p.err != nil {
		return
	}
	if _, err := p.dst.Write(b); err != nil {
		p.err = err
	}
}

func (p *pump) Drained() {}

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

// Accept waits on the listening socket l for a client; the connection is
// pollable. After l is closed the error is os.ErrClosed.
func Accept(l *os.File) (*os.File, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var aerr error
	err = raw.Read(func(lfd uintptr) bool {
		for {
			fd, _, aerr = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			switch aerr {
			case unix.EINTR, unix.ECONNABORTED:
				continue
			case unix.EAGAIN:
				return false
			}
			return true
		}
	})
	if err != nil {
		if isClosed(l) {
			err = os.ErrClosed
		}
		return nil, err
	}
	if aerr != nil {
		return nil, fmt.Errorf("accept: %w", aerr)
	}
	return os.NewFile(uintptr(fd), "client"), nil
}
