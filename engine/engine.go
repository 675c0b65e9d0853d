package engine

import (
	"context"
	"log/slog"
	"net"
	"net/http"
)

// Config says where an engine keeps its things and whom it asks.
type Config struct {
	Root  string // data that outlives a boot: container files, volumes, networks
	State string // what a boot forgets: attach sockets, network namespaces, fifos
	// ContainerdAddress is the unix socket of lifecycle or of any containerd.
	ContainerdAddress string
	Namespace         string // containerd namespace; "moby" unless told
	Snapshotter       string // "overlayfs" unless told
	// Runtime is the containerd runtime name for containers that ask for none.
	Runtime string // "io.containerd.gantry.v2" unless told
	// ShimBinary is the absolute path of containerd-shim-gantry-v2, used as the
	// logger of every container (see api/stdio).
	ShimBinary string
	// Bridge is the name of the default bridge device, "gantry0" unless told, and
	// BridgeSubnet its IPv4 prefix, "172.17.0.0/16" unless told or taken.
	Bridge       string
	BridgeSubnet string
	// PublishAddress is the host address of a published port that names none,
	// "0.0.0.0" unless told.
	PublishAddress string
	// InsecureRegistries are hosts that may be spoken to over plain HTTP or with
	// unverified TLS, beside loopback.
	InsecureRegistries []string
	Debug              bool
	Log                *slog.Logger
}

// Engine serves the Docker Engine API.
type Engine struct {
	cfg Config
}

// New connects to containerd, restores the containers that run, and is then
// ready to serve. It does not wait for a container or shim that hangs.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	return &Engine{cfg: cfg}, nil
}

// Serve answers on l until ctx ends, and returns when every request that can end
// has ended. Containers run on.
func (e *Engine) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: e}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close lets go of what the engine holds open. Containers run on.
func (e *Engine) Close() error { return nil }
