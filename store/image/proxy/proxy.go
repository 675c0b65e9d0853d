// Package proxy is the door of store/image over containerd's gRPC API.
package proxy

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/store/image"
)

// Images is the client of an images service.
type Images struct {
	client api.ImagesClient
}

var _ image.Images = (*Images)(nil)

// New asks the images service behind conn; namespace and lease come with the
// context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface) *Images { return &Images{client: api.NewImagesClient(conn)} }

// Get asks for a name.
func (s *Images) Get(ctx context.Context, name string) (image.Image, error) {
	resp, err := s.client.Get(ctx, &api.GetImageRequest{Name: name})
	if err != nil {
		return image.Image{}, fmt.Errorf("get image %s: %w", name, errgrpc.ToNative(err))
	}
	return fromAPI(resp.Image), nil
}

// List asks for the images that the filters choose.
func (s *Images) List(ctx context.Context, filters ...string) ([]image.Image, error) {
	resp, err := s.client.List(ctx, &api.ListImagesRequest{Filters: filters})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", errgrpc.ToNative(err))
	}
	all := make([]image.Image, 0, len(resp.Images))
	for _, img := range resp.Images {
		all = append(all, fromAPI(img))
	}
	return all, nil
}

// Create gives a target a new name.
func (s *Images) Create(ctx context.Context, img image.Image) (image.Image, error) {
	resp, err := s.client.Create(ctx, &api.CreateImageRequest{Image: toAPI(img)})
	if err != nil {
		return image.Image{}, fmt.Errorf("create image %s: %w", img.Name, errgrpc.ToNative(err))
	}
	return fromAPI(resp.Image), nil
}

// Update writes a name's target and labels, or the fields that are named.
func (s *Images) Update(ctx context.Context, img image.Image, fieldpaths ...string) (image.Image, error) {
	req := &api.UpdateImageRequest{Image: toAPI(img)}
	if len(fieldpaths) > 0 {
		req.UpdateMask = &fieldmaskpb.FieldMask{Paths: fieldpaths}
	}
	resp, err := s.client.Update(ctx, req)
	if err != nil {
		return image.Image{}, fmt.Errorf("update image %s: %w", img.Name, errgrpc.ToNative(err))
	}
	return fromAPI(resp.Image), nil
}

// Delete takes a name away; what it named is the garbage collector's.
func (s *Images) Delete(ctx context.Context, name string) error {
	if _, err := s.client.Delete(ctx, &api.DeleteImageRequest{Name: name}); err != nil {
		return fmt.Errorf("delete image %s: %w", name, errgrpc.ToNative(err))
	}
	return nil
}

func fromAPI(img *api.Image) image.Image {
	t := img.GetTarget()
	return image.Image{
		Name:   img.GetName(),
		Labels: img.GetLabels(),
		Target: ocispec.Descriptor{
			MediaType: t.GetMediaType(), Digest: digest.Digest(t.GetDigest()), Size: t.GetSize(), Annotations: t.GetAnnotations(),
		},
		CreatedAt: img.GetCreatedAt().AsTime(),
		UpdatedAt: img.GetUpdatedAt().AsTime(),
	}
}

func toAPI(img image.Image) *api.Image {
	return &api.Image{
		Name:   img.Name,
		Labels: img.Labels,
		Target: &types.Descriptor{
			MediaType: img.Target.MediaType, Digest: img.Target.Digest.String(), Size: img.Target.Size, Annotations: img.Target.Annotations,
		},
	}
}
