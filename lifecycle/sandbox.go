package lifecycle

import (
	"context"
	"fmt"

	eventtypes "github.com/containerd/containerd/api/events"
	shim "github.com/containerd/containerd/api/runtime/sandbox/v1"
	api "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/lifecycle/internal/exchange"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/lifecycle/internal/shims"
)

// sandboxStore is containerd.services.sandbox.v1.Store: what is on record of
// sandboxes, whoever controls them.
type sandboxStore struct {
	api.UnimplementedStoreServer
	db *meta.DB
}

func (s *sandboxStore) in(ctx context.Context) (meta.Sandboxes, error) {
	scope, err := scopeOf(ctx)
	return s.db.Sandboxes(scope.Namespace), err
}

func (s *sandboxStore) Create(ctx context.Context, r *api.StoreCreateRequest) (*api.StoreCreateResponse, error) {
	all, err := s.in(ctx)
	if err != nil {
		return nil, err
	}
	sb, err := all.Create(r.Sandbox)
	return &api.StoreCreateResponse{Sandbox: sb}, err
}

func (s *sandboxStore) Update(ctx context.Context, r *api.StoreUpdateRequest) (*api.StoreUpdateResponse, error) {
	all, err := s.in(ctx)
	if err != nil {
		return nil, err
	}
	sb, err := all.Update(r.Sandbox, r.Fields)
	return &api.StoreUpdateResponse{Sandbox: sb}, err
}

func (s *sandboxStore) Delete(ctx context.Context, r *api.StoreDeleteRequest) (*api.StoreDeleteResponse, error) {
	all, err := s.in(ctx)
	if err != nil {
		return nil, err
	}
	return &api.StoreDeleteResponse{}, all.Delete(r.SandboxID)
}

func (s *sandboxStore) List(ctx context.Context, r *api.StoreListRequest) (*api.StoreListResponse, error) {
	all, err := s.in(ctx)
	if err != nil {
		return nil, err
	}
	list, err := all.List(r.Filters...)
	return &api.StoreListResponse{List: list}, err
}

func (s *sandboxStore) Get(ctx context.Context, r *api.StoreGetRequest) (*api.StoreGetResponse, error) {
	all, err := s.in(ctx)
	if err != nil {
		return nil, err
	}
	sb, err := all.Get(r.SandboxID)
	return &api.StoreGetResponse{Sandbox: sb}, err
}

// sandboxer is the one controller that there is: a sandbox is a shim.
const sandboxer = "shim"

// sandboxController is containerd.services.sandbox.v1.Controller. What is asked of
// a sandbox is asked of its shim.
type sandboxController struct {
	api.UnimplementedControllerServer
	db     *meta.DB
	shims  *shims.Table
	events *exchange.Exchange
}

// scope is the namespace of a request to a controller.
func (c *sandboxController) scope(ctx context.Context, controller string) (string, error) {
	switch controller {
	case sandboxer:
		s, err := scopeOf(ctx)
		return s.Namespace, err
	case "":
		return "", fmt.Errorf("sandbox controller without a name, want %q: %w", sandboxer, errdefs.ErrInvalidArgument)
	}
	return "", fmt.Errorf("sandbox controller %q: %w", controller, errdefs.ErrNotFound)
}

func (c *sandboxController) find(ctx context.Context, controller, id string) (*shims.Sandbox, string, error) {
	ns, err := c.scope(ctx, controller)
	if err != nil {
		return nil, "", err
	}
	sb, err := c.shims.Sandbox(ctx, ns, id)
	return sb, ns, err
}

// Create starts the shim. What it is to be is in the request, or, from older
// clients, in the store.
func (c *sandboxController) Create(ctx context.Context, r *api.ControllerCreateRequest) (*api.ControllerCreateResponse, error) {
	ns, err := c.scope(ctx, r.Sandboxer)
	if err != nil {
		return nil, err
	}
	sb := r.Sandbox
	if sb.GetRuntime().GetName() == "" {
		if sb, err = c.db.Sandboxes(ns).Get(r.SandboxID); err != nil {
			return nil, err
		}
	}
	if err := meta.CheckIdentifier("sandbox", r.SandboxID); err != nil {
		return nil, err
	}
	err = c.shims.CreateSandbox(ctx, ns, r.SandboxID, shims.SandboxOptions{
		Runtime: sb.Runtime.Name, Options: sb.Runtime.Options, Spec: sb.Spec.GetValue(),
		Request: &shim.CreateSandboxRequest{Rootfs: r.Rootfs, Options: r.Options, NetnsPath: r.NetnsPath, Annotations: r.Annotations},
	})
	if err != nil {
		return nil, err
	}
	return &api.ControllerCreateResponse{SandboxID: r.SandboxID}, c.publish(ns, "create", &eventtypes.SandboxCreate{SandboxID: r.SandboxID})
}

func (c *sandboxController) publish(ns, what string, event proto.Message) error {
	return c.events.Publish(ns, "/sandboxes/"+what, event)
}

// Start starts the sandbox. One that cannot be started is shut down.
func (c *sandboxController) Start(ctx context.Context, r *api.ControllerStartRequest) (*api.ControllerStartResponse, error) {
	sb, ns, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	var resp shim.StartSandboxResponse
	if err := sb.Call(ctx, "StartSandbox", &shim.StartSandboxRequest{SandboxID: r.SandboxID}, &resp); err != nil {
		return nil, fmt.Errorf("start sandbox %s: %w", r.SandboxID, err)
	}
	address, version, err := sb.Endpoint()
	if err != nil {
		return nil, err
	}
	return &api.ControllerStartResponse{
		SandboxID: r.SandboxID, Pid: resp.Pid, CreatedAt: resp.CreatedAt, Spec: resp.Spec, Address: address, Version: version,
	}, c.publish(ns, "start", &eventtypes.SandboxStart{SandboxID: r.SandboxID})
}

func (c *sandboxController) Platform(ctx context.Context, r *api.ControllerPlatformRequest) (*api.ControllerPlatformResponse, error) {
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	var resp shim.PlatformResponse
	err = sb.Call(ctx, "Platform", &shim.PlatformRequest{SandboxID: r.SandboxID}, &resp)
	return &api.ControllerPlatformResponse{Platform: resp.Platform}, err
}

// Stop ends the sandbox; one that is gone has been stopped.
func (c *sandboxController) Stop(ctx context.Context, r *api.ControllerStopRequest) (*api.ControllerStopResponse, error) {
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err == nil {
		err = sb.Call(ctx, "StopSandbox", &shim.StopSandboxRequest{SandboxID: r.SandboxID, TimeoutSecs: r.TimeoutSecs}, &shim.StopSandboxResponse{})
	}
	if errdefs.IsUnavailable(err) || errdefs.IsNotFound(err) && r.Sandboxer == sandboxer {
		err = nil
	}
	return &api.ControllerStopResponse{}, err
}

func (c *sandboxController) Wait(ctx context.Context, r *api.ControllerWaitRequest) (*api.ControllerWaitResponse, error) {
	sb, ns, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	e, err := sb.Wait(ctx)
	if err != nil {
		return nil, err
	}
	return &api.ControllerWaitResponse{ExitStatus: e.Status, ExitedAt: e.At},
		c.publish(ns, "exit", &eventtypes.SandboxExit{SandboxID: r.SandboxID, ExitStatus: e.Status, ExitedAt: e.At})
}

// Status tells of a sandbox that has no shim only that it has ended.
func (c *sandboxController) Status(ctx context.Context, r *api.ControllerStatusRequest) (*api.ControllerStatusResponse, error) {
	ended := &api.ControllerStatusResponse{SandboxID: r.SandboxID, ExitedAt: timestamppb.Now()}
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if errdefs.IsNotFound(err) && r.Sandboxer == sandboxer {
		return ended, nil
	} else if err != nil {
		return nil, err
	}
	if e, ok := sb.Exit(); ok {
		ended.ExitedAt = e.At
		return ended, nil
	}
	var resp shim.SandboxStatusResponse
	if err := sb.Call(ctx, "SandboxStatus", &shim.SandboxStatusRequest{SandboxID: r.SandboxID, Verbose: r.Verbose}, &resp); err != nil {
		return nil, err
	}
	address, version, err := sb.Endpoint()
	return &api.ControllerStatusResponse{
		SandboxID: r.SandboxID, Pid: resp.Pid, State: resp.State, Info: resp.Info, CreatedAt: resp.CreatedAt,
		ExitedAt: resp.ExitedAt, Extra: resp.Extra, Address: address, Version: version,
	}, err
}

func (c *sandboxController) Shutdown(ctx context.Context, r *api.ControllerShutdownRequest) (*api.ControllerShutdownResponse, error) {
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	return &api.ControllerShutdownResponse{}, sb.Shutdown(ctx)
}

// Update tells the sandbox what became of its record. Shims need not know how, and
// say then that it is not implemented.
func (c *sandboxController) Update(ctx context.Context, r *api.ControllerUpdateRequest) (*api.ControllerUpdateResponse, error) {
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	if r.Sandbox == nil {
		return nil, fmt.Errorf("update sandbox %s: without a sandbox: %w", r.SandboxID, errdefs.ErrInvalidArgument)
	}
	req := &shim.UpdateSandboxRequest{SandboxID: r.SandboxID, Sandbox: r.Sandbox, Fields: r.Fields}
	if err := sb.Call(ctx, "UpdateSandbox", req, &shim.UpdateSandboxResponse{}); err != nil {
		return nil, fmt.Errorf("update sandbox %s: %w", r.SandboxID, err)
	}
	return &api.ControllerUpdateResponse{}, nil
}

func (c *sandboxController) Metrics(ctx context.Context, r *api.ControllerMetricsRequest) (*api.ControllerMetricsResponse, error) {
	sb, _, err := c.find(ctx, r.Sandboxer, r.SandboxID)
	if err != nil {
		return nil, err
	}
	var resp shim.SandboxMetricsResponse
	if err := sb.Call(ctx, "SandboxMetrics", &shim.SandboxMetricsRequest{SandboxID: r.SandboxID}, &resp); err != nil {
		return nil, err
	}
	if resp.Metrics == nil {
		resp.Metrics = &types.Metric{ID: r.SandboxID, Timestamp: timestamppb.Now()}
	}
	return &api.ControllerMetricsResponse{Metrics: resp.Metrics}, nil
}
