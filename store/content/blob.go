package content

import (
	"bytes"
	"context"
	"fmt"
	"io"

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
	w, err := s.Writer(ctx, ref, desc)
	if errdefs.IsAlreadyExists(err) {
		return AddLabels(ctx, s, desc, labels)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", desc.Digest, err)
	}
	defer w.Close()
	st, err := w.Status()
	if err == nil && st.Offset != 0 {
		err = w.Truncate(0)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", desc.Digest, err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, 1<<18)); err != nil {
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

// AddLabels sets labels on the blob and leaves its others alone.
func AddLabels(ctx context.Context, s Store, desc ocispec.Descriptor, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	var paths []string
	for k := range labels {
		paths = append(paths, "labels."+k)
	}
	if _, err := s.Update(ctx, Info{Digest: desc.Digest, Labels: labels}, paths...); err != nil {
		return fmt.Errorf("label %s: %w", desc.Digest, err)
	}
	return nil
}
