package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/store/content"
)

// origin is the repository that blobs come from.
type origin struct {
	registry *remote.Client
	repo     reference.Named
}

// ingestRef names the ingest of a blob as containerd does, so that a pull that
// another program began is gone on with.
func ingestRef(desc ocispec.Descriptor) string {
	kind := "unknown"
	switch t := desc.MediaType; {
	case isIndex(t):
		kind = "index"
	case isManifest(t):
		kind = "manifest"
	case isLayer(t):
		kind = "layer"
	case t == remote.DockerConfig || t == ocispec.MediaTypeImageConfig:
		kind = "config"
	}
	return kind + "-" + desc.Digest.String()
}

func isLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.")
}

// layerSource is a layer's bytes, from the content store or on their way into it.
type layerSource struct {
	job  *job
	desc ocispec.Descriptor

	blob   content.ReaderAt // it is there; else
	ingest content.Writer   // it is received here
	offset int64            // what the ingest had before
}

// open finds the layer's blob, or begins or resumes its ingest.
func (j *job) open(ctx context.Context, desc ocispec.Descriptor) (*layerSource, error) {
	src := &layerSource{job: j, desc: desc}
	for {
		if j.from != nil {
			// The writer comes first: where the blob is there, that is what makes it
			// the lease's.
			if err := src.begin(ctx); !errdefs.IsAlreadyExists(err) {
				return src, err
			}
		}
		blob, err := j.stores.Content.ReaderAt(ctx, desc)
		if errdefs.IsNotFound(err) && j.from != nil {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if blob.Size() != desc.Size {
			blob.Close()
			return nil, fmt.Errorf("blob has %d bytes, the manifest says %d: %w", blob.Size(), desc.Size, errdefs.ErrFailedPrecondition)
		}
		src.blob = blob
		return src, nil
	}
}

// begin opens the ingest. Where an earlier one had received something that cannot
// be read again before it is committed, begin receives the rest and commits it:
// then the blob is there, AlreadyExists.
func (src *layerSource) begin(ctx context.Context) (err error) {
	w, err := content.Open(ctx, src.job.stores.Content, ingestRef(src.desc), src.desc)
	if err != nil {
		return err
	}
	src.ingest = w
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
			src.ingest = nil
		}
	}()
	st, err := w.Status()
	if err == nil && st.Offset > src.desc.Size {
		st.Offset, err = 0, w.Truncate(0)
	}
	if err != nil {
		return err
	}
	src.offset = st.Offset
	if _, again := w.(io.ReaderAt); src.offset == 0 || again {
		return nil
	}
	if err := src.receive(ctx, nil); err != nil {
		return err
	}
	if err := src.commit(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", src.desc.Digest, errdefs.ErrAlreadyExists)
}

// stored says whether receive stores the blob, which was not there.
func (src *layerSource) stored() bool { return src.ingest != nil }

// Close keeps what was received for a later pull.
func (src *layerSource) Close() error {
	if src.blob != nil {
		return src.blob.Close()
	}
	if src.ingest != nil {
		return src.ingest.Close()
	}
	return nil
}

// receive reads all bytes and sends them down to, while somebody reads there; to
// is nil where they are only stored.
func (src *layerSource) receive(ctx context.Context, to *pipe) error {
	own := make([]byte, packedSize) // where nobody reads any more
	phase := Downloading
	if src.blob != nil {
		phase = Extracting
	}
	r, off := src.reader(ctx)
	defer r.Close()
	for off < src.desc.Size {
		b, ok := own, false
		if to != nil {
			if got, alive := to.buffer(); alive {
				b, ok = got, true
			}
		}
		if !ok && src.blob != nil {
			return nil // nothing to store, nobody to read
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		end := src.desc.Size
		if off < src.offset {
			end = src.offset // what the ingest has is not written again
		}
		b = b[:min(int64(len(b)), end-off)]
		n, err := fill(r, b)
		if n > 0 && src.ingest != nil && off >= src.offset {
			if _, werr := src.ingest.Write(b[:n]); werr != nil {
				return werr
			}
		}
		if ok {
			to.send(b[:n])
		}
		off += int64(n)
		src.job.report.say(src.desc, phase, off)
		if err != nil && !(errors.Is(err, io.EOF) && off == src.desc.Size) {
			return err
		}
	}
	if to != nil {
		src.job.report.say(src.desc, Extracting, off)
	}
	// A registry that has more to say is caught here.
	if _, err := r.Read(own[:1]); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// reader reads the layer from its beginning: what is here already, then what the
// registry has yet to send. What was received and cannot be read again is left
// out, and off says how much that is.
func (src *layerSource) reader(ctx context.Context) (r io.ReadCloser, off int64) {
	if src.blob != nil {
		return io.NopCloser(io.NewSectionReader(src.blob, 0, src.desc.Size)), 0
	}
	rest := &lazyReader{open: func() (io.ReadCloser, error) {
		if src.offset == src.desc.Size {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return src.job.from.registry.Fetch(ctx, src.job.from.repo, src.desc, src.offset)
	}}
	again, ok := src.ingest.(io.ReaderAt)
	if !ok {
		return rest, src.offset
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.NewSectionReader(again, 0, src.offset), rest), rest}, 0
}

// lazyReader opens what it reads when it is first read, so that a registry is
// not kept waiting.
type lazyReader struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
}

func (l *lazyReader) Read(b []byte) (int, error) {
	if l.r == nil {
		r, err := l.open()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(b)
}

func (l *lazyReader) Close() error {
	if l.r == nil {
		return nil
	}
	return l.r.Close()
}

// verify says whether what was received is what the manifest promised.
func (src *layerSource) verify() error {
	if src.ingest == nil {
		return nil
	}
	if got := src.ingest.Digest(); got != src.desc.Digest {
		return fmt.Errorf("registry sent %s instead: %w", got, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// commit makes the blob visible.
func (src *layerSource) commit(ctx context.Context) error {
	if src.ingest == nil {
		return nil
	}
	if err := src.verify(); err != nil {
		src.discard()
		return err
	}
	err := src.ingest.Commit(ctx, src.desc.Size, src.desc.Digest, src.job.from.labels(nil, nil))
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// discard throws away bytes that no later pull should go on with.
func (src *layerSource) discard() {
	if src.ingest == nil {
		return
	}
	src.ingest.Close()
	// Best effort: the ingest is not visible, and its lease expires.
	_ = src.job.stores.Content.Abort(context.Background(), ingestRef(src.desc))
}
