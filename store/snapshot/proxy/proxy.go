// Package proxy is the door of store/snapshot over containerd's gRPC API: a
// snapshotter that a containerd, ours or another, keeps. The directories in its
// mounts are those of the machine that both run on.
package proxy

import (
	"context"
	"errors"
	"io"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/snapshot"
)

// Snapshotter is the client of a snapshots service.
type Snapshotter struct {
	client api.SnapshotsClient
	name   string
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Cleaner     = (*Snapshotter)(nil)
)

// New asks for the snapshotter of that name behind conn; namespace and lease come
// with the context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface, snapshotter string) *Snapshotter {
	return &Snapshotter{client: api.NewSnapshotsClient(conn), name: snapshotter}
}

// Close does nothing: the connection is its maker's.
func (s *Snapshotter) Close() error { return nil }

// Stat asks for a snapshot.
func (s *Snapshotter) Stat(ctx context.Context, key string) (snapshot.Info, error) {
	resp, err := s.client.Stat(ctx, &api.StatSnapshotRequest{Snapshotter: s.name, Key: key})
	if err != nil {
		return snapshot.Info{}, errgrpc.ToNative(err)
	}
	return info(resp.Info), nil
}

// Update writes labels.
func (s *Snapshotter) Update(ctx context.Context, i snapshot.Info, fieldpaths ...string) (snapshot.Info, error) {
	resp, err := s.client.Update(ctx, &api.UpdateSnapshotRequest{
		Snapshotter: s.name,
		Info:        &api.Info{Name: i.Name, Parent: i.Parent, Kind: api.Kind(i.Kind), Labels: i.Labels},
		UpdateMask:  &fieldmaskpb.FieldMask{Paths: fieldpaths},
	})
	if err != nil {
		return snapshot.Info{}, errgrpc.ToNative(err)
	}
	return info(resp.Info), nil
}

// Usage of key itself.
func (s *Snapshotter) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	resp, err := s.client.Usage(ctx, &api.UsageRequest{Snapshotter: s.name, Key: key})
	if err != nil {
		return snapshot.Usage{}, errgrpc.ToNative(err)
	}
	return snapshot.Usage{Inodes: resp.Inodes, Size: resp.Size}, nil
}

// Mounts tells how to mount an active snapshot or a view.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	resp, err := s.client.Mounts(ctx, &api.MountsRequest{Snapshotter: s.name, Key: key})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	return mounts(resp.Mounts), nil
}

// Prepare makes an active snapshot on parent.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	resp, err := s.client.Prepare(ctx, &api.PrepareSnapshotRequest{Snapshotter: s.name, Key: key, Parent: parent, Labels: labels})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	return mounts(resp.Mounts), nil
}

// View makes a read-only snapshot of parent.
func (s *Snapshotter) View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	resp, err := s.client.View(ctx, &api.ViewSnapshotRequest{Snapshotter: s.name, Key: key, Parent: parent, Labels: labels})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	return mounts(resp.Mounts), nil
}

// Commit turns active key into committed name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	_, err := s.client.Commit(ctx, &api.CommitSnapshotRequest{Snapshotter: s.name, Name: name, Key: key, Labels: labels})
	return errgrpc.ToNative(err)
}

// Remove removes key.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	_, err := s.client.Remove(ctx, &api.RemoveSnapshotRequest{Snapshotter: s.name, Key: key})
	return errgrpc.ToNative(err)
}

// Cleanup frees what removed snapshots left behind.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	_, err := s.client.Cleanup(ctx, &api.CleanupRequest{Snapshotter: s.name})
	return errgrpc.ToNative(err)
}

// Walk calls fn for every snapshot that the filters choose.
func (s *Snapshotter) Walk(ctx context.Context, fn func(snapshot.Info) error, filters ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where fn stops early
	stream, err := s.client.List(ctx, &api.ListSnapshotsRequest{Snapshotter: s.name, Filters: filters})
	if err != nil {
		return errgrpc.ToNative(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errgrpc.ToNative(err)
		}
		for _, i := range resp.Info {
			if err := fn(info(i)); err != nil {
				return err
			}
		}
	}
}

func info(i *api.Info) snapshot.Info {
	return snapshot.Info{
		Kind:    snapshot.Kind(i.GetKind()), // both have the numbers of containerd's database
		Name:    i.GetName(),
		Parent:  i.GetParent(),
		Labels:  i.GetLabels(),
		Created: i.GetCreatedAt().AsTime(),
		Updated: i.GetUpdatedAt().AsTime(),
	}
}

func mounts(ms []*types.Mount) []mount.Mount {
	var out []mount.Mount
	for _, m := range ms {
		out = append(out, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out
}
