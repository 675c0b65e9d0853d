package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest is the size in bytes of the largest manifest or index that is
// read; distribution-spec asks registries for 4 MiB.
const MaxManifest = 8 << 20

// Docker's names for the OCI media types, which are older.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerLayer        = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

var acceptManifests = []string{strings.Join([]string{
	DockerManifest, DockerManifestList, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, "*/*",
}, ", ")}

// IsManifest says whether blobs of that media type live under /manifests/.
func IsManifest(mediaType string) bool {
	switch mediaType {
	case DockerManifest, DockerManifestList, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex:
		return true
	}
	return false
}

// each makes one call at the endpoints in order, until one has an answer.
func (c *Client) each(ctx context.Context, repo reference.Named, need capability, fn func(endpoint) error) error {
	all, err := c.endpoints(reference.Domain(repo), need)
	if err != nil {
		return err
	}
	for _, e := range all {
		// The last one is the registry itself: its error tells most.
		if err = fn(e); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// Resolve asks what ref is now: media type, digest and size of its manifest.
func (c *Client) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, error) {
	id, err := identifier(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	var desc ocispec.Descriptor
	err = c.each(ctx, ref, canResolve, func(e endpoint) error {
		desc, err = c.head(ctx, e, ref, id)
		if err == nil && (desc.Digest == "" || desc.MediaType == "" || desc.Size <= 0) || errdefs.IsNotImplemented(err) {
			// HEAD need not say all of it (or be there): read the manifest itself.
			desc, _, err = c.manifest(ctx, e, ref, id, ocispec.Descriptor{})
		}
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s: %w", ref, err)
	}
	if d, ok := ref.(reference.Digested); ok && d.Digest() != desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s: registry answers for %s: %w", ref, desc.Digest, errdefs.ErrFailedPrecondition)
	}
	if desc.Size > MaxManifest {
		return ocispec.Descriptor{}, fmt.Errorf("resolve %s: manifest of %d bytes, more than %d: %w", ref, desc.Size, MaxManifest, errdefs.ErrFailedPrecondition)
	}
	return desc, nil
}

func (c *Client) head(ctx context.Context, e endpoint, ref reference.Named, id string) (ocispec.Descriptor, error) {
	resp, err := c.do(ctx, e, call{
		method: http.MethodHead, repo: ref, path: "/manifests/" + id, header: http.Header{"Accept": acceptManifests},
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	resp.Body.Close()
	desc := ocispec.Descriptor{MediaType: mediaType(resp), Size: resp.ContentLength}
	if h := resp.Header.Get("Docker-Content-Digest"); h != "" {
		desc.Digest = digest.Digest(h)
		if err := desc.Digest.Validate(); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("registry names the digest %q: %w: %w", printable(h), err, errdefs.ErrFailedPrecondition)
		}
	}
	return desc, nil
}

func mediaType(resp *http.Response) string {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// Manifest reads the manifest or index that desc names, and verifies it.
func (c *Client) Manifest(ctx context.Context, repo reference.Named, desc ocispec.Descriptor) ([]byte, error) {
	var data []byte
	err := c.each(ctx, repo, canPull, func(e endpoint) (err error) {
		_, data, err = c.manifest(ctx, e, repo, desc.Digest.String(), desc)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetch manifest %s of %s: %w", desc.Digest, repo.Name(), err)
	}
	return data, nil
}

// manifest reads one at e; what want says of it (digest, size) must hold.
func (c *Client) manifest(ctx context.Context, e endpoint, repo reference.Named, id string, want ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	limit := int64(MaxManifest)
	if want.Size > 0 {
		limit = min(limit, want.Size)
	}
	for try := 0; ; try++ {
		resp, err := c.do(ctx, e, call{
			method: http.MethodGet, repo: repo, path: "/manifests/" + id, header: http.Header{"Accept": acceptManifests},
		})
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		data, err := c.readBody(ctx, resp, limit+1)
		if err == nil {
			return verified(data, mediaType(resp), limit, want)
		}
		if try >= c.cfg.Retries || ctx.Err() != nil {
			return ocispec.Descriptor{}, nil, fmt.Errorf("read manifest: %w", unavailable(err))
		}
		if err := c.wait(ctx, try, nil); err != nil {
			return ocispec.Descriptor{}, nil, err
		}
	}
}

// readBody reads at most limit bytes, in the time in which a registry may stall.
func (c *Client) readBody(ctx context.Context, resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	stop := context.AfterFunc(ctx, func() { resp.Body.Close() })
	defer stop()
	timer := time.AfterFunc(c.cfg.Stall, func() { resp.Body.Close() })
	defer timer.Stop()
	return io.ReadAll(io.LimitReader(resp.Body, limit))
}

// verified holds a manifest against what is wanted.
func verified(data []byte, mediaType string, limit int64, want ocispec.Descriptor) (ocispec.Descriptor, []byte, error) {
	if int64(len(data)) > limit {
		return ocispec.Descriptor{}, nil, fmt.Errorf("manifest is larger than %d bytes: %w", limit, errdefs.ErrFailedPrecondition)
	}
	got := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if want.Digest != "" && want.Digest.Algorithm() != digest.Canonical && want.Digest.Validate() == nil {
		got.Digest = want.Digest.Algorithm().FromBytes(data)
	}
	if want.Size > 0 && got.Size != want.Size {
		return ocispec.Descriptor{}, nil, fmt.Errorf("manifest has %d bytes, not %d: %w", got.Size, want.Size, errdefs.ErrFailedPrecondition)
	}
	if want.Digest != "" && got.Digest != want.Digest {
		return ocispec.Descriptor{}, nil, fmt.Errorf("manifest is %s: %w", got.Digest, errdefs.ErrFailedPrecondition)
	}
	return got, data, nil
}

// Fetch reads the blob desc from offset on. The reader goes on by itself where
// the connection breaks or stalls, and gives exactly the bytes that desc.Size
// promises or an error; the digest is for the caller to verify. One goroutine
// may read; Close ends the transfer.
func (c *Client) Fetch(ctx context.Context, repo reference.Named, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("fetch %q: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	if offset > desc.Size {
		return nil, fmt.Errorf("fetch %s at %d: it has %d bytes: %w", desc.Digest, offset, desc.Size, errdefs.ErrInvalidArgument)
	}
	b := &blob{ctx: ctx, client: c, repo: repo, desc: desc, offset: offset}
	if offset == desc.Size && offset > 0 {
		return b, nil
	}
	var err error
	if b.others, err = c.endpoints(reference.Domain(repo), canPull); err == nil {
		err = b.next(nil)
	}
	if err != nil {
		return nil, b.fail(err)
	}
	return b, nil
}

// blob is a transfer under way.
type blob struct {
	ctx      context.Context //nolint:containedctx // io.Reader has none
	client   *Client
	repo     reference.Named
	desc     ocispec.Descriptor
	endpoint endpoint
	others   []endpoint // to ask next

	body   io.ReadCloser // nil between connections
	offset int64
	tries  int // without a byte in between
	cancel context.CancelFunc

	timer   *time.Timer // runs while a read waits
	stalled atomic.Bool // the timer has cut the connection off
}

// next goes to the next endpoint that answers; err is what the one before did.
func (b *blob) next(err error) error {
	for len(b.others) > 0 {
		if cause := context.Cause(b.ctx); cause != nil {
			return cause
		}
		b.endpoint, b.others, b.tries = b.others[0], b.others[1:], 0
		if err = b.open(); err == nil {
			return nil
		}
	}
	return err
}

// open asks for what is still missing.
func (b *blob) open() error {
	ctx, cancel := context.WithCancel(b.ctx)
	header := http.Header{}
	if b.offset > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(b.offset, 10)+"-")
	}
	kind := "/blobs/"
	if IsManifest(b.desc.MediaType) {
		kind = "/manifests/"
		header["Accept"] = acceptManifests
	}
	resp, err := b.client.do(ctx, b.endpoint, call{method: http.MethodGet, repo: b.repo, path: kind + b.desc.Digest.String(), header: header})
	if err != nil {
		cancel()
		return err
	}
	if err := b.check(resp); err != nil {
		resp.Body.Close()
		cancel()
		return err
	}
	b.body, b.cancel = resp.Body, cancel
	b.stalled.Store(false)
	b.timer = time.AfterFunc(b.client.cfg.Stall, func() { b.stalled.Store(true); cancel() })
	b.timer.Stop() // runs only while a read waits
	return nil
}

// check holds the answer's head against what was asked for, and skips what a
// registry without ranges sends again.
func (b *blob) check(resp *http.Response) error {
	missing := b.desc.Size - b.offset
	if resp.StatusCode == http.StatusPartialContent {
		var from, to, total int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &total); err == nil && (from != b.offset || total != b.desc.Size) {
			return fmt.Errorf("registry answers with range %q, not from %d of %d: %w",
				printable(resp.Header.Get("Content-Range")), b.offset, b.desc.Size, errdefs.ErrFailedPrecondition)
		}
	} else {
		missing = b.desc.Size
	}
	if resp.ContentLength >= 0 && resp.ContentLength != missing {
		return fmt.Errorf("registry sends %d bytes, not %d: %w", resp.ContentLength, missing, errdefs.ErrFailedPrecondition)
	}
	if resp.StatusCode != http.StatusPartialContent && b.offset > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

func (b *blob) Read(p []byte) (int, error) {
	if b.offset == b.desc.Size {
		return 0, b.end()
	}
	for {
		if b.body == nil {
			err := b.open()
			if err != nil {
				err = b.next(err)
			}
			if err != nil {
				return 0, b.fail(err)
			}
		}
		b.timer.Reset(b.client.cfg.Stall)
		n, err := b.body.Read(p[:min(int64(len(p)), b.desc.Size-b.offset)])
		b.timer.Stop()
		b.offset += int64(n)
		if n > 0 {
			b.tries = 0
			return n, nil // an error comes again
		}
		if err == nil {
			continue
		}
		if err = b.retry(err); err != nil {
			err = b.next(err)
		}
		if err != nil {
			return 0, b.fail(err)
		}
	}
}

// retry lets the broken connection go; it gives the error that ends the transfer.
func (b *blob) retry(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	err = fmt.Errorf("%d of %d bytes came: %w", b.offset, b.desc.Size, unavailable(err))
	if b.stalled.Load() {
		err = fmt.Errorf("registry stalls: %d of %d bytes came, then none for %s: %w", b.offset, b.desc.Size, b.client.cfg.Stall, errdefs.ErrUnavailable)
	}
	b.Close()
	if cause := context.Cause(b.ctx); cause != nil {
		return cause
	}
	if b.tries++; b.tries > b.client.cfg.Retries {
		return err
	}
	return b.client.wait(b.ctx, b.tries-1, nil)
}

// end makes sure that nothing follows the last byte.
func (b *blob) end() error {
	if b.body == nil {
		return io.EOF
	}
	var one [1]byte
	b.timer.Reset(b.client.cfg.Stall)
	n, _ := b.body.Read(one[:])
	b.Close()
	if n > 0 {
		return b.fail(fmt.Errorf("registry sends more than %d bytes: %w", b.desc.Size, errdefs.ErrFailedPrecondition))
	}
	return io.EOF
}

func (b *blob) fail(err error) error {
	return fmt.Errorf("fetch %s of %s: %w", b.desc.Digest, b.repo.Name(), err)
}

// Close ends the transfer.
func (b *blob) Close() error {
	if b.body == nil {
		return nil
	}
	b.timer.Stop()
	b.cancel()
	err := b.body.Close()
	b.body = nil
	return err
}
