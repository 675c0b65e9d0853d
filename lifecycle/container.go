package lifecycle

import (
	"context"

	api "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/lifecycle/internal/shims"
)

// containers is containerd.services.containers.v1.Containers.
type containers struct {
	api.UnimplementedContainersServer
	db    *meta.DB
	shims *shims.Table
}

func (c *containers) Get(ctx context.Context, r *api.GetContainerRequest) (*api.GetContainerResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	ctr, err := c.db.Containers(s.Namespace).Get(r.ID)
	return &api.GetContainerResponse{Container: ctr}, err
}

func (c *containers) List(ctx context.Context, r *api.ListContainersRequest) (*api.ListContainersResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	all, err := c.db.Containers(s.Namespace).List(r.Filters...)
	return &api.ListContainersResponse{Containers: all}, err
}

func (c *containers) ListStream(r *api.ListContainersRequest, srv api.Containers_ListStreamServer) error {
	s, err := scopeOf(srv.Context())
	if err != nil {
		return err
	}
	all, err := c.db.Containers(s.Namespace).List(r.Filters...)
	for _, ctr := range all {
		if err := srv.Send(&api.ListContainerMessage{Container: ctr}); err != nil {
			return err
		}
	}
	return err
}

func (c *containers) Create(ctx context.Context, r *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	ctr, err := c.db.Containers(s.Namespace).Create(r.Container)
	if err == nil && ctr.Sandbox == "" {
		c.shims.StartAhead(s.Namespace, ctr.ID, ctr.GetRuntime().GetName())
	}
	return &api.CreateContainerResponse{Container: ctr}, err
}

func (c *containers) Update(ctx context.Context, r *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	ctr, err := c.db.Containers(s.Namespace).Update(r.Container, r.UpdateMask.GetPaths())
	return &api.UpdateContainerResponse{Container: ctr}, err
}

func (c *containers) Delete(ctx context.Context, r *api.DeleteContainerRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.db.Containers(s.Namespace).Delete(r.ID); err != nil {
		return nil, err
	}
	c.shims.Forget(s.Namespace, r.ID)
	return &emptypb.Empty{}, nil
}
