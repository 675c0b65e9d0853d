package lifecycle

import (
	"context"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/mount"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/layer"
)

// diffs is containerd.services.diff.v1.Diff.
type diffs struct {
	api.UnimplementedDiffServer
	db *meta.DB
}

// Apply extracts a layer onto mounts and answers the descriptor of its tar.
func (d *diffs) Apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.Payloads) > 0 {
		return nil, fmt.Errorf("apply diff with payloads for stream processors: %w", errdefs.ErrNotImplemented)
	}
	desc := descriptorFromAPI(r.Diff)
	ra, err := d.db.Content(s).ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	applied, err := apply(ctx, ra, mountsFromAPI(r.Mounts))
	if err != nil {
		return nil, fmt.Errorf("apply diff %s: %w", desc.Digest, err)
	}
	return &api.ApplyResponse{Applied: descriptorToAPI(applied)}, nil
}

func apply(ctx context.Context, ra content.ReaderAt, mounts []mount.Mount) (ocispec.Descriptor, error) {
	r, _, err := layer.Decompress(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	hash := digest.Canonical.Digester()
	n := &counter{}
	tar := io.TeeReader(r, io.MultiWriter(hash.Hash(), n))
	if err := layer.Apply(ctx, mounts, tar); err != nil {
		return ocispec.Descriptor{}, err
	}
	// What follows the end of the archive belongs to the digest too.
	if _, err := io.Copy(io.Discard, tar); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: hash.Digest(), Size: n.bytes}, nil
}

type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

func (d *diffs) Diff(context.Context, *api.DiffRequest) (*api.DiffResponse, error) {
	return nil, errdefs.ErrNotImplemented
}
