package shims

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/ttrpc"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/lifecycle/internal/trace"
)

// client speaks the Task API with one shim. Versions 2 and 3 have the same
// messages and differ in the service's name alone.
type client struct {
	conn    *ttrpc.Client
	service string
	ns      string
}

func dial(ctx context.Context, ns string, where *bootstrap.BootstrapResult, onClose func()) (*client, error) {
	var d net.Dialer
	path := strings.TrimPrefix(where.Address, "unix://")
	if strings.HasPrefix(path, "\x00") {
		path = "@" + path[1:]
	}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial shim: %w", err)
	}
	return &client{
		conn:    ttrpc.NewClient(conn, ttrpc.WithOnClose(onClose)),
		service: fmt.Sprintf("containerd.task.v%d.Task", where.Version),
		ns:      ns,
	}, nil
}

// nsHeader carries the namespace over ttrpc, as containerd has it.
const nsHeader = "containerd-namespace-ttrpc"

// call asks the shim. A shim that is gone is Unavailable.
func (c *client) call(ctx context.Context, method string, req, resp any) error {
	return c.callService(ctx, c.service, method, req, resp)
}

func (c *client) callService(ctx context.Context, service, method string, req, resp any) error {
	md := ttrpc.MD{nsHeader: {c.ns}}
	if trace.From(ctx) != nil {
		md[journey.Key] = []string{"1"}
	}
	err := c.conn.Call(ttrpc.WithMetadata(ctx, md), service, method, req, resp)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ttrpc.ErrClosed):
		return fmt.Errorf("shim is gone: %w", errdefs.ErrUnavailable)
	case ctx.Err() != nil:
		return fmt.Errorf("shim does not answer: %w", context.Cause(ctx))
	}
	return errgrpc.ToNative(err)
}
