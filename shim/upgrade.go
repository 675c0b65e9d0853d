package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/version"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// shimV1 is a service of our own on the shim's socket. Its one method, Upgrade, has
// the shim go on as the program that is now where it was started from, and is
// answered by that. Other shims answer that they do not have it.
const shimV1 = "gantry.shim.v1.Shim"

// upgradeResponse is what Upgrade answers.
type upgradeResponse struct {
	version string // of the program that runs now
	pid     uint32
}

// Fields lists the fields of upgradeResponse.
func (m *upgradeResponse) Fields(c *wire.Codec) {
	c.String(1, &m.version)
	wire.Uint(c, 2, &m.pid)
}

// upgradePatience is how long a shim may take to come to rest for Upgrade.
const upgradePatience = 10 * time.Second

func (s *Shim) handleShim(ctx context.Context, c *ttrpc.Call) (wire.Message, error) {
	if c.Method != "Upgrade" {
		return nil, noMethod(c)
	}
	if !c.Resumed {
		if err := s.upgrade(ctx); err != nil {
			return nil, err
		}
	}
	return &upgradeResponse{version: version.Version, pid: uint32(os.Getpid())}, nil
}

// upgrade returns only where it fails.
func (s *Shim) upgrade(ctx context.Context) error {
	s.gate.Leave()
	defer s.gate.Enter()
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, upgradePatience)
	defer cancel()
	if err := patiently(ctx, func() error { return s.try(program) }); err != nil {
		return err
	}
	return patiently(ctx, func() error { return s.handOver(program) })
}

// patiently calls f again while the shim is busy.
func patiently(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !errors.Is(err, errBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(stillWithin):
		}
	}
}

// upgradeAll has every shim of a daemon take up the program that is now where it was
// started from. Foreign shims are passed over.
func upgradeAll(a args, stdout io.Writer) error {
	if a.Address == "" {
		return errors.New("upgrade: want -address, the gRPC socket of the daemon whose shims are meant")
	}
	dir := a.socketDir("")
	sockets, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("upgrade: find shims: %w", err)
	}
	var failed []error
	for _, socket := range sockets {
		if socket.Type() != fs.ModeSocket {
			continue
		}
		path := filepath.Join(dir, socket.Name())
		r, err := upgradeOne(path)
		switch st, ok := errors.AsType[*ttrpc.Status](err); {
		case err == nil:
			fmt.Fprintf(stdout, "%d %s\n", r.pid, r.version)
		case ok && st.Code == unimplemented, errors.Is(err, unix.ECONNREFUSED):
		default:
			failed = append(failed, fmt.Errorf("upgrade shim at %s: %w", path, err))
		}
	}
	return errors.Join(failed...)
}

// unimplemented is google.rpc.Code UNIMPLEMENTED.
const unimplemented = 12

func upgradeOne(path string) (*upgradeResponse, error) {
	c, err := ttrpc.Dial(path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := &upgradeResponse{}
	return r, c.Call(shimV1, "Upgrade", &taskapi.Empty{}, r, upgradePatience+tryTimeout)
}

// socketDir is where shims of the daemon listen: in dir, or in "s" beside the
// daemon's own socket, which is /run/containerd/s for a stock containerd.
func (a *args) socketDir(dir string) string {
	if dir == "" && a.Address != "" {
		dir = filepath.Join(filepath.Dir(strings.TrimPrefix(a.Address, "unix://")), "s")
	}
	return dir
}
