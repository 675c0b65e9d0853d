// Package client speaks the Docker Engine API: one small HTTP/1.1 client over a
// unix socket, TCP, TLS or the standard streams of ssh.
//
// It does by hand what a general client hides: a request can be sent before its
// answer is wanted, so that attach and wait are both under way before start, and
// a connection can be taken over for a stream with two ends to close.
//
// It asks for the newest API version that it knows. A daemon that is older says
// so in its answer, and the request is sent again in the daemon's version: a
// daemon that is new enough costs no round trip for the negotiation.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Client sends requests to one daemon. It is safe for concurrent use.
type Client struct {
	Endpoint Endpoint
	// Header is sent with every request (HttpHeaders in config.json).
	Header map[string]string
	// UserAgent is sent with every request.
	UserAgent string
	// Observe, if set, is called when the head of an answer has arrived.
	Observe func(name string, start time.Time, took time.Duration)

	mu      sync.Mutex
	version string // "1.NN"; empty until the daemon has answered
	pinned  bool   // version is the user's wish and is not negotiated
	idle    *conn  // at most one connection waits for its next request
}

// New returns a client for the daemon at e. A version that is not empty is used
// as it is (DOCKER_API_VERSION).
func New(e Endpoint, version string) *Client {
	return &Client{Endpoint: e, version: version, pinned: version != ""}
}

// Request is one call. Path has no version: "/containers/json".
type Request struct {
	Method string
	Path   string
	Query  url.Values
	Header map[string]string
	// JSON, if not nil, is the body; Body is for one that is not JSON.
	JSON any
	Body io.Reader
	// Upgrade asks for the connection to be handed over (101).
	Upgrade bool
	// Unversioned leaves the version off the path.
	Unversioned bool
}

// Response is the head of an answer, and its body.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
	conn   *conn
}

// Do sends r and returns the answer when its head has arrived. An answer of 400
// or more is an *Error. The caller closes the body.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	p, err := c.Send(ctx, r)
	if err != nil {
		return nil, err
	}
	return p.Receive()
}

// Call sends r and decodes the answer's JSON into out, which may be nil.
func (c *Client) Call(ctx context.Context, r Request, out any) error {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			return fmt.Errorf("read answer to %s %s: %w", r.Method, r.Path, err)
		}
	}
	// What follows the value is white space; reading it frees the connection.
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// Get is Call with method GET.
func (c *Client) Get(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, Request{Method: http.MethodGet, Path: path, Query: q}, out)
}

// Post is Call with method POST.
func (c *Client) Post(ctx context.Context, path string, q url.Values, body, out any) error {
	return c.Call(ctx, Request{Method: http.MethodPost, Path: path, Query: q, JSON: body}, out)
}

// Delete is Call with method DELETE.
func (c *Client) Delete(ctx context.Context, path string, q url.Values, out any) error {
	return c.Call(ctx, Request{Method: http.MethodDelete, Path: path, Query: q}, out)
}

// Close closes the connection that waits for a next request.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		c.idle.Close()
		c.idle = nil
	}
}
