package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/distribution/reference"
)

// call is one request of the distribution API, below a repository.
type call struct {
	method string
	repo   reference.Named
	path   string // after the repository: "/manifests/latest"; or a whole URL
	query  url.Values
	header http.Header
	// body opens the body anew for every try; nil is none.
	body   func() (io.ReadCloser, error)
	length int64 // of the body
	push   bool  // needs the right to push
	from   string
	once   bool // is not tried again
}

// url of a call at e.
func (k call) url(e endpoint) string {
	if strings.Contains(k.path, "://") {
		return k.path // an upload's location, whole
	}
	q := url.Values{}
	for name, values := range k.query {
		q[name] = values
	}
	if e.host != e.registry && e.registry != "docker.io" || e.path != "/v2" {
		q.Set("ns", e.registry) // tells a mirror of several registries which is meant
	}
	u := e.scheme + "://" + e.host + e.path + "/" + reference.Path(k.repo) + k.path
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}

// scope is what a token for this call must allow.
func (k call) scope() string {
	actions := "pull"
	if k.push {
		actions = "pull,push"
	}
	s := "repository:" + reference.Path(k.repo) + ":" + actions
	if k.from != "" {
		s += " repository:" + k.from + ":pull"
	}
	return s
}

// do makes the call at e, authenticates, and tries again what may pass. Any
// status below 400 is an answer; the caller closes its body.
func (c *Client) do(ctx context.Context, e endpoint, k call) (*http.Response, error) {
	for try := 0; ; try++ {
		resp, err := c.try(ctx, e, k)
		if err == nil || k.once || try >= c.cfg.Retries || !passing(err) || ctx.Err() != nil {
			return resp, err
		}
		if err := c.wait(ctx, try, err); err != nil {
			return nil, err
		}
	}
}

// wait sleeps before the retry that follows try, a little differently each time,
// and not less than the registry asked for with the error that it answered.
func (c *Client) wait(ctx context.Context, try int, err error) error {
	d := min(c.cfg.Backoff<<try, 10*time.Second)
	d = d/2 + rand.N(d)
	var a *answerError
	if errors.As(err, &a) {
		d = max(d, a.after)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// try makes the call once, and a second time where it must authenticate first.
func (c *Client) try(ctx context.Context, e endpoint, k call) (*http.Response, error) {
	if err := c.resolveScheme(ctx, &e); err != nil {
		return nil, err
	}
	key := e.scheme + "://" + e.host + " " + k.scope()
	c.mu.Lock()
	auth := c.auth[key]
	c.mu.Unlock()
	resp, err := c.send(ctx, e, k, auth)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		drain(resp)
		auth, err = c.authorize(ctx, e, resp.Header.Values("WWW-Authenticate"), k.scope())
		if err != nil {
			return nil, err
		}
		if resp, err = c.send(ctx, e, k, auth); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized {
			c.mu.Lock()
			c.auth[key] = auth
			c.mu.Unlock()
		}
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, answer(resp)
	}
	return resp, nil
}

func (c *Client) send(ctx context.Context, e endpoint, k call, auth string) (*http.Response, error) {
	var body io.ReadCloser
	if k.body != nil && k.length > 0 {
		var err error
		if body, err = k.body(); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, k.method, k.url(e), body)
	if err != nil {
		if body != nil {
			body.Close()
		}
		return nil, err
	}
	req.ContentLength = k.length
	if body != nil {
		req.GetBody = k.body // for a redirect, or an idle connection that was closed
	}
	for _, more := range []http.Header{c.cfg.Header, e.header} {
		for name, values := range more {
			req.Header[name] = values
		}
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if auth != "" && req.URL.Host == e.host {
		req.Header.Set("Authorization", auth)
	}
	client, err := c.client(e.tls)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL may hold a signature, and names nothing the user knows
		}
		return nil, fmt.Errorf("reach registry %s: %w", e.host, unavailable(err))
	}
	return resp, nil
}

// drain lets the connection be used again, where the rest is short.
func drain(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
	resp.Body.Close()
}
