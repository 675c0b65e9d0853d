// Package image gives names to descriptors and moves whole images: from a
// registry (Pull) and to it (Push), from an archive (Import) and to it (Export),
// from blobs into snapshots (Unpack).
//
// Below it stand the doors of store/content and store/snapshot, whoever serves
// them: the local stores, or the proxies to any containerd. It knows no daemon,
// no namespace and no lease; the context carries those to the stores.
//
// What it leaves in the stores has the labels of containerd's own images
// (containerd.io/gc.ref.*, containerd.io/uncompressed), and snapshots are named
// by chain ID, so that a stock containerd's tools and garbage collector find a
// well-formed image.
package image

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is a name for a descriptor.
type Image struct {
	Name      string
	Target    ocispec.Descriptor
	Labels    map[string]string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Images is the store of names. Kinds of error are those of errdefs: NotFound,
// AlreadyExists (Create), InvalidArgument.
type Images interface {
	Get(ctx context.Context, name string) (Image, error)
	// List gives the images that match one of the filters (containerd filter
	// syntax; none is all).
	List(ctx context.Context, filters ...string) ([]Image, error)
	Create(ctx context.Context, img Image) (Image, error)
	// Update writes img: with no fieldpaths target and labels, else those named
	// ("target", "labels", "labels.NAME").
	Update(ctx context.Context, img Image, fieldpaths ...string) (Image, error)
	Delete(ctx context.Context, name string) error
}

// Phase is what happens to one descriptor of an image at the moment.
type Phase string

// The phases of a descriptor.
const (
	Resolving   Phase = "resolving"   // a name is being looked up; the descriptor is empty
	Waiting     Phase = "waiting"     // known, not begun
	Downloading Phase = "downloading" // from the registry
	Extracting  Phase = "extracting"  // into its snapshot, nothing left to download
	Uploading   Phase = "uploading"   // to the registry
	Exists      Phase = "exists"      // was there already; final
	Done        Phase = "done"        // final
)

// Progress is one step of one descriptor. Offset and Total are bytes of the
// blob; Total is 0 where the size is not known.
type Progress struct {
	Name   string // what is pulled, pushed, imported
	Desc   ocispec.Descriptor
	Phase  Phase
	Offset int64
	Total  int64
}
