package shim_test

import (
	"context"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	sandboxapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// pod is a shim that is asked to be a sandbox.
type pod struct {
	*task
	sandbox sandboxapi.TTRPCSandboxService
	shim    int
}

func newPod(t *task) *pod {
	p := &pod{task: t, sandbox: sandboxapi.NewTTRPCSandboxClient(t.conn)}
	c, err := t.client.Connect(context.Background(), &taskv3.ConnectRequest{ID: t.id})
	if err != nil {
		t.t.Fatal(err)
	}
	p.shim = int(c.ShimPid)
	return p
}

func (p *pod) create() error {
	_, err := p.sandbox.CreateSandbox(context.Background(), &sandboxapi.CreateSandboxRequest{SandboxID: p.id, BundlePath: p.bundle, Rootfs: p.rootfs})
	return err
}

func (p *pod) status() *sandboxapi.SandboxStatusResponse {
	p.t.Helper()
	r, err := p.sandbox.SandboxStatus(context.Background(), &sandboxapi.SandboxStatusRequest{SandboxID: p.id})
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *pod) ok(_ any, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Error(err)
	}
}

func (p *pod) refused(want codes.Code, err error) {
	p.t.Helper()
	if got := status.Code(err); got != want {
		p.t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

// The pause container is the sandbox; a container of the pod comes and goes in the
// same shim, which outlives it.
func TestASandboxIsItsPauseContainer(t *testing.T) {
	ctx := context.Background()
	d := newDaemon(t)
	p := newPod(d.newTask("pod", spec("sleep", "1000")))
	p.refused(codes.NotFound, func() error {
		_, err := p.sandbox.StartSandbox(ctx, &sandboxapi.StartSandboxRequest{SandboxID: p.id})
		return err
	}())
	p.ok(nil, p.create())
	p.refused(codes.AlreadyExists, p.create())
	if st := p.status(); st.State != "SANDBOX_NOTREADY" {
		t.Errorf("before its start it is %s", st.State)
	}
	started, err := p.sandbox.StartSandbox(ctx, &sandboxapi.StartSandboxRequest{SandboxID: p.id})
	if err != nil {
		t.Fatal(err)
	}
	if st := p.status(); st.State != "SANDBOX_READY" || st.Pid != started.Pid || st.Pid == uint32(p.shim) || st.ExitedAt.IsValid() && st.ExitedAt.Seconds > 0 {
		t.Errorf("it is %v; its process is %d", st, started.Pid)
	}
	p.ok(p.sandbox.PingSandbox(ctx, &sandboxapi.PingRequest{SandboxID: p.id}))
	if r, err := p.sandbox.Platform(ctx, &sandboxapi.PlatformRequest{SandboxID: p.id}); err != nil || r.Platform.OS != "linux" || r.Platform.Architecture != goruntime.GOARCH {
		t.Errorf("platform: %v %v", r, err)
	}
	if r, err := p.sandbox.SandboxMetrics(ctx, &sandboxapi.SandboxMetricsRequest{SandboxID: p.id}); err != nil || r.Metrics.ID != p.id || r.Metrics.Data == nil {
		t.Errorf("metrics: %v %v", r, err)
	}

	c := d.prepare("member", spec("sleep", "1000"))
	c.client, c.conn, c.socket = p.client, p.conn, p.socket
	c.create("", uris{})
	c.run("")
	_, err = p.sandbox.ShutdownSandbox(ctx, &sandboxapi.ShutdownSandboxRequest{SandboxID: p.id})
	p.refused(codes.FailedPrecondition, err)
	c.kill("", 9)
	c.wait("")
	c.delete("")
	p.ok(p.client.Shutdown(ctx, &taskv3.ShutdownRequest{ID: c.id}))
	if st := p.status(); st.State != "SANDBOX_READY" {
		t.Errorf("with its container gone it is %s", st.State)
	}

	begin := time.Now()
	p.ok(p.sandbox.StopSandbox(ctx, &sandboxapi.StopSandboxRequest{SandboxID: p.id}))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("stop took %v", took)
	}
	if r, err := p.sandbox.WaitSandbox(ctx, &sandboxapi.WaitSandboxRequest{SandboxID: p.id}); err != nil || r.ExitStatus != 137 || time.Since(r.ExitedAt.AsTime()) > time.Minute {
		t.Errorf("wait: %v %v", r, err)
	}
	if st := p.status(); st.State != "SANDBOX_NOTREADY" || st.ExitedAt.AsTime().Before(begin) {
		t.Errorf("stopped, it is %v", st)
	}
	p.ok(p.sandbox.ShutdownSandbox(ctx, &sandboxapi.ShutdownSandboxRequest{SandboxID: p.id}))
	gone(t, p.shim)
	p.wantNothingLeft()
}

// Where the bundle has no process, the shim is the sandbox.
func TestASandboxWithoutAProcessIsItsShim(t *testing.T) {
	ctx := context.Background()
	d := newDaemon(t)
	p := newPod(d.newTask("pod", spec("sleep", "1000")))
	if err := os.WriteFile(filepath.Join(p.bundle, "config.json"), []byte(`{"ociVersion":"1.0.2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.ok(nil, p.create())
	if r, err := p.sandbox.StartSandbox(ctx, &sandboxapi.StartSandboxRequest{SandboxID: p.id}); err != nil || r.Pid != uint32(p.shim) {
		t.Errorf("start: %v %v, want process %d", r, err, p.shim)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := p.sandbox.WaitSandbox(ctx, &sandboxapi.WaitSandboxRequest{SandboxID: p.id})
		waited <- err
	}()
	p.ok(p.client.Shutdown(ctx, &taskv3.ShutdownRequest{ID: p.id}))
	p.ok(p.sandbox.PingSandbox(ctx, &sandboxapi.PingRequest{SandboxID: p.id}))
	select {
	case err := <-waited:
		t.Errorf("wait ended before the sandbox: %v", err)
	default:
	}
	p.ok(p.sandbox.StopSandbox(ctx, &sandboxapi.StopSandboxRequest{SandboxID: p.id}))
	p.ok(nil, <-waited)
	p.ok(p.sandbox.ShutdownSandbox(ctx, &sandboxapi.ShutdownSandboxRequest{SandboxID: p.id}))
	gone(t, p.shim)
}
