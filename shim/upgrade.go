package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// started from.
func upgradeAll(a args, stdout io.Writer) error {
	if a.Address == "" {
		return errors.New("upgrade: want -address, the gRPC socket of the daemon whose shims are meant")
	}
	sockets, err := socketsOf(a.Address)
	if err != nil {
		return fmt.Errorf("upgrade: find shims: %w", err)
	}
	var failed []error
	for _, socket := range sockets {
		r, err := upgradeOne(socket)
		switch st, ok := errors.AsType[*ttrpc.Status](err); {
		case err == nil:
			fmt.Fprintf(stdout, "%d %s\n", r.pid, r.version)
		case ok && st.Code == unimplemented: // from before there were upgrades
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT): // it has ended
		default:
			failed = append(failed, fmt.Errorf("upgrade shim at %s: %w", socket, err))
		}
	}
	return errors.Join(failed...)
}

// socketsOf is where the shims of the daemon at address listen. Which directory that is
// in is for each daemon to choose; but a shim's command line tells the daemon, and the
// socket too, or it was started ahead and its bundle tells it, which it stands in.
func socketsOf(address string) ([]string, error) {
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var sockets []string
	for _, process := range processes {
		line, err := os.ReadFile(process)
		if err != nil {
			continue // ended meanwhile
		}
		argv := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if filepath.Base(argv[0]) != filepath.Base(os.Args[0]) {
			continue
		}
		a, err := parseArgs(argv[1:])
		if err != nil || a.command != "" || !sameAddress(a.Address, address) {
			continue
		}
		socket := a.SocketPath
		if socket == "" {
			said, _ := os.ReadFile(filepath.Join(filepath.Dir(process), "cwd", "address"))
			socket = strings.TrimPrefix(string(said), "unix://")
		}
		if socket != "" {
			sockets = append(sockets, socket)
		}
	}
	return sockets, nil
}

func sameAddress(a, b string) bool {
	return strings.TrimPrefix(a, "unix://") == strings.TrimPrefix(b, "unix://")
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
