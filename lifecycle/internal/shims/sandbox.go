package shims

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	sandbox "github.com/containerd/containerd/api/runtime/sandbox/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
)

// A sandbox is a shim that was started for a pod before any of its containers:
//
//	lifecycle                                 shim
//	   ├── exec: shim … start ────────────────▶│
//	   ├── Sandbox.CreateSandbox, StartSandbox ▶│  the pod is there
//	   ├── Task.Create, Start, … Delete ───────▶│  its containers come and go
//	   ├── Sandbox.StopSandbox, ShutdownSandbox ▶│  (exits)
//
// It has a bundle as a task has, and its place in the table; it is no task.

// sandboxService is asked of the shim of a sandbox.
const sandboxService = "containerd.runtime.sandbox.v1.Sandbox"

// SandboxOptions say how a sandbox is made.
type SandboxOptions struct {
	Runtime string
	Options *anypb.Any // of the shim, for its start
	Spec    []byte     // config.json
	// Request is what the shim is asked; ID and Bundle are filled in here.
	Request *sandbox.CreateSandboxRequest
}

// CreateSandbox makes the bundle, starts the shim and has it create the sandbox,
// or leaves nothing behind.
func (t *Table) CreateSandbox(ctx context.Context, ns, id string, o SandboxOptions) error {
	task, err := t.resolved(ns, id, o.Runtime)
	if err != nil {
		return err
	}
	task.sandbox = true
	if err := t.enter(ctx, task); err != nil {
		return err
	}
	return task.made(task.create(ctx, CreateOptions{Options: o.Options, Spec: o.Spec}, func() error {
		o.Request.SandboxID, o.Request.BundlePath = id, task.bundle.dir
		return task.callSandbox(ctx, "CreateSandbox", o.Request, &sandbox.CreateSandboxResponse{})
	}))
}

// Sandbox gives a sandbox that was created. One that is being restored is waited for.
func (t *Table) Sandbox(ctx context.Context, ns, id string) (*Sandbox, error) {
	task, err := t.find(ctx, ns, id)
	if err == nil && !task.sandbox {
		err = notFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox %s: %w", id, err)
	}
	return &Sandbox{task}, nil
}

// Sandbox is a sandbox and the connection to its shim.
type Sandbox struct{ task *Task }

// Call asks the sandbox's shim.
func (s *Sandbox) Call(ctx context.Context, method string, req, resp any) error {
	if err := s.task.await(ctx); err != nil {
		return err
	}
	return s.task.callSandbox(ctx, method, req, resp)
}

func (t *Task) callSandbox(ctx context.Context, method string, req, resp any) error {
	c, err := t.connection()
	if err != nil {
		return err
	}
	return c.callService(ctx, sandboxService, method, req, resp)
}

// Endpoint is where the shim serves the Task API, for those who make a task in it.
func (s *Sandbox) Endpoint() (address string, version uint32, err error) {
	where, err := s.task.bundle.address()
	if err != nil {
		return "", 0, err
	}
	return "ttrpc+" + where.Address, uint32(where.Version), nil
}

// Wait waits for the end of the sandbox. If the shim dies, so has the sandbox.
func (s *Sandbox) Wait(ctx context.Context) (Exit, error) {
	var r sandbox.WaitSandboxResponse
	err := s.Call(ctx, "WaitSandbox", &sandbox.WaitSandboxRequest{SandboxID: s.task.ID}, &r)
	if err == nil {
		return Exit{Status: r.ExitStatus, At: r.ExitedAt}, nil
	}
	return s.task.exitInstead(ctx, err)
}

// Exit gives the end of a sandbox whose shim died, with ok false while it lives.
func (s *Sandbox) Exit() (e Exit, ok bool) { return s.task.Exit() }

// Shutdown has the shim end, and removes the bundle.
func (s *Sandbox) Shutdown(ctx context.Context) error {
	t := s.task
	if err := t.await(ctx); err != nil {
		return err
	}
	if _, dead := t.Exit(); dead {
		t.table.Forget(t.Namespace, t.ID)
		return nil
	}
	t.mu.Lock()
	t.ending = true
	t.mu.Unlock()
	if err := t.bundle.markDeleted(); err != nil {
		return fmt.Errorf("shut sandbox %s down: %w", t.ID, err)
	}
	err := t.callSandbox(ctx, "ShutdownSandbox", &sandbox.ShutdownSandboxRequest{SandboxID: t.ID}, &sandbox.ShutdownSandboxResponse{})
	died := errdefs.IsUnavailable(err)
	if err != nil && !died && !errdefs.IsNotFound(err) {
		t.goesOn()
		return errors.Join(err, t.bundle.unmarkDeleted())
	}
	t.mu.Lock()
	buried := t.buried
	t.mu.Unlock()
	if !buried && t.enter(leaving) {
		t.table.work.Go(func() {
			if died {
				t.cleanUp()
			}
			t.retire()
		})
	}
	select {
	case <-t.gone:
		t.table.Forget(t.Namespace, t.ID)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sandbox %s is being shut down: %w", t.ID, context.Cause(ctx))
	}
}

// goesOn takes back that the shim is to end. It may have died by itself meanwhile.
func (t *Task) goesOn() {
	t.mu.Lock()
	t.ending = false
	died := t.closed && !t.buried
	t.buried = t.buried || died
	t.mu.Unlock()
	if died {
		t.buryLater()
	}
}

// cleanUp has the shim's binary take apart what a shim that died left.
func (t *Task) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupWait)
	defer cancel()
	if _, err := t.table.cleanup(ctx, t.binary, t.bundle); err != nil {
		t.table.cfg.Log.Error("clean up after dead shim", "namespace", t.Namespace, "task", t.ID, "err", err)
	}
}

// askSandbox is ask for the shim of a sandbox.
func (t *Task) askSandbox(ctx context.Context) error {
	return t.callSandbox(ctx, "PingSandbox", &sandbox.PingRequest{SandboxID: t.ID}, &sandbox.PingResponse{})
}

// Endpoint is a shim that runs already, in which a task is made.
type Endpoint struct {
	Address string // "unix://PATH", also with "ttrpc+" before it
	Version uint32 // of its Task API; 0 is 3
}

func (e Endpoint) result() (*bootstrap.BootstrapResult, error) {
	version := int32(e.Version)
	if version == 0 {
		version = 3
	}
	return checkStart(&bootstrap.BootstrapResult{Version: version, Address: strings.TrimPrefix(e.Address, "ttrpc+"), Protocol: "ttrpc"})
}

// endpointOf is the shim of the sandbox that a container names; nil where it is
// none of ours: then the shim's own "start" knows how to group.
func (t *Table) endpointOf(ctx context.Context, ns, id string) (*Endpoint, error) {
	if id == "" {
		return nil, nil
	}
	s, err := t.Sandbox(ctx, ns, id)
	if errdefs.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	address, version, err := s.Endpoint()
	return &Endpoint{address, version}, err
}
