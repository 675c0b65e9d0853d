package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/layer"
)

// task extracts one layer into a prepared snapshot:
//
//	registry or blob ─▶ receive ─▶ decompress ─▶ extract ─▶ snapshot
//	                      │                └──▶ hash
//	                      └▶ content store (hashes)
//
// Each has a goroutine; between them a few buffers go round.
type task struct {
	job      *job
	index    int
	key      string
	mounts   []mount.Mount
	alone    bool
	implicit []string
}

// packedSize in bytes is large enough that handing a buffer over costs nothing, and
// small enough that a few stay in a processor's cache.
const (
	packedSize = 256 << 10
	buffers    = 4
)

// unpack runs the pipeline. Whatever goes wrong, all of it has ended when it
// returns, and the error is that of the first cause.
func (t *task) unpack(ctx context.Context) error {
	want := t.job.diffIDs[t.index]
	if !want.Algorithm().Available() {
		return fmt.Errorf("diff ID %s: unknown algorithm: %w", want, errdefs.ErrInvalidArgument)
	}
	src, err := t.job.open(ctx, t.job.layers[t.index])
	if err != nil {
		return err
	}
	defer src.Close()
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()

	packed, received := newPipe(buffers), make(chan error, 1)
	defer packed.recycle()
	go func() {
		err := src.receive(receiving, packed)
		packed.close(orEOF(err))
		received <- err
	}()
	plain := layer.Open(packed, want.Algorithm())
	extractErr := t.extract(ctx, plain)
	inflateErr := plain.Close()
	if got, _ := plain.Sum(); extractErr == nil && got != want {
		extractErr = fmt.Errorf("uncompressed it is %s, its config says %s: %w", got, want, errdefs.ErrFailedPrecondition)
	}
	stop := extractErr != nil && !damaged(inflateErr) && !damaged(extractErr)
	if stop {
		cancel() // the bytes are not to blame: no need to see the rest
	}
	receiveErr := <-received

	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case receiveErr != nil && !(stop && errors.Is(receiveErr, context.Canceled)):
		return receiveErr
	case extractErr == nil:
		return src.commit(ctx)
	}
	defer src.discard()
	if receiveErr == nil {
		// With all bytes there the digest can tell whether they are to blame.
		if err := src.verify(); err != nil {
			return err
		}
	}
	return extractErr
}

func orEOF(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// damaged says whether an error may come from wrong bytes.
func damaged(err error) bool {
	return err != nil && !errdefs.IsResourceExhausted(err) &&
		(errdefs.IsDataLoss(err) || errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF))
}

// extract writes the tar into the snapshot.
func (t *task) extract(ctx context.Context, plain io.Reader) (err error) {
	if t.alone {
		t.implicit, err = layer.ApplyAlone(ctx, t.mounts, t.index == 0, plain)
		return err
	}
	return layer.Apply(ctx, t.mounts, plain)
}
