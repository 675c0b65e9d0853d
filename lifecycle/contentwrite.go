package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/store/content"
)

// write is one Write stream: every message may carry what is expected of the
// blob; the last says commit.
type write struct {
	w        content.Writer
	ref      string
	total    int64
	expected digest.Digest
}

func (c *contents) Write(srv api.Content_WriteServer) error {
	v, err := c.view(srv.Context())
	if err != nil {
		return err
	}
	req, err := srv.Recv()
	if err != nil {
		return err
	}
	w := &write{ref: req.Ref}
	if w.ref == "" {
		return fmt.Errorf("write without a ref: %w", errdefs.ErrInvalidArgument)
	}
	if err := w.expect(req); err != nil {
		return err
	}
	w.w, err = v.Writer(srv.Context(), w.ref, ocispec.Descriptor{Digest: w.expected, Size: w.total})
	if err != nil {
		return err
	}
	defer w.w.Close() // what was received is kept for a resume
	for {
		done, err := w.step(srv, req)
		if err != nil || done {
			return err
		}
		if req, err = srv.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if req.Ref != "" && req.Ref != w.ref {
			return fmt.Errorf("write %s: message for ref %s: %w", w.ref, req.Ref, errdefs.ErrInvalidArgument)
		}
		if err := w.expect(req); err != nil {
			return err
		}
	}
}

// expect takes what a message says of the blob; it must not contradict itself.
func (w *write) expect(req *api.WriteContentRequest) error {
	if req.Expected != "" {
		dgst, err := parseDigest(req.Expected)
		if err != nil {
			return err
		}
		if w.expected != "" && w.expected != dgst {
			return fmt.Errorf("write %s: expected %s, and then %s: %w", w.ref, w.expected, dgst, errdefs.ErrInvalidArgument)
		}
		w.expected = dgst
	}
	if req.Total > 0 {
		if w.total > 0 && w.total != req.Total {
			return fmt.Errorf("write %s: total %d, and then %d: %w", w.ref, w.total, req.Total, errdefs.ErrInvalidArgument)
		}
		w.total = req.Total
	}
	return nil
}

// step does what one message asks and answers it; done is after a commit.
func (w *write) step(srv api.Content_WriteServer, req *api.WriteContentRequest) (done bool, err error) {
	resp := &api.WriteContentResponse{Action: req.Action}
	if req.Action == api.WriteAction_WRITE || req.Action == api.WriteAction_COMMIT {
		if err := w.data(req, resp); err != nil {
			return false, err
		}
	}
	if req.Action == api.WriteAction_COMMIT {
		return true, w.commit(srv, req, resp)
	}
	st, err := w.w.Status()
	if err != nil {
		return false, err
	}
	resp.StartedAt, resp.UpdatedAt = timestamppb.New(st.StartedAt), timestamppb.New(st.UpdatedAt)
	resp.Offset, resp.Total = st.Offset, st.Total
	if req.Action == api.WriteAction_STAT {
		resp.Digest = w.w.Digest().String()
	}
	return false, srv.Send(resp)
}

// data writes a message's bytes where it says they belong.
func (w *write) data(req *api.WriteContentRequest, resp *api.WriteContentResponse) error {
	if len(req.Data) == 0 && req.Offset == 0 && req.Action == api.WriteAction_COMMIT {
		return nil
	}
	st, err := w.w.Status()
	if err != nil {
		return err
	}
	if req.Offset != st.Offset && len(req.Data)+int(req.Offset) > 0 || req.Offset < st.Offset && req.Action == api.WriteAction_WRITE {
		if req.Offset > st.Offset {
			return fmt.Errorf("write %s at %d: have %d bytes: %w", w.ref, req.Offset, st.Offset, errdefs.ErrOutOfRange)
		}
		if err := w.w.Truncate(req.Offset); err != nil {
			return fmt.Errorf("write %s at %d: %w: %w", w.ref, req.Offset, err, errdefs.ErrOutOfRange)
		}
	}
	resp.Offset = req.Offset + int64(len(req.Data))
	if len(req.Data) == 0 {
		return nil // a write, even of nothing, gives up what could be shared
	}
	if w.total > 0 && req.Offset+int64(len(req.Data)) > w.total {
		return fmt.Errorf("write %s: more than the total of %d bytes: %w", w.ref, w.total, errdefs.ErrOutOfRange)
	}
	_, err = w.w.Write(req.Data)
	return err
}

func (w *write) commit(srv api.Content_WriteServer, req *api.WriteContentRequest, resp *api.WriteContentResponse) error {
	st, err := w.w.Status()
	if err != nil {
		return err
	}
	resp.StartedAt, resp.UpdatedAt = timestamppb.New(st.StartedAt), timestamppb.New(st.UpdatedAt)
	resp.Digest, resp.Offset, resp.Total = w.w.Digest().String(), st.Offset, st.Offset
	// A client that goes away now must not leave half of it.
	if err := w.w.Commit(context.WithoutCancel(srv.Context()), w.total, w.expected, req.Labels); err != nil {
		return err
	}
	return srv.Send(resp)
}
