package lifecycle

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/sandbox/v1"
	"github.com/containerd/errdefs"
)

// sandboxStore is containerd.services.sandbox.v1.Store. No sandbox can be made, so
// there is none: List says so, and the rest is Unimplemented.
type sandboxStore struct{ api.UnimplementedStoreServer }

func (sandboxStore) List(context.Context, *api.StoreListRequest) (*api.StoreListResponse, error) {
	return &api.StoreListResponse{}, nil
}

func (sandboxStore) Get(_ context.Context, r *api.StoreGetRequest) (*api.StoreGetResponse, error) {
	return nil, fmt.Errorf("sandbox %q: %w", r.SandboxID, errdefs.ErrNotFound)
}

// sandboxController is containerd.services.sandbox.v1.Controller, Unimplemented.
type sandboxController struct {
	api.UnimplementedControllerServer
}
