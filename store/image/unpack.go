package image

import (
	"cmp"
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// UnpackOptions say what Unpack extracts.
type UnpackOptions struct {
	Platform  *ocispec.Platform // nil is this machine's
	MaxLayers int               // at the same time; 0 is 3
	Progress  func(Progress)
}

// Unpack extracts the layers of target, whose blobs are all in s.Content, and
// gives the chain ID: the name of the snapshot that has all of them.
func Unpack(ctx context.Context, s Stores, target ocispec.Descriptor, o UnpackOptions) (digest.Digest, error) {
	m, _, err := Manifest(ctx, s.Content, target, o.Platform)
	if err != nil {
		return "", err
	}
	config, err := readConfig(ctx, s.Content, m)
	if err != nil {
		return "", err
	}
	j, err := newJob(s, m, config, true)
	if err != nil {
		return "", err
	}
	j.report = newReporter(target.Digest.String(), o.Progress)
	j.max = cmp.Or(o.MaxLayers, defaultLayers)
	if err := j.run(ctx); err != nil {
		return "", err
	}
	return ChainID(j.diffIDs), nil
}
