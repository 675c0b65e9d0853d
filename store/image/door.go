package image

import (
	"context"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
)

// PullOptions say what Pull fetches.
type PullOptions struct {
	Registry *remote.Client
	// Name is given to the image; empty is the reference itself, in full.
	Name string
	// Platform to fetch; nil is this machine's.
	Platform *ocispec.Platform
	// AllPlatforms fetches every one, and unpacks only Platform.
	AllPlatforms bool
	// Unpack extracts the layers into Snapshots while they are fetched.
	Unpack bool
	// Labels for the image.
	Labels map[string]string
	// MaxLayers at the same time; 0 is 3.
	MaxLayers int
	// Progress is called from several goroutines, never at the same time.
	Progress func(Progress)
}

// Pull fetches ref, verifies, stores and unpacks it in one pass, and names it.
func Pull(ctx context.Context, s Stores, ref string, o PullOptions) (Image, error) {
	return Image{}, errdefs.ErrNotImplemented
}

// UnpackOptions say what Unpack extracts.
type UnpackOptions struct {
	Platform  *ocispec.Platform // nil is this machine's
	MaxLayers int               // at the same time; 0 is 3
	Progress  func(Progress)
}

// Unpack extracts the layers of target, whose blobs are all in s.Content, and
// gives the chain ID: the name of the snapshot that has all of them.
func Unpack(ctx context.Context, s Stores, target ocispec.Descriptor, o UnpackOptions) (digest.Digest, error) {
	return "", errdefs.ErrNotImplemented
}

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
