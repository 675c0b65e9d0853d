package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Pending is a request that was sent and whose answer has not been read.
type Pending struct {
	c       *Client
	ctx     context.Context
	req     Request
	body    []byte // Request.JSON, encoded
	conn    *conn
	version string // that the request was sent in
	start   time.Time
}

// Send writes r to the daemon. The answer is read by Receive, which must be
// called. The request ends when ctx does.
func (c *Client) Send(ctx context.Context, r Request) (*Pending, error) {
	p := &Pending{c: c, ctx: ctx, req: r, start: time.Now()}
	if r.JSON != nil {
		var err error
		if p.body, err = json.Marshal(r.JSON); err != nil {
			return nil, fmt.Errorf("encode body of %s %s: %w", r.Method, r.Path, err)
		}
	}
	if r.Body != nil {
		// A stream cannot be sent twice: know the version before.
		if _, err := c.Version(ctx); err != nil {
			return nil, err
		}
	}
	if err := p.send(); err != nil {
		return nil, err
	}
	return p, nil
}

// Receive reads the head of the answer. An answer of 400 or more is an *Error.
func (p *Pending) Receive() (*Response, error) {
	resp, err := p.conn.receive(p.req.Method)
	if err != nil {
		p.conn.Close()
		if p.conn.reused && p.repeatable() {
			// The daemon closed a connection that had waited: no fault of this request.
			if err := p.send(); err != nil {
				return nil, err
			}
			return p.Receive()
		}
		return nil, p.c.lost(p.ctx, err)
	}
	if p.c.Observe != nil {
		p.c.Observe(p.req.Method+" "+p.req.Path, p.start, time.Since(p.start))
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return p.refused(resp)
	}
	p.c.settle(p.version)
	r := &Response{Status: resp.StatusCode, Header: resp.Header, conn: p.conn}
	if p.req.Upgrade {
		// Daemons before 1.20 answered 200; both hand the connection over.
		r.Body = p.conn
		return r, nil
	}
	r.Body = &body{ReadCloser: resp.Body, conn: p.conn, keep: !resp.Close}
	return r, nil
}

// refused turns an answer of 400 or more into an error, or, where the daemon
// only asks for an older version, sends the request again.
func (p *Pending) refused(resp *http.Response) (*Response, error) {
	b := &body{ReadCloser: resp.Body, conn: p.conn, keep: !resp.Close}
	e := &Error{Status: resp.StatusCode, Message: readMessage(b)}
	b.Close()
	if e.Message == "" {
		e.Message = http.StatusText(e.Status)
	}
	// An answer to HEAD has no words: the version in its head must do.
	tooNew := e.tooNew() || p.req.Method == http.MethodHead && e.Status == http.StatusBadRequest
	if tooNew && p.repeatable() && p.c.lower(resp.Header.Get("Api-Version"), p.version) {
		if err := p.send(); err != nil {
			return nil, err
		}
		return p.Receive()
	}
	return nil, e
}

// repeatable reports whether the request can be written once more.
func (p *Pending) repeatable() bool {
	return p.req.Body == nil && p.ctx.Err() == nil
}

// send writes the request on a connection: one that waits, or a new one.
func (p *Pending) send() error {
	cn, err := p.c.connect(p.ctx)
	if err != nil {
		return err
	}
	p.conn = cn
	p.version = p.c.speaking()
	err = cn.send(p.httpRequest())
	switch {
	case err == nil:
		return nil
	case cn.reused && p.repeatable():
		cn.Close()
		return p.send() // nothing waits any more: this one is new
	case p.req.Body != nil && p.ctx.Err() == nil:
		// The daemon may refuse a long body before it has read all of it.
		return nil
	default:
		cn.Close()
		return p.c.lost(p.ctx, err)
	}
}

func (p *Pending) httpRequest() *http.Request {
	r := &p.req
	path := r.Path
	if !r.Unversioned {
		path = "/v" + p.version + path
	}
	req := &http.Request{
		Method: r.Method, URL: &url.URL{Path: path, RawQuery: r.Query.Encode()},
		Host: p.c.Endpoint.host(), ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header, 4),
	}
	for k, v := range p.c.Header {
		req.Header.Set(k, v)
	}
	req.Header.Set("User-Agent", p.c.UserAgent)
	if r.Upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "tcp")
		req.Header.Set("Content-Type", "text/plain")
	}
	switch {
	case r.JSON != nil:
		req.Header.Set("Content-Type", "application/json")
		req.ContentLength = int64(len(p.body))
		req.Body = io.NopCloser(bytes.NewReader(p.body))
	case r.Body != nil:
		req.Header.Set("Content-Type", "application/x-tar")
		req.ContentLength = -1
		req.Body = io.NopCloser(r.Body)
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	return req
}
