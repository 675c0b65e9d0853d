package lifecycle

import (
	"context"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
)

// contents is containerd.services.content.v1.Content.
type contents struct {
	api.UnimplementedContentServer
	db *meta.DB
}

func (c *contents) view(ctx context.Context) (meta.Content, error) {
	s, err := scopeOf(ctx)
	return c.db.Content(s), err
}

func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", fmt.Errorf("digest %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
	}
	return d, nil
}

func (c *contents) Info(ctx context.Context, r *api.InfoRequest) (*api.InfoResponse, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	dgst, err := parseDigest(r.Digest)
	if err != nil {
		return nil, err
	}
	info, err := v.Info(ctx, dgst)
	return &api.InfoResponse{Info: contentToAPI(info)}, err
}

func (c *contents) Update(ctx context.Context, r *api.UpdateRequest) (*api.UpdateResponse, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	dgst, err := parseDigest(r.Info.GetDigest())
	if err != nil {
		return nil, err
	}
	info, err := v.Update(ctx, content.Info{Digest: dgst, Labels: r.Info.Labels}, r.UpdateMask.GetPaths()...)
	return &api.UpdateResponse{Info: contentToAPI(info)}, err
}

func (c *contents) List(r *api.ListContentRequest, srv api.Content_ListServer) error {
	v, err := c.view(srv.Context())
	if err != nil {
		return err
	}
	var chunk []*api.Info
	err = v.Walk(srv.Context(), func(i content.Info) error {
		if chunk = append(chunk, contentToAPI(i)); len(chunk) < listChunk {
			return nil
		}
		err := srv.Send(&api.ListContentResponse{Info: chunk})
		chunk = nil
		return err
	}, r.Filters...)
	if err != nil || len(chunk) == 0 {
		return err
	}
	return srv.Send(&api.ListContentResponse{Info: chunk})
}

func (c *contents) Delete(ctx context.Context, r *api.DeleteContentRequest) (*emptypb.Empty, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	dgst, err := parseDigest(r.Digest)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, v.Delete(ctx, dgst)
}

// readChunk is how many bytes one message of a read has.
const readChunk = 1 << 20

func (c *contents) Read(r *api.ReadContentRequest, srv api.Content_ReadServer) error {
	v, err := c.view(srv.Context())
	if err != nil {
		return err
	}
	dgst, err := parseDigest(r.Digest)
	if err != nil {
		return err
	}
	ra, err := v.ReaderAt(srv.Context(), ocispec.Descriptor{Digest: dgst})
	if err != nil {
		return err
	}
	defer ra.Close()
	offset := max(r.Offset, 0)
	rest := ra.Size() - offset
	if rest < 0 {
		return fmt.Errorf("read %s from %d: blob has %d bytes: %w", dgst, offset, ra.Size(), errdefs.ErrOutOfRange)
	}
	size := r.Size
	if size <= 0 || size > rest {
		size = rest // a client may not know how much there is
	}
	return sendSection(io.NewSectionReader(ra, offset, size), offset, srv)
}

func sendSection(r *io.SectionReader, offset int64, srv api.Content_ReadServer) error {
	buf := make([]byte, min(r.Size(), readChunk)) // most blobs that are read are small
	for rest := r.Size(); rest > 0; {
		n, err := io.ReadFull(r, buf[:min(rest, readChunk)])
		if err != nil {
			return err
		}
		// The message is marshalled before Send returns: buf is ours again.
		if err := srv.Send(&api.ReadContentResponse{Offset: offset, Data: buf[:n]}); err != nil {
			return err
		}
		offset, rest = offset+int64(n), rest-int64(n)
	}
	return nil
}

func (c *contents) Status(ctx context.Context, r *api.StatusRequest) (*api.StatusResponse, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	st, err := v.Status(ctx, r.Ref)
	return &api.StatusResponse{Status: statusToAPI(st)}, err
}

func (c *contents) ListStatuses(ctx context.Context, r *api.ListStatusesRequest) (*api.ListStatusesResponse, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	all, err := v.ListStatuses(ctx, r.Filters...)
	var resp api.ListStatusesResponse
	for _, st := range all {
		resp.Statuses = append(resp.Statuses, statusToAPI(st))
	}
	return &resp, err
}

func (c *contents) Abort(ctx context.Context, r *api.AbortRequest) (*emptypb.Empty, error) {
	v, err := c.view(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, v.Abort(ctx, r.Ref)
}

func contentToAPI(i content.Info) *api.Info {
	return &api.Info{
		Digest: i.Digest.String(), Size: i.Size, Labels: i.Labels,
		CreatedAt: timestamppb.New(i.CreatedAt), UpdatedAt: timestamppb.New(i.UpdatedAt),
	}
}

func statusToAPI(st content.Status) *api.Status {
	return &api.Status{
		Ref: st.Ref, Offset: st.Offset, Total: st.Total, Expected: st.Expected.String(),
		StartedAt: timestamppb.New(st.StartedAt), UpdatedAt: timestamppb.New(st.UpdatedAt),
	}
}
