package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	api "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/content"
)

// maxMessage is how many bytes go in one message; the other side may refuse
// messages above 4 MiB with their envelope.
const maxMessage = 3 << 20

// window is how many messages are sent before their answers are awaited.
const window = 4

// writer is an ingest on the other side. One stream is one writer there: it
// ends, and the ref is free, when the stream does.
//
//	→ STAT   ref total expected
//	← STAT   offset
//	→ WRITE  offset data        several under way
//	← WRITE  offset digest
//	→ COMMIT total expected labels
//	← COMMIT offset digest
type writer struct {
	stream  api.Content_WriteClient
	cancel  context.CancelFunc
	ref     string
	status  content.Status
	digest  digest.Digest
	pending int   // answers that are still to come
	err     error // what broke the stream
}

// Writer opens or resumes the ingest ref.
func (s *Store) Writer(ctx context.Context, ref string, desc ocispec.Descriptor) (content.Writer, error) {
	if ref == "" {
		return nil, fmt.Errorf("open ingest: empty ref: %w", errdefs.ErrInvalidArgument)
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := s.client.Write(ctx)
	if err != nil {
		cancel()
		return nil, errgrpc.ToNative(err)
	}
	w := &writer{stream: stream, cancel: cancel, ref: ref}
	resp, err := w.call(&api.WriteContentRequest{
		Action: api.WriteAction_STAT, Ref: ref, Total: desc.Size, Expected: desc.Digest.String(),
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("open ingest %s: %w", ref, err)
	}
	w.status = content.Status{
		Ref: ref, Offset: resp.Offset, Total: resp.Total, Expected: desc.Digest,
		StartedAt: resp.StartedAt.AsTime(), UpdatedAt: resp.UpdatedAt.AsTime(),
	}
	w.digest = digest.Digest(resp.Digest)
	return w, nil
}

// send sends a request. When the stream is broken the reason is what the other
// side answered, which only Recv tells.
func (w *writer) send(req *api.WriteContentRequest) error {
	if w.err != nil {
		return w.err
	}
	err := w.stream.Send(req)
	if errors.Is(err, io.EOF) {
		for err == nil || errors.Is(err, io.EOF) {
			if _, rerr := w.stream.Recv(); rerr != nil {
				err = rerr
				break
			}
		}
	}
	if err != nil {
		w.err = native(err)
		return w.err
	}
	w.pending++
	return nil
}

// receive takes the answers until at most n are outstanding; it gives the last.
func (w *writer) receive(n int) (resp *api.WriteContentResponse, err error) {
	for w.pending > n {
		resp, err = w.stream.Recv()
		if err != nil {
			w.err = native(err)
			return nil, w.err
		}
		w.pending--
		if resp.Digest != "" {
			w.digest = digest.Digest(resp.Digest)
		}
	}
	return resp, nil
}

func (w *writer) call(req *api.WriteContentRequest) (*api.WriteContentResponse, error) {
	if err := w.send(req); err != nil {
		return nil, err
	}
	return w.receive(0)
}

// native gives a stream's error its kind; a stream that ends without a word
// broke off.
func native(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return errgrpc.ToNative(err)
}

// Write sends p, and returns before the other side has answered for all of it.
func (w *writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), maxMessage)]
		req := &api.WriteContentRequest{Action: api.WriteAction_WRITE, Offset: w.status.Offset, Data: part}
		if err := w.send(req); err != nil {
			return n, fmt.Errorf("write ingest %s: %w", w.ref, err)
		}
		if _, err := w.receive(window - 1); err != nil {
			return n, fmt.Errorf("write ingest %s: %w", w.ref, err)
		}
		w.status.Offset += int64(len(part))
		n += len(part)
		p = p[len(part):]
	}
	return n, nil
}

// Digest asks: only the answers to STAT and COMMIT must have it.
func (w *writer) Digest() digest.Digest {
	// An error stays in w.err for the next call.
	_, _ = w.call(&api.WriteContentRequest{Action: api.WriteAction_STAT, Ref: w.ref})
	return w.digest
}

func (w *writer) Status() (content.Status, error) {
	if _, err := w.receive(0); err != nil {
		return content.Status{}, fmt.Errorf("status of ingest %s: %w", w.ref, err)
	}
	return w.status, nil
}

// Truncate begins again: a write at offset 0 tells the other side to.
func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("truncate ingest %s to %d: only to 0: %w", w.ref, size, errdefs.ErrInvalidArgument)
	}
	_, err := w.receive(0)
	w.status.Offset, w.digest = 0, ""
	return err
}

func (w *writer) Commit(_ context.Context, size int64, expected digest.Digest, labels map[string]string) error {
	if _, err := w.receive(0); err != nil {
		return fmt.Errorf("commit ingest %s: %w", w.ref, err)
	}
	resp, err := w.call(&api.WriteContentRequest{
		Action: api.WriteAction_COMMIT, Total: size, Offset: w.status.Offset, Expected: expected.String(), Labels: labels,
	})
	if err != nil {
		return fmt.Errorf("commit ingest %s: %w", w.ref, err)
	}
	w.err = fmt.Errorf("ingest %s: %w", w.ref, fs.ErrClosed)
	defer w.end()
	if size > 0 && resp.Offset != size {
		return fmt.Errorf("commit ingest %s: %d bytes were received, not %d: %w", w.ref, resp.Offset, size, errdefs.ErrFailedPrecondition)
	}
	if dgst := digest.Digest(resp.Digest); expected != "" && dgst != expected {
		return fmt.Errorf("commit ingest %s: %s was received, not %s: %w", w.ref, dgst, expected, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Close keeps the ingest for a later writer. It returns when the ref is free:
// the other side ends the stream after it let go of it.
func (w *writer) Close() error {
	if w.cancel == nil {
		return nil
	}
	var err error
	if w.err == nil {
		_, err = w.receive(0)
	}
	w.end()
	return err
}

func (w *writer) end() {
	if w.cancel == nil {
		return
	}
	if w.stream.CloseSend() == nil {
		for {
			if _, err := w.stream.Recv(); err != nil {
				break
			}
		}
	}
	w.cancel()
	w.cancel = nil
	if w.err == nil {
		w.err = fmt.Errorf("ingest %s: %w", w.ref, fs.ErrClosed)
	}
}
