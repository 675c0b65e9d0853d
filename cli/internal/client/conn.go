package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
)

// conn is one connection. It carries one request at a time.
type conn struct {
	net.Conn
	c      *Client
	r      *bufio.Reader
	w      *bufio.Writer
	reused bool
	stop   func() bool // ends the watch over the request's context
}

// connect returns the connection that waits, or a new one. It is closed when ctx ends.
func (c *Client) connect(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	cn := c.idle
	c.idle = nil
	c.mu.Unlock()
	if cn != nil {
		cn.reused = true
	} else {
		nc, err := c.Endpoint.Dial(ctx)
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		cn = &conn{Conn: nc, c: c, r: bufio.NewReader(nc), w: bufio.NewWriter(nc)}
	}
	cn.stop = context.AfterFunc(ctx, func() { cn.Conn.Close() })
	return cn, nil
}

func (cn *conn) send(r *http.Request) error {
	if err := r.Write(cn.w); err != nil {
		return err
	}
	return cn.w.Flush()
}

// receive reads the head of an answer; informational answers are skipped.
func (cn *conn) receive(method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(cn.r, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode >= http.StatusOK || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, nil
		}
	}
}

// Read reads what follows the head of an answer that handed the connection over.
func (cn *conn) Read(p []byte) (int, error) { return cn.r.Read(p) }

// Close closes the connection for good.
func (cn *conn) Close() error {
	cn.stop()
	return cn.Conn.Close()
}

// release lets the connection wait for the next request.
func (cn *conn) release() {
	if !cn.stop() {
		return // the context has ended, and the connection with it
	}
	cn.c.mu.Lock()
	defer cn.c.mu.Unlock()
	if cn.c.idle != nil {
		cn.Conn.Close()
		return
	}
	cn.c.idle = cn
}

// body is an answer's body. Read to its end, it gives the connection back.
type body struct {
	io.ReadCloser
	conn *conn
	keep bool // the daemon keeps the connection open
	done bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && !b.done {
		b.done = true
		if b.keep {
			b.conn.release()
		} else {
			b.conn.Close()
		}
	}
	return n, err
}

func (b *body) Close() error {
	if b.ReadCloser == http.NoBody {
		b.Read(nil) // its end is already here
	}
	if b.done {
		return nil
	}
	b.done = true
	// Not read to its end: what is still to come belongs to nobody.
	return b.conn.Close()
}
