// Package proxy is the door of store/content over containerd's gRPC API: a
// content store that a containerd, ours or another, keeps.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/store/content"
)

// Store is the client of a content service.
type Store struct {
	client api.ContentClient
}

var _ content.Store = (*Store)(nil)

// New asks the content service behind conn; namespace and lease come with the
// context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface) *Store {
	return &Store{client: api.NewContentClient(conn)}
}

// Info asks for a blob.
func (s *Store) Info(ctx context.Context, dgst digest.Digest) (content.Info, error) {
	resp, err := s.client.Info(ctx, &api.InfoRequest{Digest: dgst.String()})
	if err != nil {
		return content.Info{}, errgrpc.ToNative(err)
	}
	return info(resp.Info), nil
}

// Update writes labels.
func (s *Store) Update(ctx context.Context, i content.Info, fieldpaths ...string) (content.Info, error) {
	resp, err := s.client.Update(ctx, &api.UpdateRequest{
		Info:       &api.Info{Digest: i.Digest.String(), Labels: i.Labels},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: fieldpaths},
	})
	if err != nil {
		return content.Info{}, errgrpc.ToNative(err)
	}
	return info(resp.Info), nil
}

// Walk calls fn for every blob that the filters choose.
func (s *Store) Walk(ctx context.Context, fn func(content.Info) error, filters ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where fn stops early
	stream, err := s.client.List(ctx, &api.ListContentRequest{Filters: filters})
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

// Delete removes a blob.
func (s *Store) Delete(ctx context.Context, dgst digest.Digest) error {
	_, err := s.client.Delete(ctx, &api.DeleteContentRequest{Digest: dgst.String()})
	return errgrpc.ToNative(err)
}

// Status of the ingest ref.
func (s *Store) Status(ctx context.Context, ref string) (content.Status, error) {
	resp, err := s.client.Status(ctx, &api.StatusRequest{Ref: ref})
	if err != nil {
		return content.Status{}, errgrpc.ToNative(err)
	}
	return status(resp.Status), nil
}

// ListStatuses lists ingests.
func (s *Store) ListStatuses(ctx context.Context, filters ...string) ([]content.Status, error) {
	resp, err := s.client.ListStatuses(ctx, &api.ListStatusesRequest{Filters: filters})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	var all []content.Status
	for _, st := range resp.Statuses {
		all = append(all, status(st))
	}
	return all, nil
}

// Abort throws an ingest away.
func (s *Store) Abort(ctx context.Context, ref string) error {
	_, err := s.client.Abort(ctx, &api.AbortRequest{Ref: ref})
	return errgrpc.ToNative(err)
}

// ReaderAt opens a blob; every ReadAt is a call of its own.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	i, err := s.Info(ctx, desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("open content %s: %w", desc.Digest, err)
	}
	return &reader{ctx: ctx, client: s.client, dgst: desc.Digest, size: i.Size}, nil
}

func info(i *api.Info) content.Info {
	return content.Info{
		Digest:    digest.Digest(i.GetDigest()),
		Size:      i.GetSize(),
		CreatedAt: i.GetCreatedAt().AsTime(),
		UpdatedAt: i.GetUpdatedAt().AsTime(),
		Labels:    i.GetLabels(),
	}
}

func status(st *api.Status) content.Status {
	return content.Status{
		Ref:       st.GetRef(),
		Offset:    st.GetOffset(),
		Total:     st.GetTotal(),
		Expected:  digest.Digest(st.GetExpected()),
		StartedAt: st.GetStartedAt().AsTime(),
		UpdatedAt: st.GetUpdatedAt().AsTime(),
	}
}
