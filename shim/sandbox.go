package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// sandboxV1 is the service by which a daemon makes the shim a pod's before the
// pod has a container. Its containers are then made by the Task service.
const sandboxV1 = "containerd.runtime.sandbox.v1.Sandbox"

// The words of SandboxStatus, which are Kubernetes'.
const (
	sandboxReady    = "SANDBOX_READY"
	sandboxNotReady = "SANDBOX_NOTREADY"
)

// sandbox is what a pod's containers join. Its process is the first one of a
// container, the pause container, where the bundle's config.json has one; else it
// is the shim, which needs nothing to be a pod of shared namespaces by path.
type sandbox struct {
	id      string
	created time.Time
	pause   *container // nil where the shim is the sandbox

	mu      sync.Mutex
	started bool
	exit    exit
	ended   chan struct{} // closed when it was stopped, or its process ended
}

func (s *Shim) handleSandbox(ctx context.Context, c *ttrpc.Call) (wire.Message, error) {
	switch c.Method {
	case "CreateSandbox":
		return with(ctx, c, s.createSandbox)
	case "StartSandbox":
		return with(ctx, c, s.startSandbox)
	case "Platform":
		return with(ctx, c, s.platform)
	case "StopSandbox":
		return with(ctx, c, s.stopSandbox)
	case "WaitSandbox":
		return with(ctx, c, s.waitSandbox)
	case "SandboxStatus":
		return with(ctx, c, s.sandboxStatus)
	case "PingSandbox":
		return with(ctx, c, s.pingSandbox)
	case "ShutdownSandbox":
		return with(ctx, c, s.shutdownSandbox)
	case "SandboxMetrics":
		return with(ctx, c, s.sandboxMetrics)
	}
	return nil, noMethod(c)
}

// pod finds the sandbox; a shim has one at most.
func (s *Shim) pod(id string) (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox == nil || s.sandbox.id != id {
		return nil, fmt.Errorf("sandbox %s: %w", id, errdefs.ErrNotFound)
	}
	return s.sandbox, nil
}

func (s *Shim) createSandbox(_ context.Context, r *taskapi.CreateSandboxRequest) (_ wire.Message, err error) {
	sb := &sandbox{id: r.SandboxID, created: time.Now(), ended: make(chan struct{})}
	has, err := hasProcess(r.Bundle)
	if err != nil {
		return nil, fmt.Errorf("create sandbox %s: %w", r.SandboxID, err)
	}
	sb.mu.Lock() // who finds it waits until it is there
	defer sb.mu.Unlock()
	if err := s.enter(sb); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { s.leaveSandbox(); return nil })
	if !has {
		return nil, nil
	}
	if err := s.reserve(sb.id); err != nil {
		return nil, err
	}
	sb.pause, err = s.create(&taskapi.CreateRequest{ID: sb.id, Bundle: r.Bundle, Rootfs: r.Rootfs, Options: r.Options}, nil)
	s.put(sb.id, sb.pause)
	return nil, err
}

// enter makes sb the shim's sandbox.
func (s *Shim) enter(sb *sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox != nil {
		return fmt.Errorf("sandbox %s: the shim has sandbox %s: %w", sb.id, s.sandbox.id, errdefs.ErrAlreadyExists)
	}
	s.sandbox = sb
	return nil
}

func (s *Shim) leaveSandbox() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandbox = nil
}

// hasProcess says whether the bundle describes a process.
func hasProcess(bundle string) (bool, error) {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return false, fmt.Errorf("read config.json: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return spec.Process != nil && len(spec.Process.Args) > 0, nil
}

func (s *Shim) startSandbox(_ context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.started {
		return nil, fmt.Errorf("start sandbox %s: it was started: %w", sb.id, errdefs.ErrFailedPrecondition)
	}
	if sb.pause != nil {
		if err := sb.pause.start(); err != nil {
			return nil, err
		}
		go sb.follow()
	}
	sb.started = true
	s.settleSoon()
	return &taskapi.StartSandboxResponse{Pid: sb.pid(), CreatedAt: taskapi.At(sb.created)}, nil
}

// follow has the sandbox end with its process.
func (sb *sandbox) follow() {
	p := sb.pause.init
	<-p.done
	p.mu.Lock()
	e := p.exit
	p.mu.Unlock()
	sb.end(e)
}

func (sb *sandbox) pid() uint32 {
	if sb.pause != nil {
		return uint32(sb.pause.init.pid)
	}
	return uint32(os.Getpid())
}

// end notes how the sandbox ended, the first time.
func (sb *sandbox) end(e exit) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	select {
	case <-sb.ended:
	default:
		sb.exit = e
		close(sb.ended)
	}
}

func (s *Shim) platform(_ context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	if _, err := s.pod(r.SandboxID); err != nil {
		return nil, err
	}
	return &taskapi.PlatformResponse{Platform: &taskapi.Platform{OS: goruntime.GOOS, Architecture: goruntime.GOARCH}}, nil
}

// stopSandbox asks the sandbox to end, and kills it when its time is over; where
// it has none, at once.
func (s *Shim) stopSandbox(ctx context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	return nil, sb.stop(ctx, time.Duration(r.Number)*time.Second)
}

func (sb *sandbox) stop(ctx context.Context, patience time.Duration) error {
	sb.mu.Lock()
	started := sb.started
	sb.mu.Unlock()
	if sb.pause == nil || !started {
		sb.end(exit{at: time.Now()})
		return nil
	}
	for _, try := range []struct {
		signal   unix.Signal
		patience time.Duration
	}{{unix.SIGTERM, patience}, {unix.SIGKILL, killPatience}} {
		if try.patience == 0 {
			continue
		}
		if err := sb.pause.init.kill(int(try.signal)); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("stop sandbox %s: %w", sb.id, err)
		}
		select {
		case <-sb.ended:
			return nil
		case <-time.After(try.patience):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("stop sandbox %s: process %d does not end", sb.id, sb.pid())
}

// killPatience is how long the kernel may take to end a process that was killed.
const killPatience = 10 * time.Second

func (s *Shim) waitSandbox(ctx context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, sb.ended); err != nil {
		return nil, err
	}
	return &taskapi.WaitResponse{ExitStatus: sb.exit.status, ExitedAt: taskapi.At(sb.exit.at)}, nil
}

func (s *Shim) sandboxStatus(_ context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	sb.mu.Lock()
	defer sb.mu.Unlock()
	st := &taskapi.SandboxStatusResponse{SandboxID: sb.id, Pid: sb.pid(), State: sandboxNotReady, CreatedAt: taskapi.At(sb.created)}
	select {
	case <-sb.ended:
		st.ExitedAt = taskapi.At(sb.exit.at)
	default:
		if sb.started {
			st.State = sandboxReady
		}
	}
	return st, nil
}

func (s *Shim) pingSandbox(_ context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	_, err := s.pod(r.SandboxID)
	return nil, err
}

// shutdownSandbox ends the sandbox and the shim, when the pod's containers are gone.
func (s *Shim) shutdownSandbox(ctx context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	if err := s.onlySandbox(sb); err != nil {
		return nil, err
	}
	if err := sb.stop(ctx, 0); err != nil {
		return nil, err
	}
	if sb.pause != nil {
		if err := sb.pause.delete(); err != nil {
			return nil, err
		}
	}
	if sb.pause != nil {
		s.put(sb.id, nil)
	}
	s.leaveSandbox()
	return s.shutdown(ctx, nil)
}

func (s *Shim) onlySandbox(sb *sandbox) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.containers {
		if sb.pause == nil || id != sb.id {
			return fmt.Errorf("shut sandbox %s down: it has container %s: %w", sb.id, id, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}

func (s *Shim) sandboxMetrics(ctx context.Context, r *taskapi.SandboxRequest) (wire.Message, error) {
	sb, err := s.pod(r.SandboxID)
	if err != nil {
		return nil, err
	}
	m := &taskapi.Metric{Timestamp: taskapi.At(time.Now()), ID: sb.id}
	if sb.pause != nil {
		stats, err := s.stats(ctx, &taskapi.ProcessRequest{ID: sb.id})
		if err != nil {
			return nil, err
		}
		m.Data = stats.(*taskapi.StatsResponse).Stats
	}
	return &taskapi.SandboxMetricsResponse{Metrics: m}, nil
}
