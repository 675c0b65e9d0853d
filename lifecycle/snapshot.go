package lifecycle

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/mount"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/snapshot"
)

// snapshots is containerd.services.snapshots.v1.Snapshots.
type snapshots struct {
	api.UnimplementedSnapshotsServer
	db *meta.DB
}

// view is what the request sees of the snapshotter that it names.
func (s *snapshots) view(ctx context.Context, snapshotter string) (*meta.Snapshots, error) {
	if snapshotter == "" {
		return nil, fmt.Errorf("request without a snapshotter: %w", errdefs.ErrInvalidArgument)
	}
	scope, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	return s.db.Snapshots(scope, snapshotter)
}

func (s *snapshots) Prepare(ctx context.Context, r *api.PrepareSnapshotRequest) (*api.PrepareSnapshotResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	mounts, err := v.Prepare(ctx, r.Key, r.Parent, r.Labels)
	return &api.PrepareSnapshotResponse{Mounts: mountsToAPI(mounts)}, err
}

func (s *snapshots) View(ctx context.Context, r *api.ViewSnapshotRequest) (*api.ViewSnapshotResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	mounts, err := v.View(ctx, r.Key, r.Parent, r.Labels)
	return &api.ViewSnapshotResponse{Mounts: mountsToAPI(mounts)}, err
}

func (s *snapshots) Mounts(ctx context.Context, r *api.MountsRequest) (*api.MountsResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	mounts, err := v.Mounts(ctx, r.Key)
	return &api.MountsResponse{Mounts: mountsToAPI(mounts)}, err
}

func (s *snapshots) Commit(ctx context.Context, r *api.CommitSnapshotRequest) (*emptypb.Empty, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	if r.Parent != "" {
		return &emptypb.Empty{}, v.CommitOnto(ctx, r.Name, r.Key, r.Parent, r.Labels)
	}
	return &emptypb.Empty{}, v.Commit(ctx, r.Name, r.Key, r.Labels)
}

func (s *snapshots) Remove(ctx context.Context, r *api.RemoveSnapshotRequest) (*emptypb.Empty, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, v.Remove(ctx, r.Key)
}

func (s *snapshots) Stat(ctx context.Context, r *api.StatSnapshotRequest) (*api.StatSnapshotResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	info, err := v.Stat(ctx, r.Key)
	return &api.StatSnapshotResponse{Info: snapshotToAPI(info)}, err
}

func (s *snapshots) Update(ctx context.Context, r *api.UpdateSnapshotRequest) (*api.UpdateSnapshotResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	next := snapshot.Info{Name: r.Info.GetName(), Labels: r.Info.GetLabels()}
	info, err := v.Update(ctx, next, r.UpdateMask.GetPaths()...)
	return &api.UpdateSnapshotResponse{Info: snapshotToAPI(info)}, err
}

// listChunk is how many entries one message of a list has.
const listChunk = 100

func (s *snapshots) List(r *api.ListSnapshotsRequest, srv api.Snapshots_ListServer) error {
	v, err := s.view(srv.Context(), r.Snapshotter)
	if err != nil {
		return err
	}
	var chunk []*api.Info
	err = v.Walk(srv.Context(), func(i snapshot.Info) error {
		if chunk = append(chunk, snapshotToAPI(i)); len(chunk) < listChunk {
			return nil
		}
		err := srv.Send(&api.ListSnapshotsResponse{Info: chunk})
		chunk = nil
		return err
	}, r.Filters...)
	if err != nil || len(chunk) == 0 {
		return err
	}
	return srv.Send(&api.ListSnapshotsResponse{Info: chunk})
}

func (s *snapshots) Usage(ctx context.Context, r *api.UsageRequest) (*api.UsageResponse, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	u, err := v.Usage(ctx, r.Key)
	return &api.UsageResponse{Size: u.Size, Inodes: u.Inodes}, err
}

func (s *snapshots) Cleanup(ctx context.Context, r *api.CleanupRequest) (*emptypb.Empty, error) {
	v, err := s.view(ctx, r.Snapshotter)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, v.Cleanup(ctx)
}

func snapshotToAPI(i snapshot.Info) *api.Info {
	return &api.Info{
		Name: i.Name, Parent: i.Parent, Kind: api.Kind(i.Kind), Labels: i.Labels,
		CreatedAt: timestamppb.New(i.Created), UpdatedAt: timestamppb.New(i.Updated),
	}
}

func mountsToAPI(mounts []mount.Mount) []*types.Mount {
	var out []*types.Mount
	for _, m := range mounts {
		out = append(out, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}

func mountsFromAPI(mounts []*types.Mount) []mount.Mount {
	var out []mount.Mount
	for _, m := range mounts {
		out = append(out, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}
