package client

import (
	"context"
	"net/http"
	"strconv"
	"strings"
)

// The API versions that this client speaks.
const (
	MaxVersion = "1.51"
	MinVersion = "1.24"
)

// Version is the API version that is spoken with the daemon; it asks the daemon
// where no answer has told it yet.
func (c *Client) Version(ctx context.Context) (string, error) {
	c.mu.Lock()
	v := c.version
	c.mu.Unlock()
	if v != "" {
		return v, nil
	}
	resp, err := c.Do(ctx, Request{Method: http.MethodHead, Path: "/_ping", Unversioned: true})
	if err != nil {
		return "", err
	}
	resp.Body.Close()
	if !c.lower(resp.Header.Get("Api-Version"), MaxVersion) {
		c.settle(MaxVersion)
	}
	return c.speaking(), nil
}

// Wanted is the version that the client would speak with a daemon that is new enough.
func (c *Client) Wanted() string {
	if c.pinned {
		return c.speaking()
	}
	return MaxVersion
}

// speaking is the version of the next request.
func (c *Client) speaking() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" {
		return MaxVersion
	}
	return c.version
}

// settle notes a version that the daemon has understood.
func (c *Client) settle(v string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" && v != "" {
		c.version = v
	}
}

// lower goes down to the daemon's newest version and reports whether that is
// lower than the version that was tried.
func (c *Client) lower(daemon, tried string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinned || daemon == "" || !Less(daemon, tried) {
		return false
	}
	c.version = daemon
	return true
}

// Less reports whether API version a is older than b.
func Less(a, b string) bool {
	return minor(a) < minor(b)
}

// minor is NN of "1.NN": the major version has been 1 from the first day.
func minor(v string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(v, "1."))
	if err != nil {
		return 0
	}
	return n
}
