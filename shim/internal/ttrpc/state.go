package ttrpc

import (
	"os"
	"time"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/heritage"
)

// State is what another process needs to go on with a Server.
type State struct {
	listener int32
	conns    []connState
}

// Fields lists the fields of State.
func (m *State) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.listener)
	wire.Repeated(c, 2, &m.conns)
}

type connState struct {
	fd    int32
	in    []byte
	calls []callState
}

func (m *connState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.fd)
	c.Bytes(2, &m.in)
	wire.Repeated(c, 3, &m.calls)
}

type callState struct {
	stream   uint32
	data     []byte
	deadline int64 // in nanoseconds since 1970; 0 without
}

func (m *callState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.stream)
	c.Bytes(2, &m.data)
	wire.Uint(c, 3, &m.deadline)
}

// State is the server's state while its gate is closed. The calls in it are those
// that are outside: another process begins them again.
func (s *Server) State(files *heritage.Files) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{listener: files.FD(s.listener)}
	for c := range s.conns {
		cs := connState{fd: files.FD(c.file), in: c.in}
		if cs.fd == 0 {
			continue // it has just been closed
		}
		for call := range c.calls {
			one := callState{stream: call.stream, data: call.data}
			if !call.deadline.IsZero() {
				one.deadline = call.deadline.UnixNano()
			}
			cs.calls = append(cs.calls, one)
		}
		st.conns = append(st.conns, cs)
	}
	return st
}

// Serves says whether the server that st is of accepts.
func (m *State) Serves() bool { return m.listener != 0 }

// Listener is the listening socket.
func (m *State) Listener(heir *heritage.Heir) *os.File { return heir.File(m.listener, "socket") }

// Resume goes on with the connections of st. The gate is closed meanwhile.
func (s *Server) Resume(st State, heir *heritage.Heir) {
	for _, cs := range st.conns {
		c := s.connect(heir.File(cs.fd, "client"))
		c.in = cs.in
		for _, one := range cs.calls {
			call := &inFlight{stream: one.stream, data: one.data, resumed: true}
			if one.deadline != 0 {
				call.deadline = time.Unix(0, one.deadline)
			}
			s.begin(c, call, s.gate.Enter)
		}
		go s.serve(c)
	}
}
