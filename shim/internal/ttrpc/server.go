package ttrpc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// Call is one request.
type Call struct {
	Service  string
	Method   string
	Payload  []byte
	Metadata map[string]string // of a repeated key, the last value
}

// Handler answers one call. A nil message is an empty one; an error that is no
// *Status is sent as Unknown.
type Handler func(ctx context.Context, c *Call) (wire.Message, error)

// unknown is google.rpc.Code UNKNOWN.
const unknown = 2

// Server answers on one listening unix socket.
type Server struct {
	listener *os.File
	handle   Handler

	mu    sync.Mutex
	conns map[*conn]struct{}
	calls sync.WaitGroup
}

// NewServer serves on listener, a listening unix socket that does not block and
// that the server now owns.
func NewServer(listener *os.File, h Handler) *Server {
	return &Server{listener: listener, handle: h, conns: map[*conn]struct{}{}}
}

// Serve accepts until Stop. A peer of another user is turned away.
func (s *Server) Serve() error {
	for {
		f, err := stream.Accept(s.listener)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if !sameUser(f) {
			f.Close()
			continue
		}
		c := &conn{file: f}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		go s.serve(c)
	}
}

// Stop ends Serve. Connections go on.
func (s *Server) Stop() { s.listener.Close() }

// Close stops accepting, waits until calls that are being answered have their
// answer on the wire, but not longer than grace, and closes every connection.
func (s *Server) Close(grace time.Duration) {
	s.listener.Close()
	done := make(chan struct{})
	go func() { s.calls.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(grace):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.file.Close()
	}
}

// conn is one client; frames of its answers are written whole.
type conn struct {
	file *os.File
	mu   sync.Mutex // held while a frame is written
}

func (s *Server) serve(c *conn) {
	ctx, cancel := context.WithCancel(context.Background())
	defer func() {
		cancel()
		c.file.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	r := bufio.NewReaderSize(c.file, 512)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		if f.typ != typeRequest {
			continue // data of streams, which no service here has
		}
		s.calls.Add(1)
		go func() {
			defer s.calls.Done()
			s.answer(ctx, c, f)
		}()
	}
}

func (s *Server) answer(ctx context.Context, c *conn, f frame) {
	out := appendFrame(nil, f.stream, typeResponse, s.call(ctx, f.data))
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.file.Write(out); err != nil {
		c.file.Close() // ends serve; the client dials again
	}
}

func (s *Server) call(ctx context.Context, data []byte) *response {
	var req request
	if err := wire.Unmarshal(data, &req); err != nil {
		return failure(fmt.Errorf("decode request: %w", err))
	}
	if req.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.timeout))
		defer cancel()
	}
	call := &Call{Service: req.service, Method: req.method, Payload: req.payload}
	if len(req.metadata) > 0 {
		call.Metadata = make(map[string]string, len(req.metadata))
		for _, kv := range req.metadata {
			call.Metadata[kv.key] = kv.value
		}
	}
	m, err := s.handle(ctx, call)
	if err != nil {
		return failure(err)
	}
	if m == nil {
		return &response{}
	}
	return &response{payload: wire.Marshal(m)}
}

func failure(err error) *response {
	if st, ok := errors.AsType[*Status](err); ok {
		return &response{status: st}
	}
	return &response{status: &Status{Code: unknown, Message: err.Error()}}
}

// sameUser says whether the peer of a connection runs as our user: whoever may
// call the shim may run anything as root.
func sameUser(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && same
}
