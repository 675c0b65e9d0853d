package attach

import (
	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/heritage"
)

// State is what another process needs to go on with a Server.
type State struct {
	listener int32
	stdin    int32 // of a pipe; a terminal is fed
	ended    bool
	clients  []clientState
}

// Fields lists the fields of State.
func (m *State) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.listener)
	wire.Uint(c, 2, &m.stdin)
	c.Bool(3, &m.ended)
	wire.Repeated(c, 4, &m.clients)
}

// clientState is one client.
type clientState struct {
	fd                                int32
	stdin, stdout, stderr, closeStdin bool
	unread                            []byte // of its input
	memory                            []byte // of what waits for it
	file                              int32
	from, to                          int64
}

func (m *clientState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.fd)
	c.Bool(2, &m.stdin)
	c.Bool(3, &m.stdout)
	c.Bool(4, &m.stderr)
	c.Bool(5, &m.closeStdin)
	c.Bytes(6, &m.unread)
	c.Bytes(7, &m.memory)
	wire.Uint(c, 8, &m.file)
	wire.Uint(c, 9, &m.from)
	wire.Uint(c, 10, &m.to)
}

// State is the server's state while its gate is closed.
func (s *Server) State(files *heritage.Files) *State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &State{listener: files.FD(s.listener), ended: s.ended}
	if !s.cfg.TTY {
		st.stdin = files.FD(s.cfg.Stdin)
	}
	for c := range s.clients {
		if one, ok := c.state(files); ok {
			st.clients = append(st.clients, one)
		}
	}
	return st
}

func (c *client) state(files *heritage.Files) (clientState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.failed != nil {
		return clientState{}, false
	}
	st := clientState{
		fd:    files.FD(c.conn),
		stdin: c.hello.Stdin, stdout: c.hello.Stdout, stderr: c.hello.Stderr, closeStdin: c.hello.CloseStdin,
		unread: c.unread,
		memory: c.memory,
		file:   files.FD(c.file),
		from:   c.from,
		to:     c.to,
	}
	if c.pump != nil {
		st.unread = c.pump.Rest()
	}
	return st, true
}

// Resume serves on what st says, which cfg is for. The gate is closed meanwhile.
func Resume(cfg Config, st *State, heir *heritage.Heir) *Server {
	s := &Server{cfg: cfg, ended: st.ended, clients: map[*client]struct{}{}}
	if st.stdin != 0 {
		s.cfg.Stdin = heir.File(st.stdin, "stdin")
	}
	if s.listener = heir.File(st.listener, cfg.Path); s.listener != nil {
		go s.accept()
	}
	for _, one := range st.clients {
		c := &client{
			server: s,
			conn:   heir.File(one.fd, "client"),
			hello:  stdio.Hello{Stdin: one.stdin, Stdout: one.stdout, Stderr: one.stderr, CloseStdin: one.closeStdin},
			unread: one.unread,
			memory: one.memory,
			file:   heir.File(one.file, "spill"),
			from:   one.from,
			to:     one.to,
			ended:  st.ended,
		}
		s.clients[c] = struct{}{}
		if c.late = len(c.memory) > 0 || c.from < c.to; c.late {
			s.work.Go(c.deliver)
		} else if c.ended {
			c.close()
		}
	}
	return s
}

// Attend goes on with the input of the clients of a server that was resumed, once
// it has what they feed.
func (s *Server) Attend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		go s.attend(c)
	}
}
