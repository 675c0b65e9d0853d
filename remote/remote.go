// Package remote is the client of OCI distribution: it resolves names, reads
// and writes manifests and blobs in any registry, and authenticates.
//
// Above it stand store/image and engine; on the other side stands a registry
// that may be slow, broken or hostile. Every digest and size is verified here,
// a transfer that stalls is cut off and resumed, and what cannot be had is one
// line that names the thing.
package remote

import (
	"context"
	"io"
	"time"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Credential is what a user gave for a registry. With an empty User the Secret
// is an identity (refresh) token.
type Credential struct {
	User   string
	Secret string
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
	// UserAgent of every request; empty is "gantry/VERSION".
	UserAgent string
}

// Fetcher reads from one repository.
type Fetcher interface {
	// Fetch reads the blob or manifest from offset on. The reader goes on by
	// itself when the connection breaks; it verifies the size, and the digest
	// when offset is 0.
	Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// Client speaks to registries. It is safe for concurrent use and keeps
// connections and tokens; Close lets them go.
type Client struct {
	cfg Config
}

// New makes a client.
func New(cfg Config) *Client { return &Client{cfg: cfg} }

// Close drops idle connections.
func (c *Client) Close() {}

// ParseName reads a name as docker does: "busybox" is
// "docker.io/library/busybox:latest".
func ParseName(name string) (reference.Named, error) {
	ref, err := reference.ParseDockerRef(name)
	return ref, err
}
