package lifecycle

import (
	"context"
	"time"

	api "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/image"
)

// images is containerd.services.images.v1.Images.
type images struct {
	api.UnimplementedImagesServer
	db *meta.DB
}

func (i *images) Get(ctx context.Context, r *api.GetImageRequest) (*api.GetImageResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	img, err := i.db.Images(s.Namespace).Get(ctx, r.Name)
	return &api.GetImageResponse{Image: imageToAPI(img)}, err
}

func (i *images) List(ctx context.Context, r *api.ListImagesRequest) (*api.ListImagesResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	all, err := i.db.Images(s.Namespace).List(ctx, r.Filters...)
	var resp api.ListImagesResponse
	for _, img := range all {
		resp.Images = append(resp.Images, imageToAPI(img))
	}
	return &resp, err
}

func (i *images) Create(ctx context.Context, r *api.CreateImageRequest) (*api.CreateImageResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	img := imageFromAPI(r.Image)
	img.CreatedAt = epoch(r.SourceDateEpoch)
	img, err = i.db.Images(s.Namespace).Create(ctx, img)
	return &api.CreateImageResponse{Image: imageToAPI(img)}, err
}

func (i *images) Update(ctx context.Context, r *api.UpdateImageRequest) (*api.UpdateImageResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	img := imageFromAPI(r.Image)
	img.UpdatedAt = epoch(r.SourceDateEpoch)
	img, err = i.db.Images(s.Namespace).Update(ctx, img, r.UpdateMask.GetPaths()...)
	return &api.UpdateImageResponse{Image: imageToAPI(img)}, err
}

func (i *images) Delete(ctx context.Context, r *api.DeleteImageRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	err = i.db.Images(s.Namespace).DeleteTarget(ctx, r.Name, digest.Digest(r.Target.GetDigest()))
	if err != nil {
		return nil, err
	}
	if r.Sync {
		i.db.Collect()
	}
	return &emptypb.Empty{}, nil
}

// epoch is the time that a reproducible build gives its images; zero is now.
func epoch(ts *timestamppb.Timestamp) time.Time {
	if ts == nil {
		return time.Time{}
	}
	return ts.AsTime()
}

func imageToAPI(img image.Image) *api.Image {
	return &api.Image{
		Name: img.Name, Labels: img.Labels, Target: descriptorToAPI(img.Target),
		CreatedAt: timestamppb.New(img.CreatedAt), UpdatedAt: timestamppb.New(img.UpdatedAt),
	}
}

func imageFromAPI(img *api.Image) image.Image {
	return image.Image{Name: img.GetName(), Labels: img.GetLabels(), Target: descriptorFromAPI(img.GetTarget())}
}

func descriptorToAPI(d ocispec.Descriptor) *types.Descriptor {
	return &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
}

func descriptorFromAPI(d *types.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{
		MediaType: d.GetMediaType(), Digest: digest.Digest(d.GetDigest()), Size: d.GetSize(), Annotations: d.GetAnnotations(),
	}
}
