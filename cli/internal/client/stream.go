package client

import (
	"errors"
	"io"
	"net/http"
)

// Stream is a connection that the daemon has handed over. Its two directions end
// on their own.
type Stream struct {
	io.ReadCloser
	io.Writer
	conn *conn
	// Multiplexed says that stdout and stderr come in frames.
	Multiplexed bool
}

// ReceiveStream reads the head of an answer to a request with Upgrade.
func (p *Pending) ReceiveStream() (*Stream, error) {
	resp, err := p.Receive()
	if err != nil {
		return nil, err
	}
	kind := resp.Header.Get("Content-Type")
	if resp.Status != http.StatusSwitchingProtocols && resp.Status != http.StatusOK {
		resp.conn.Close()
		return nil, errors.New("the daemon did not hand over the connection: " + http.StatusText(resp.Status))
	}
	return &Stream{
		ReadCloser: resp.Body, Writer: resp.conn.Conn, conn: resp.conn,
		Multiplexed: kind == "application/vnd.docker.multiplexed-stream",
	}, nil
}

// CloseWrite ends the direction towards the daemon: end of file on stdin.
func (s *Stream) CloseWrite() error {
	if c, ok := s.conn.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
