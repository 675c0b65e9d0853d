package lifecycle

import (
	"context"

	api "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// leases is containerd.services.leases.v1.Leases.
type leases struct {
	api.UnimplementedLeasesServer
	db *meta.DB
}

func (l *leases) Create(ctx context.Context, r *api.CreateRequest) (*api.CreateResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	lease, err := l.db.Leases(s.Namespace).Create(r.ID, r.Labels)
	return &api.CreateResponse{Lease: lease}, err
}

func (l *leases) Delete(ctx context.Context, r *api.DeleteRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := l.db.Leases(s.Namespace).Delete(r.ID); err != nil {
		return nil, err
	}
	if r.Sync {
		l.db.Collect()
	}
	return &emptypb.Empty{}, nil
}

func (l *leases) List(ctx context.Context, r *api.ListRequest) (*api.ListResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.db.Leases(s.Namespace).List(r.Filters...)
	return &api.ListResponse{Leases: all}, err
}

func (l *leases) AddResource(ctx context.Context, r *api.AddResourceRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, l.db.Leases(s.Namespace).Add(r.ID, r.Resource)
}

func (l *leases) DeleteResource(ctx context.Context, r *api.DeleteResourceRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, l.db.Leases(s.Namespace).Remove(r.ID, r.Resource)
}

func (l *leases) ListResources(ctx context.Context, r *api.ListResourcesRequest) (*api.ListResourcesResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.db.Leases(s.Namespace).Resources(r.ID)
	return &api.ListResourcesResponse{Resources: all}, err
}
