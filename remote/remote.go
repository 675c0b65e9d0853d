// Package remote is the client of OCI distribution: it resolves names, reads
// and writes manifests and blobs in any registry, and authenticates.
//
// Above it stand store/image and engine; on the other side stands a registry
// that may be slow, broken or hostile. Sizes and the digests of manifests are
// verified here, that of a blob by whoever stores it (the content store does at
// commit); a transfer that stalls is cut off and goes on where it was; and what
// cannot be had is one line that names the thing.
//
// Kinds of error are those of errdefs: NotFound, Unauthenticated,
// PermissionDenied, Unavailable (the registry does not answer, or stalls),
// FailedPrecondition (it answers something else than was asked for).
package remote

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/gantryd/gantry/internal/version"
)

// Credential is what a user gave for a registry. With an empty User the Secret
// is an identity (refresh) token.
type Credential struct {
	User   string
	Secret string
	// Authorization, where it is set, is the value of that header, and all.
	Authorization string
}

// Config says how registries are reached. The zero Config is usable.
type Config struct {
	// Credentials answers for a registry's host as it stands in references
	// ("docker.io", "localhost:5000"); a zero Credential is anonymous.
	Credentials func(ctx context.Context, host string) (Credential, error)
	// PlainHTTP says which hosts may be spoken to without TLS; loopback always may.
	PlainHTTP func(host string) bool
	// HostsDir is a directory in containerd's form, HOST/hosts.toml; empty is none.
	HostsDir string
	// Stall is how long a registry may send no byte; 0 is 30 s.
	Stall time.Duration
	// Retries is how often a request or a transfer is tried again; 0 is 5.
	Retries int
	// Backoff is the wait before the first retry, doubled for each further one;
	// 0 is 200 ms.
	Backoff time.Duration
	// UserAgent of every request; empty is "gantry/VERSION".
	UserAgent string
	// Header is sent to registries with every request, and to those that they redirect
	// to as far as net/http does.
	Header http.Header
}

// Client speaks to registries. It is safe for concurrent use and keeps
// connections and tokens; Close lets idle connections go.
type Client struct {
	cfg Config

	mu         sync.Mutex
	transports map[tlsFiles]*http.Client
	plain      map[string]bool   // by host: it speaks HTTP, not HTTPS
	auth       map[string]string // by host and scope: the value of Authorization
}

// New makes a client.
func New(cfg Config) *Client {
	if cfg.Credentials == nil {
		cfg.Credentials = func(context.Context, string) (Credential, error) { return Credential{}, nil }
	}
	if cfg.PlainHTTP == nil {
		cfg.PlainHTTP = func(string) bool { return false }
	}
	if cfg.Stall == 0 {
		cfg.Stall = 30 * time.Second
	}
	if cfg.Retries == 0 {
		cfg.Retries = 5
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 200 * time.Millisecond
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "gantry/" + version.Version
	}
	return &Client{cfg: cfg, transports: map[tlsFiles]*http.Client{}, plain: map[string]bool{}, auth: map[string]string{}}
}

// Close drops idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// ParseName reads a name as docker does: "busybox" is
// "docker.io/library/busybox:latest".
func ParseName(name string) (reference.Named, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, fmt.Errorf("read name %q: %w: %w", name, err, errdefs.ErrInvalidArgument)
	}
	return ref, nil
}

// identifier is the tag or digest of ref; both given, the digest counts.
func identifier(ref reference.Named) (string, error) {
	if d, ok := ref.(reference.Digested); ok {
		return d.Digest().String(), nil
	}
	if t, ok := ref.(reference.Tagged); ok {
		return t.Tag(), nil
	}
	return "", fmt.Errorf("%s has neither tag nor digest: %w", ref, errdefs.ErrInvalidArgument)
}
