package shims

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// resolve finds the shim binary of a runtime: an absolute path is the binary
// itself, and io.containerd.runc.v2 is containerd-shim-runc-v2, looked up in the
// configured directories and then in PATH.
func (t *Table) resolve(runtime string) (string, error) {
	if filepath.IsAbs(runtime) {
		if _, err := os.Stat(runtime); err != nil {
			return "", fmt.Errorf("runtime %s: %w: %w", runtime, err, errdefs.ErrInvalidArgument)
		}
		return runtime, nil
	}
	parts := strings.Split(runtime, ".")
	if len(parts) < 2 || strings.Contains(runtime, "/") {
		return "", fmt.Errorf("runtime %q: want an absolute path or a name like io.containerd.runc.v2: %w", runtime, errdefs.ErrInvalidArgument)
	}
	name := "containerd-shim-" + strings.Join(parts[len(parts)-2:], "-")
	for _, dir := range t.cfg.ShimDirs {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("runtime %q: shim binary %s is not installed: %w", runtime, name, errdefs.ErrNotFound)
	}
	return filepath.Abs(path)
}

// command is the shim binary with the flags and the environment of the shim v2
// rules.
func (t *Table) command(ctx context.Context, binary string, b bundle, action ...string) *exec.Cmd {
	args := []string{"-namespace", b.ns, "-address", t.cfg.Address, "-publish-binary", t.self, "-id", b.id}
	if t.cfg.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.CommandContext(ctx, binary, append(args, action...)...)
	cmd.Dir = b.dir
	cmd.Env = append(
		os.Environ(),
		"GOMAXPROCS=2",
		"MAX_SHIM_VERSION=3",
		"TTRPC_ADDRESS="+t.cfg.Address+".ttrpc",
		"GRPC_ADDRESS="+t.cfg.Address,
		"NAMESPACE="+b.ns,
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A shim that daemonizes with our pipe still open must not hold us.
	cmd.WaitDelay = time.Second
	return cmd
}

// start runs "shim start" and gives where the shim listens.
//
// On stdin a shim since containerd 2.3 wants BootstrapParams and refuses anything
// else, and one before it wants the runtime's options and may refuse anything
// else. Nothing tells them apart but the refusal, so that is asked for once for
// a binary.
func (t *Table) start(ctx context.Context, binary string, b bundle, options *anypb.Any) (*bootstrap.BootstrapResult, error) {
	_, boots := t.boots.Load(binary)
	where, err := t.startAs(ctx, binary, b, options, boots)
	if err == nil || ctx.Err() != nil {
		return where, err
	}
	where, other := t.startAs(ctx, binary, b, options, !boots)
	switch {
	case other != nil:
		return nil, fmt.Errorf("start shim %s for %s: %w; and with the other form of parameters: %w", binary, b.id, err, other)
	case boots:
		t.boots.Delete(binary)
	default:
		t.boots.Store(binary, nil)
	}
	return where, nil
}

// startAs is start with one form of stdin.
func (t *Table) startAs(ctx context.Context, binary string, b bundle, options *anypb.Any, boots bool) (*bootstrap.BootstrapResult, error) {
	var in proto.Message = options
	if boots {
		in = t.params(b, options)
	}
	data, err := proto.Marshal(in)
	if err != nil {
		return nil, err
	}
	cmd := t.command(ctx, binary, b, "start")
	cmd.Stdin = bytes.NewReader(data)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, failed(ctx, err, stderr.Bytes(), out)
	}
	return parseStart(out)
}

// params is what the flags and the environment say too, for shims that want it on
// stdin.
func (t *Table) params(b bundle, options *anypb.Any) *bootstrap.BootstrapParams {
	p := &bootstrap.BootstrapParams{
		InstanceID: b.id, Namespace: b.ns,
		ContainerdVersion:      t.cfg.Version,
		ContainerdGrpcAddress:  t.cfg.Address,
		ContainerdTtrpcAddress: t.cfg.Address + ".ttrpc",
		ContainerdBinary:       t.self,
	}
	if t.cfg.Debug {
		p.LogLevel = bootstrap.LogLevel_LOG_LEVEL_DEBUG
	}
	if options != nil {
		p.Extensions = []*bootstrap.Extension{{Value: options}}
	}
	return p
}

// failed says why a shim binary failed, in its own words where it has any.
func failed(ctx context.Context, err error, outs ...[]byte) error {
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	for _, out := range outs {
		if s := bytes.TrimSpace(out); len(s) > 0 {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return err
}

// parseStart reads the three forms of answer to "shim start": a BootstrapResult
// in protobuf (containerd 2.3), the same in JSON (1.7), the plain address (1.2).
func parseStart(out []byte) (*bootstrap.BootstrapResult, error) {
	var r bootstrap.BootstrapResult
	if len(out) > 0 && out[0] < ' ' && proto.Unmarshal(out, &r) == nil && r.Address != "" {
		return checkStart(&r)
	}
	out = bytes.TrimSpace(out)
	var j struct {
		Version  int32  `json:"version"`
		Address  string `json:"address"`
		Protocol string `json:"protocol"`
	}
	if json.Unmarshal(out, &j) == nil && j.Version >= 2 {
		return checkStart(&bootstrap.BootstrapResult{Version: j.Version, Address: j.Address, Protocol: j.Protocol})
	}
	return checkStart(&bootstrap.BootstrapResult{Version: 2, Address: string(out), Protocol: "ttrpc"})
}

func checkStart(r *bootstrap.BootstrapResult) (*bootstrap.BootstrapResult, error) {
	switch {
	case r.Version != 2 && r.Version != 3:
		return nil, fmt.Errorf("shim speaks task API version %d, want 2 or 3: %w", r.Version, errdefs.ErrNotImplemented)
	case r.Protocol != "ttrpc" && r.Protocol != "":
		return nil, fmt.Errorf("shim speaks %q, want ttrpc: %w", r.Protocol, errdefs.ErrNotImplemented)
	case !strings.HasPrefix(r.Address, "unix://") && !filepath.IsAbs(r.Address):
		return nil, fmt.Errorf("shim says it listens on %.200q, want unix://PATH: %w", r.Address, errdefs.ErrInvalidArgument)
	}
	return r, nil
}

// cleanup runs "shim delete", by which a shim binary takes apart what a dead
// shim process left: the container's processes, its cgroup, its mounts.
func (t *Table) cleanup(ctx context.Context, binary string, b bundle) (*task.DeleteResponse, error) {
	cmd := t.command(ctx, binary, b, "-bundle", b.dir, "delete")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return nil, fmt.Errorf("clean up after shim of %s: %w", b.id, failed(ctx, err, stderr.Bytes()))
	}
	var r task.DeleteResponse
	if err := proto.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("clean up after shim of %s: read answer: %w", b.id, err)
	}
	return &r, nil
}

// Info asks a runtime's shim binary about itself ("shim -info").
func (t *Table) Info(ctx context.Context, runtime string, options *anypb.Any) ([]byte, error) {
	binary, err := t.resolve(runtime)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, "-info")
	if options != nil {
		in, err := proto.Marshal(options)
		if err != nil {
			return nil, err
		}
		cmd.Stdin = bytes.NewReader(in)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("ask shim %s: %w", binary, failed(ctx, err, stderr.Bytes()))
	}
	return out, nil
}
