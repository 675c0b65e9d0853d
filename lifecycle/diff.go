package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"

	api "github.com/containerd/containerd/api/services/diff/v1"
	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/mount"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/layer"
)

// diffs is containerd.services.diff.v1.Diff.
type diffs struct {
	api.UnimplementedDiffServer
	db *meta.DB
}

// Apply extracts a layer onto mounts and answers the descriptor of its tar.
func (d *diffs) Apply(ctx context.Context, r *api.ApplyRequest) (*api.ApplyResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if len(r.Payloads) > 0 {
		return nil, fmt.Errorf("apply diff with payloads for stream processors: %w", errdefs.ErrNotImplemented)
	}
	desc := descriptorFromAPI(r.Diff)
	ra, err := d.db.Content(s).ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	applied, err := apply(ctx, ra, mountsFromAPI(r.Mounts))
	if err != nil {
		return nil, fmt.Errorf("apply diff %s: %w", desc.Digest, err)
	}
	return &api.ApplyResponse{Applied: descriptorToAPI(applied)}, nil
}

// apply decompresses, hashes and extracts at the same time.
func apply(ctx context.Context, ra content.ReaderAt, mounts []mount.Mount) (ocispec.Descriptor, error) {
	tar := layer.Open(io.NopCloser(io.NewSectionReader(ra, 0, ra.Size())), digest.Canonical)
	err := layer.Apply(ctx, mounts, tar)
	if cerr := tar.Close(); err == nil {
		err = cerr
	}
	sum, size := tar.Sum()
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: sum, Size: size}, err
}

// Diff writes a blob with what right changed against left. A client without a
// lease of its own has to hold the blob before the collector comes.
func (d *diffs) Diff(ctx context.Context, r *api.DiffRequest) (_ *api.DiffResponse, err error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	if r.SourceDateEpoch != nil {
		return nil, fmt.Errorf("diff with a source date epoch: %w", errdefs.ErrNotImplemented)
	}
	mediaType := r.MediaType
	if mediaType == "" {
		mediaType = ocispec.MediaTypeImageLayerGzip
	}
	compress, ok := compressors[mediaType]
	if !ok {
		return nil, fmt.Errorf("diff of type %s: %w", mediaType, errdefs.ErrNotImplemented)
	}
	ref := r.Ref
	if ref == "" {
		ref = "diff-" + rand.Text()
	}
	store := d.db.Content(s)
	w, err := store.Writer(ctx, ref, ocispec.Descriptor{MediaType: mediaType})
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return store.Abort(context.WithoutCancel(ctx), ref) })
	defer w.Close() // before the abort: an open ingest cannot be aborted
	if err := w.Truncate(0); err != nil {
		return nil, err
	}
	tar := digest.Canonical.Digester()
	write := func(out io.Writer) error {
		return layer.Diff(ctx, mountsFromAPI(r.Left), mountsFromAPI(r.Right), io.MultiWriter(out, tar.Hash()))
	}
	if err := compressed(w, compress, write); err != nil {
		return nil, fmt.Errorf("diff: %w", err)
	}
	labels := maps.Clone(r.Labels)
	if compress != nil {
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelUncompressed] = tar.Digest().String()
	}
	desc, err := keep(ctx, store, w, mediaType, labels)
	if err != nil {
		return nil, err
	}
	return &api.DiffResponse{Diff: descriptorToAPI(desc)}, nil
}

// compressors are the types that a diff can have.
var compressors = map[string]func(io.Writer) (io.WriteCloser, error){
	ocispec.MediaTypeImageLayer:                         nil,
	ocispec.MediaTypeImageLayerGzip:                     newGzip,
	ocispec.MediaTypeImageLayerZstd:                     newZstd,
	"application/vnd.docker.image.rootfs.diff.tar":      nil,
	"application/vnd.docker.image.rootfs.diff.tar.gzip": newGzip,
}

func newGzip(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }

func newZstd(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }

// compressed has write write through a compressor, which may be none.
func compressed(w io.Writer, compress func(io.Writer) (io.WriteCloser, error), write func(io.Writer) error) error {
	if compress == nil {
		return write(w)
	}
	z, err := compress(w)
	if err != nil {
		return err
	}
	return errors.Join(write(z), z.Close())
}

// labelUncompressed says which tar a blob is when it is unpacked.
const labelUncompressed = "containerd.io/uncompressed"

// keep commits a layer and labels it; one that is there already is as good.
func keep(ctx context.Context, store meta.Content, w content.Writer, mediaType string, labels map[string]string) (ocispec.Descriptor, error) {
	st, err := w.Status()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: st.Offset}
	err = w.Commit(context.WithoutCancel(ctx), desc.Size, desc.Digest, labels)
	if errdefs.IsAlreadyExists(err) {
		var paths []string
		for k := range labels {
			paths = append(paths, "labels."+k)
		}
		err = nil
		if len(paths) > 0 {
			_, err = store.Update(ctx, content.Info{Digest: desc.Digest, Labels: labels}, paths...)
		}
	}
	return desc, err
}
