package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Exists says whether the repository has the blob or manifest desc.
func (c *Client) Exists(ctx context.Context, repo reference.Named, desc ocispec.Descriptor) (bool, error) {
	if err := desc.Digest.Validate(); err != nil {
		return false, fmt.Errorf("look for %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	kind, header := "/blobs/", http.Header{}
	if IsManifest(desc.MediaType) {
		kind, header = "/manifests/", http.Header{"Accept": acceptManifests}
	}
	err := c.each(ctx, repo, canPush, func(e endpoint) error {
		// With the right to push, as it is asked for next: one token then does for both.
		resp, err := c.do(ctx, e, call{method: http.MethodHead, repo: repo, path: kind + desc.Digest.String(), header: header, push: true})
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s in %s: %w", desc.Digest, repo.Name(), err)
	}
	return true, nil
}

// Mount asks the registry to take the blob desc over from another repository of
// its own. False is no error: the registry wants the bytes.
func (c *Client) Mount(ctx context.Context, repo reference.Named, desc ocispec.Descriptor, from string) (bool, error) {
	mounted := false
	err := c.each(ctx, repo, canPush, func(e endpoint) error {
		resp, err := c.do(ctx, e, call{
			method: http.MethodPost, repo: repo, path: "/blobs/uploads/", push: true, from: from,
			query: url.Values{"mount": {desc.Digest.String()}, "from": {from}},
		})
		if err != nil {
			return err
		}
		drain(resp)
		mounted = resp.StatusCode == http.StatusCreated
		if !mounted {
			c.abandon(ctx, e, repo, resp)
		}
		return nil
	})
	switch {
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err), errdefs.IsNotFound(err), errdefs.IsNotImplemented(err):
		return false, nil // from is not for us to read
	case err != nil:
		return false, fmt.Errorf("mount %s from %s in %s: %w", desc.Digest, from, repo.Name(), err)
	}
	return mounted, nil
}

// abandon ends an upload session that a registry opened and nobody will use.
// Best effort: the registry forgets it by itself in time.
func (c *Client) abandon(ctx context.Context, e endpoint, repo reference.Named, resp *http.Response) {
	at, err := location(resp)
	if err != nil {
		return
	}
	if resp, err := c.do(ctx, e, call{method: http.MethodDelete, repo: repo, path: at.String(), push: true, once: true}); err == nil {
		drain(resp)
	}
}

// Upload sends the blob desc in one piece; open gives its bytes, and is called
// again where the connection broke.
func (c *Client) Upload(ctx context.Context, repo reference.Named, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	err := c.each(ctx, repo, canPush, func(e endpoint) error {
		for try := 0; ; try++ {
			err := c.upload(ctx, e, repo, desc, open)
			if err == nil || try >= c.cfg.Retries || !passing(err) || ctx.Err() != nil {
				return err
			}
			if err := c.wait(ctx, try, err); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return fmt.Errorf("upload %s to %s: %w", desc.Digest, repo.Name(), err)
	}
	return nil
}

// upload is one try: a session, and all bytes with its end (distribution-spec,
// "Pushing a blob monolithically").
//
//	POST /v2/NAME/blobs/uploads/   → 202, Location
//	PUT  LOCATION?digest=DIGEST    → 201
func (c *Client) upload(ctx context.Context, e endpoint, repo reference.Named, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	resp, err := c.do(ctx, e, call{method: http.MethodPost, repo: repo, path: "/blobs/uploads/", push: true})
	if err != nil {
		return err
	}
	drain(resp)
	at, err := location(resp)
	if err != nil {
		return err
	}
	q := at.Query()
	q.Set("digest", desc.Digest.String())
	at.RawQuery = q.Encode()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := c.cfg.Stall
	sent := &sender{stall: stall, timer: time.AfterFunc(stall, func() {
		cancel(fmt.Errorf("registry stalls: it takes no more bytes for %s: %w", stall, errdefs.ErrUnavailable))
	})}
	defer sent.timer.Stop()
	body := func() (io.ReadCloser, error) {
		r, err := open()
		return sent.of(r), err
	}
	resp, err = c.do(ctx, e, call{
		method: http.MethodPut, repo: repo, path: at.String(), push: true, once: true,
		header: http.Header{"Content-Type": {"application/octet-stream"}}, body: body, length: desc.Size,
	})
	if err != nil {
		return err
	}
	drain(resp)
	return checkDigest(resp, desc.Digest)
}

// sender watches that somebody takes a body's bytes; once it is read, the wait
// for the answer is the transport's.
type sender struct {
	io.ReadCloser
	stall time.Duration
	timer *time.Timer
}

func (s *sender) of(r io.ReadCloser) io.ReadCloser {
	s.timer.Reset(s.stall)
	return &sender{r, s.stall, s.timer}
}

func (s *sender) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if err != nil {
		s.timer.Stop()
	} else {
		s.timer.Reset(s.stall)
	}
	return n, err
}

// location reads where an upload goes on. It may be on another host, which then
// gets no credential; but not without TLS where there was TLS.
func location(resp *http.Response) (*url.URL, error) {
	at, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("registry names no place for an upload: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	if at.Scheme != "https" && (at.Scheme != "http" || resp.Request.URL.Scheme == "https") {
		return nil, fmt.Errorf("registry wants an upload sent to %s: refused: %w", printable(at.Redacted()), errdefs.ErrPermissionDenied)
	}
	return at, nil
}

func checkDigest(resp *http.Response, want digest.Digest) error {
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != want.String() {
		return fmt.Errorf("registry stored it as %s: %w", printable(got), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// PutManifest sends a manifest or index, whose parts are all there, and names it:
// by ref's tag, or by its digest alone.
func (c *Client) PutManifest(ctx context.Context, ref reference.Named, desc ocispec.Descriptor, data []byte) error {
	id := desc.Digest.String()
	if tagged, ok := ref.(reference.Tagged); ok {
		id = tagged.Tag()
	}
	err := c.each(ctx, ref, canPush, func(e endpoint) error {
		resp, err := c.do(ctx, e, call{
			method: http.MethodPut, repo: ref, path: "/manifests/" + id, push: true,
			header: http.Header{"Content-Type": {desc.MediaType}}, length: int64(len(data)),
			body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		})
		if err != nil {
			return err
		}
		drain(resp)
		return checkDigest(resp, desc.Digest)
	})
	if err != nil {
		return fmt.Errorf("push manifest %s of %s: %w", id, ref.Name(), err)
	}
	return nil
}
