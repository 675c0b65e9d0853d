// Package attach serves a container's attach socket (api/stdio, "The attach
// socket"): any number of clients, none of which can hold up the container or
// another client.
package attach

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// Config says what a Server serves.
type Config struct {
	Path string // of the socket
	TTY  bool   // output is raw bytes, without frames
	// Spill is the directory where output waits, in an unlinked file, for a
	// client that is slow; it should not be a tmpfs.
	Spill string
	// Stdin is the pipe to the container's stdin, nil without; the server owns
	// it. A terminal comes later, by Feed.
	Stdin *os.File
	// Reopen opens the log's path again; nil where there is no log.
	Reopen func() error
	Gate   *gate.Gate
}

// Server is one attach socket.
type Server struct {
	cfg      Config
	listener *os.File
	work     sync.WaitGroup // goroutines that deliver output

	mu      sync.Mutex
	clients map[*client]struct{}
	ended   bool
}

// Listen makes the socket and serves it until End.
func Listen(cfg Config) (*Server, error) {
	l, err := stdio.Listen(cfg.Path)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, listener: l, clients: map[*client]struct{}{}}
	go s.accept()
	return s, nil
}

func (s *Server) accept() {
	err := stream.Accept(s.listener, s.cfg.Gate, func(conn *os.File) {
		s.cfg.Gate.Join()
		go s.serve(conn)
	})
	if err != nil && !errors.Is(err, os.ErrClosed) {
		slog.Error("attach socket is closed", "err", err)
	}
}

// serve is the life of one connection. Until it is a client's it is inside the gate.
func (s *Server) serve(conn *os.File) {
	c := s.greet(conn)
	s.cfg.Gate.Leave()
	if c != nil {
		s.attend(c)
	}
}

// helloTimeout is how long a client may take for its first line.
const helloTimeout = 10 * time.Second

// greet reads a client's hello and answers; nil is a connection that is done with.
func (s *Server) greet(conn *os.File) *client {
	conn.SetReadDeadline(time.Now().Add(helloTimeout))
	hello, err := stdio.Welcome(conn)
	if err != nil {
		conn.Write([]byte(stdio.Refuse(err)))
		conn.Close()
		return nil
	}
	conn.SetReadDeadline(time.Time{})
	if hello.Reopen {
		s.reopen(conn)
		return nil
	}
	c := &client{server: s, conn: conn, hello: hello}
	s.join(c)
	return c
}

// attend is the life of a client's input. To do it again, from the beginning, does
// no harm: what has an end, ends again.
func (s *Server) attend(c *client) {
	if in := s.stdin(); c.hello.Stdin && in != nil {
		p := c.pumpTo(in)
		p.Run()
		if c.hello.CloseStdin {
			s.cfg.Gate.Enter()
			s.CloseStdin()
			s.cfg.Gate.Leave()
		}
	}
	waitGone(c.conn)
	s.cfg.Gate.Enter()
	c.leave()
	s.cfg.Gate.Leave()
}

// reopen carries out and answers a Hello that asks for it.
func (s *Server) reopen(conn *os.File) {
	answer := stdio.Accept
	if s.cfg.Reopen != nil {
		if err := s.cfg.Reopen(); err != nil {
			answer = stdio.Refuse(err)
		}
	}
	conn.Write([]byte(answer))
	conn.Close()
}

// join answers the client's hello and counts it in, in one step: no output gets
// lost between.
func (s *Server) join(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.put([]byte(stdio.Accept))
	if s.ended {
		c.end()
		return
	}
	s.clients[c] = struct{}{}
}

// Write delivers p, which the container wrote to st, or keeps it for those
// clients whose socket is full.
func (s *Server) Write(st byte, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 {
		return
	}
	h := stdio.FrameHeader(st, len(p))
	for c := range s.clients {
		switch {
		case st == stdio.Stdout && !c.hello.Stdout, st == stdio.Stderr && !c.hello.Stderr:
		case s.cfg.TTY:
			c.put(p)
		default:
			c.put(h[:], p)
		}
	}
}

// Feed has clients' input go to the terminal console, which stays the caller's.
func (s *Server) Feed(console *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Stdin = console
}

func (s *Server) stdin() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg.Stdin
}

// CloseStdin ends the container's stdin. A terminal's has no end.
func (s *Server) CloseStdin() error {
	if s.cfg.TTY || s.cfg.Stdin == nil {
		return nil
	}
	if err := s.cfg.Stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// End says that the container's streams have ended: the socket goes, and each
// client is closed when it has everything. End does not wait for that; Wait does.
func (s *Server) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = true
	s.listener.Close()
	os.Remove(s.cfg.Path)
	s.CloseStdin()
	for c := range s.clients {
		c.end()
	}
}

// Wait waits until every client has everything or has gone.
func (s *Server) Wait() { s.work.Wait() }

// waitGone waits until the other side has closed both directions.
func waitGone(conn *os.File) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	raw.Read(func(fd uintptr) bool {
		discard(int(fd))
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		return err != nil || n > 0 // POLLHUP and POLLERR are always asked for
	})
}

// discard reads off what is there.
func discard(fd int) {
	var b [512]byte
	for {
		n, err := unix.Read(fd, b[:])
		if n <= 0 && err != unix.EINTR {
			return
		}
	}
}
