package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
)

// PushOptions say what Push sends.
type PushOptions struct {
	Registry *remote.Client
	Platform *ocispec.Platform // only this platform's manifest; nil is all that is there
	Progress func(Progress)
}

// Push sends target and all below it, and tags it as ref.
func Push(ctx context.Context, s Stores, ref string, target ocispec.Descriptor, o PushOptions) error {
	return errdefs.ErrNotImplemented
}

// ImportOptions say how Import reads an archive.
type ImportOptions struct {
	Platform *ocispec.Platform
	Unpack   bool
	// Digests also names images that have no name in the archive, by this prefix and
	// "@DIGEST"; empty leaves them out.
	Digests  string
	Progress func(Progress)
}

// Import reads an archive as docker save or OCI tools write it, stores its blobs
// and names its images.
func Import(ctx context.Context, s Stores, r io.Reader, o ImportOptions) ([]Image, error) {
	return nil, errdefs.ErrNotImplemented
}

// ExportOptions say what Export writes.
type ExportOptions struct {
	Platform *ocispec.Platform // only this platform's manifest; nil is all that is there
}

// Export writes images as a tar that is an OCI image layout and a docker archive
// at once. Images with the same target are one image with several names.
func Export(ctx context.Context, s Stores, images []Image, w io.Writer, o ExportOptions) error {
	return errdefs.ErrNotImplemented
}
