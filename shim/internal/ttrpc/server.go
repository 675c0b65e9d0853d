package ttrpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// Call is one request.
type Call struct {
	Service  string
	Method   string
	Payload  []byte
	Metadata map[string]string // of a repeated key, the last value
	Resumed  bool              // began in another process, which handed it over
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
	gate     *gate.Gate

	mu    sync.Mutex
	conns map[*conn]struct{}
	calls sync.WaitGroup
}

// NewServer serves on listener, a listening unix socket that does not block and
// that the server now owns. A call is inside g from its first byte to the last of
// its answer, but for what h is outside.
func NewServer(listener *os.File, h Handler, g *gate.Gate) *Server {
	return &Server{listener: listener, handle: h, gate: g, conns: map[*conn]struct{}{}}
}

// Serve accepts until Stop. A peer of another user is turned away.
func (s *Server) Serve() error {
	err := stream.Accept(s.listener, s.gate, func(f *os.File) {
		if !sameUser(f) {
			f.Close()
			return
		}
		go s.serve(s.connect(f))
	})
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) connect(f *os.File) *conn {
	c := &conn{file: f, calls: map[*inFlight]struct{}{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return c
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
	file   *os.File
	ctx    context.Context // of its calls: it ends with the connection
	cancel func()
	in     []byte                 // read, and not yet a whole frame; its reader's
	mu     sync.Mutex             // held while a frame is written
	calls  map[*inFlight]struct{} // guarded by the server's lock
}

// inFlight is a call that has no answer yet.
type inFlight struct {
	stream   uint32
	data     []byte    // the request
	deadline time.Time // of the call; zero without
	resumed  bool
}

// serve reads calls until the client is gone.
func (s *Server) serve(c *conn) {
	stream.Await(c.file, s.gate, func(fd int) (ended bool) {
		more, err := true, error(nil)
		for more && err == nil {
			more, err = s.read(c, fd)
		}
		return err != nil
	})
	s.gate.Enter()
	defer s.gate.Leave()
	s.disconnect(c)
}

func (s *Server) disconnect(c *conn) {
	c.cancel()
	c.file.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// minRead is what most requests fit in, in bytes.
const minRead = 512

// read reads once and begins the calls that are whole; it says whether there may be
// more to read. An error is the end of the connection.
func (s *Server) read(c *conn, fd int) (more bool, err error) {
	room := minRead
	if size, err := frameSize(c.in); err != nil {
		return false, err
	} else if size > 0 {
		room = size - len(c.in)
	}
	buf := slices.Grow(c.in, room)
	n, err := unix.Read(fd, buf[len(buf):cap(buf)])
	switch {
	case err == unix.EINTR:
		return true, nil
	case err == unix.EAGAIN:
		return false, nil
	case err != nil:
		return false, err
	case n == 0:
		return false, io.EOF
	}
	c.in = buf[:len(buf)+n]
	return true, s.cut(c)
}

// cut begins the calls whose frames are whole.
func (s *Server) cut(c *conn) error {
	for {
		size, err := frameSize(c.in)
		if err != nil || size == 0 || len(c.in) < size {
			return err
		}
		f := frameOf(c.in[:size:size])
		if c.in = c.in[size:]; len(c.in) == 0 {
			c.in = nil
		}
		if f.typ != typeRequest {
			continue // data of streams, which no service here has
		}
		s.gate.Join()
		s.begin(c, &inFlight{stream: f.stream, data: f.data}, func() {})
	}
}

// begin has a call answered, once enter has let it inside the gate.
func (s *Server) begin(c *conn, call *inFlight, enter func()) {
	s.mu.Lock()
	c.calls[call] = struct{}{}
	s.mu.Unlock()
	s.calls.Add(1)
	go func() {
		defer s.calls.Done()
		enter()
		defer s.gate.Leave()
		s.answer(c, call)
	}()
}

func (s *Server) answer(c *conn, call *inFlight) {
	out := appendFrame(nil, call.stream, typeResponse, s.call(c.ctx, call))
	s.mu.Lock()
	delete(c.calls, call)
	s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.file.Write(out); err != nil {
		s.disconnect(c) // the client dials again
	}
}

func (s *Server) call(ctx context.Context, flight *inFlight) *response {
	var req request
	if err := wire.Unmarshal(flight.data, &req); err != nil {
		return failure(fmt.Errorf("decode request: %w", err))
	}
	if req.timeout > 0 && flight.deadline.IsZero() {
		flight.deadline = time.Now().Add(time.Duration(req.timeout))
	}
	if !flight.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, flight.deadline)
		defer cancel()
	}
	call := &Call{Service: req.service, Method: req.method, Payload: req.payload, Resumed: flight.resumed}
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
