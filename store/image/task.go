package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/layer"
)

// task extracts one layer into a prepared snapshot:
//
//	registry or blob ─▶ receive ─▶ inflate ─▶ hash, extract ─▶ snapshot
//	                      └▶ content store (hashes)
//
// Each of the three has a goroutine; between them a few buffers go round.
type task struct {
	job      *job
	index    int
	key      string
	mounts   []mount.Mount
	alone    bool
	implicit []string
}

// Sizes in bytes and numbers of the buffers: large enough that handing over costs
// nothing, small enough to stay in a processor's cache.
const (
	packedSize = 256 << 10
	plainSize  = 256 << 10
	buffers    = 4
)

var errStopped = errors.New("nobody reads any more")

// unpack runs the pipeline. Whatever goes wrong, all of it has ended when it
// returns, and the error is that of the first cause.
func (t *task) unpack(ctx context.Context) error {
	src, err := t.job.open(ctx, t.job.layers[t.index])
	if err != nil {
		return err
	}
	defer src.Close()
	receiving, cancel := context.WithCancel(ctx)
	defer cancel()

	packed, plain := newPipe(buffers, packedSize), newPipe(buffers, plainSize)
	received, inflated := make(chan error, 1), make(chan error, 1)
	go func() {
		err := src.receive(receiving, packed)
		packed.close(orEOF(err))
		received <- err
	}()
	go func() {
		err := inflate(plain, packed)
		packed.stop()
		plain.close(orEOF(err))
		inflated <- err
	}()
	extractErr := t.extract(ctx, plain)
	plain.stop()
	inflateErr := <-inflated
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
	return err != nil && !errors.Is(err, errStopped) && !errdefs.IsResourceExhausted(err) &&
		(errdefs.IsDataLoss(err) || errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF))
}

// inflate decompresses packed into plain.
func inflate(plain, packed *pipe) error {
	z, _, err := layer.Decompress(packed)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	defer z.Close()
	for {
		b, ok := plain.buffer()
		if !ok {
			return errStopped
		}
		n, err := fill(z, b)
		plain.send(b[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("decompress: %w: %w", err, errdefs.ErrDataLoss)
		}
	}
}

// extract writes the tar into the snapshot and verifies the diff ID.
func (t *task) extract(ctx context.Context, plain *pipe) (err error) {
	want := t.job.diffIDs[t.index]
	if !want.Algorithm().Available() {
		return fmt.Errorf("diff ID %s: unknown algorithm: %w", want, errdefs.ErrInvalidArgument)
	}
	r := &hashReader{pipe: plain, digester: want.Algorithm().Digester()}
	if t.alone {
		t.implicit, err = layer.ApplyAlone(ctx, t.mounts, t.index == 0, r)
	} else {
		err = layer.Apply(ctx, t.mounts, r)
	}
	if err != nil {
		return err
	}
	if got := r.digester.Digest(); got != want {
		return fmt.Errorf("uncompressed it is %s, its config says %s: %w", got, want, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// hashReader hashes each buffer of the pipe once, when its first byte is read.
type hashReader struct {
	pipe     *pipe
	digester digest.Digester
}

func (r *hashReader) Read(b []byte) (int, error) {
	fresh := len(r.pipe.rest) == 0
	have, err := r.pipe.next()
	if err != nil {
		return 0, err
	}
	if fresh {
		r.digester.Hash().Write(have)
	}
	return r.pipe.Read(b)
}
