package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
)

// reader is an open blob. It lives as long as the context that it was opened
// with, as nothing is open on the other side between calls.
type reader struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt has none
	client api.ContentClient
	dgst   digest.Digest
	size   int64
}

func (r *reader) Size() int64 { return r.size }

func (r *reader) Close() error { return nil }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read content %s at %d: negative offset", r.dgst, off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= r.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), r.size-off)
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	stream, err := r.client.Read(ctx, &api.ReadContentRequest{Digest: r.dgst.String(), Offset: off, Size: want})
	if err != nil {
		return 0, errgrpc.ToNative(err)
	}
	n := 0
	for n < int(want) {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, fmt.Errorf("read content %s: %w", r.dgst, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return n, errgrpc.ToNative(err)
		}
		n += copy(p[n:], resp.Data)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
