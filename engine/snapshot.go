package engine

import (
	"context"
	"fmt"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/mount"
)

// prepareSnapshot makes the writable snapshot of a container on img's layers.
func (c *containers) prepareSnapshot(ctx context.Context, id string, img *resolved) ([]mount.Mount, error) {
	req := &snapshotsapi.PrepareSnapshotRequest{Snapshotter: c.cfg.Snapshotter, Key: id, Parent: img.ChainID}
	resp, err := c.ctrd.Snapshots.Prepare(ctx, req)
	if errdefs.IsNotFound(err) {
		// The image is here, and its layers are not unpacked for this snapshotter.
		if err := c.images.unpack(ctx, img); err != nil {
			return nil, err
		}
		resp, err = c.ctrd.Snapshots.Prepare(ctx, req)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot of %s: %w", img.Name, err)
	}
	return fromAPI(resp.Mounts), nil
}

func (c *containers) snapshotMounts(ctx context.Context, id string) ([]mount.Mount, error) {
	resp, err := c.ctrd.Snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: c.cfg.Snapshotter, Key: id})
	if err != nil {
		return nil, err
	}
	return fromAPI(resp.Mounts), nil
}

func (c *containers) removeSnapshot(ctx context.Context, id string) error {
	_, err := c.ctrd.Snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: c.cfg.Snapshotter, Key: id})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

func fromAPI(mounts []*types.Mount) []mount.Mount {
	ms := make([]mount.Mount, 0, len(mounts))
	for _, m := range mounts {
		ms = append(ms, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return ms
}
