package content

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxSmall is the size in bytes that ReadBlob accepts: manifests and configs are
// smaller, and what claims to be one and is larger is hostile.
const MaxSmall = 8 << 20

// ReadBlob reads a small blob (a manifest, an index, a config) whole.
func ReadBlob(ctx context.Context, s Store, desc ocispec.Descriptor) ([]byte, error) {
	ra, err := s.ReaderAt(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	defer ra.Close()
	if ra.Size() > MaxSmall {
		return nil, fmt.Errorf("read %s: %d bytes, more than the %d of a manifest or config: %w",
			desc.Digest, ra.Size(), MaxSmall, errdefs.ErrInvalidArgument)
	}
	data := make([]byte, ra.Size())
	if _, err := io.ReadFull(io.NewSectionReader(ra, 0, ra.Size()), data); err != nil {
		return nil, fmt.Errorf("read %s: %w", desc.Digest, err)
	}
	return data, nil
}

// WriteBlob commits data under desc, or sets the labels where the blob is there
// already.
func WriteBlob(ctx context.Context, s Store, ref string, data []byte, desc ocispec.Descriptor, labels map[string]string) error {
	return Copy(ctx, s, ref, bytes.NewReader(data), desc, labels)
}

// Copy commits what r gives under desc, from its beginning. Where the blob is
// there already it only adds the labels.
func Copy(ctx context.Context, s Store, ref string, r io.Reader, desc ocispec.Descriptor, labels map[string]string) error {
	w, err := Open(ctx, s, ref, desc)
	if errdefs.IsAlreadyExists(err) {
		return AddLabels(ctx, s, desc, labels)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", desc.Digest, err)
	}
	defer w.Close()
	return Fill(ctx, s, w, r, desc, labels)
}

// Fill writes what r gives into w, from its beginning, and commits it under desc. A
// writer that has all of it already, as of a blob that the store has from another, is
// committed as it is.
func Fill(ctx context.Context, s Store, w Writer, r io.Reader, desc ocispec.Descriptor, labels map[string]string) error {
	st, err := w.Status()
	whole := err == nil && st.Offset == desc.Size && w.Digest() == desc.Digest
	if err == nil && !whole && st.Offset != 0 {
		err = w.Truncate(0)
	}
	if err == nil && !whole {
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, min(1<<18, max(desc.Size, 1<<9))))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", desc.Digest, err)
	}
	err = w.Commit(ctx, desc.Size, desc.Digest, labels)
	if errdefs.IsAlreadyExists(err) {
		return AddLabels(ctx, s, desc, labels)
	}
	if err != nil {
		return fmt.Errorf("commit %s: %w", desc.Digest, err)
	}
	return nil
}

// Open is Writer that waits for another writer of ref to be done.
func Open(ctx context.Context, s Store, ref string, desc ocispec.Descriptor) (Writer, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		w, err := s.Writer(ctx, ref, desc)
		if !errdefs.IsUnavailable(err) {
			return w, err
		}
		// The store itself may be what is not there: then it has no status either.
		if _, serr := s.Status(ctx, ref); serr != nil && !errdefs.IsNotFound(serr) {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// AddLabels sets labels on the blob and leaves its others alone.
func AddLabels(ctx context.Context, s Store, desc ocispec.Descriptor, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	have, err := s.Info(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("label %s: %w", desc.Digest, err)
	}
	var paths []string
	for k, v := range labels {
		if have.Labels[k] != v {
			paths = append(paths, "labels."+k)
		}
	}
	if len(paths) == 0 {
		return nil // to read is cheap, to write waits for a disk
	}
	if _, err := s.Update(ctx, Info{Digest: desc.Digest, Labels: labels}, paths...); err != nil {
		return fmt.Errorf("label %s: %w", desc.Digest, err)
	}
	return nil
}
