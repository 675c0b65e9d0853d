package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/store/content"
)

// flushEvery is how many bytes are received before the kernel is asked to begin
// writing them to disk, and so for the last ones, so that the fsync of Commit finds
// little to do. Fewer than flushLeast are not worth the call.
const (
	flushEvery = 8 << 20
	flushLeast = 1 << 20
)

// writer is an open ingest. One goroutine at a time may use it.
type writer struct {
	store   *Store
	ref     string
	dir     ingest
	data    *os.File // nil once closed
	status  content.Status
	digest  digest.Digester
	flushed int64
}

var (
	_ content.Writer = (*writer)(nil)
	_ io.ReaderAt    = (*writer)(nil)
)

// Writer opens or resumes the ingest ref.
func (s *Store) Writer(ctx context.Context, ref string, desc ocispec.Descriptor) (_ content.Writer, err error) {
	if ref == "" {
		return nil, fmt.Errorf("open ingest: empty ref: %w", errdefs.ErrInvalidArgument)
	}
	if desc.Digest != "" {
		_, err := s.Info(ctx, desc.Digest)
		if err == nil {
			return nil, fmt.Errorf("content %s: %w", desc.Digest, errdefs.ErrAlreadyExists)
		}
		if !errdefs.IsNotFound(err) {
			return nil, err
		}
	}
	if err := s.hold(ref); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { s.release(ref); return nil })
	w, err := s.open(ctx, ref, desc)
	if err != nil {
		return nil, fmt.Errorf("open ingest %s: %w", ref, errs.Disk(err))
	}
	return w, nil
}

func (s *Store) open(ctx context.Context, ref string, desc ocispec.Descriptor) (_ *writer, err error) {
	w := &writer{store: s, ref: ref, dir: s.ingest(ref)}
	w.status, err = w.dir.status()
	if errors.Is(err, fs.ErrNotExist) {
		// Never begun, or a crash left the directory without its ref.
		if err := os.RemoveAll(string(w.dir)); err != nil {
			return nil, err
		}
		if w.status, err = w.dir.begin(ref, desc); err != nil {
			return nil, errors.Join(err, os.RemoveAll(string(w.dir)))
		}
	}
	if err != nil {
		return nil, err
	}
	if err := agree(w.status, desc); err != nil {
		return nil, err
	}
	if w.status.Total == 0 {
		w.status.Total = desc.Size
	}
	if w.status.Expected == "" {
		w.status.Expected = desc.Digest
	}
	algorithm := digest.Canonical
	if w.status.Expected != "" {
		algorithm = w.status.Expected.Algorithm()
	}
	if !algorithm.Available() {
		return nil, fmt.Errorf("digest algorithm %q: %w", algorithm, errdefs.ErrInvalidArgument)
	}
	w.digest = algorithm.Digester()
	w.data, err = os.OpenFile(w.dir.file("data"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if w.status.Offset == 0 {
		return w, nil
	}
	defer errs.Undo(&err, w.data.Close)
	return w, w.rehash(ctx)
}

// agree refuses to go on with an ingest that was begun for something else.
func agree(st content.Status, desc ocispec.Descriptor) error {
	if st.Total > 0 && desc.Size > 0 && st.Total != desc.Size {
		return fmt.Errorf("begun for %d bytes, not %d: %w", st.Total, desc.Size, errdefs.ErrFailedPrecondition)
	}
	if st.Expected != "" && desc.Digest != "" && st.Expected != desc.Digest {
		return fmt.Errorf("begun for %s, not %s: %w", st.Expected, desc.Digest, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// rehash reads what an earlier writer received.
func (w *writer) rehash(ctx context.Context) error {
	n, err := io.CopyBuffer(w.digest.Hash(), struct{ io.Reader }{ctxReader{ctx, w.data}}, make([]byte, 1<<18))
	w.status.Offset, w.flushed = n, n
	return err
}

// ctxReader stops reading when ctx is done.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func (w *writer) Write(p []byte) (int, error) {
	if w.data == nil {
		return 0, fmt.Errorf("write ingest %s: %w", w.ref, fs.ErrClosed)
	}
	n, err := w.data.Write(p)
	w.digest.Hash().Write(p[:n])
	w.status.Offset += int64(n)
	w.status.UpdatedAt = time.Now() // the kernel's own time of a file is some ms behind
	if err != nil {
		return n, fmt.Errorf("write ingest %s: %w", w.ref, errs.Disk(err))
	}
	dirty := w.status.Offset - w.flushed
	if dirty >= flushEvery || dirty >= flushLeast && w.status.Offset == w.status.Total {
		// Only a hint: where the file system refuses it, Commit waits longer.
		_ = unix.SyncFileRange(int(w.data.Fd()), w.flushed, dirty, unix.SYNC_FILE_RANGE_WRITE)
		w.flushed = w.status.Offset
	}
	return n, nil
}

// ReadAt reads again what was received, by this writer or one before it.
func (w *writer) ReadAt(p []byte, off int64) (int, error) {
	if w.data == nil {
		return 0, fmt.Errorf("read ingest %s: %w", w.ref, fs.ErrClosed)
	}
	return w.data.ReadAt(p, off)
}

func (w *writer) Digest() digest.Digest { return w.digest.Digest() }

func (w *writer) Status() (content.Status, error) {
	return w.status, nil
}

func (w *writer) Truncate(size int64) error {
	if size != 0 {
		return fmt.Errorf("truncate ingest %s to %d: only to 0: %w", w.ref, size, errdefs.ErrInvalidArgument)
	}
	if w.data == nil {
		return fmt.Errorf("truncate ingest %s: %w", w.ref, fs.ErrClosed)
	}
	if err := w.data.Truncate(0); err != nil {
		return fmt.Errorf("truncate ingest %s: %w", w.ref, err)
	}
	if _, err := w.data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("truncate ingest %s: %w", w.ref, err)
	}
	w.digest.Hash().Reset()
	w.status.Offset, w.flushed = 0, 0
	return nil
}

// Close keeps the ingest for a later writer.
func (w *writer) Close() error {
	if w.data == nil {
		return nil
	}
	err := w.data.Close()
	if terr := w.dir.touch(w.status.UpdatedAt); !errors.Is(terr, fs.ErrNotExist) { // committed: the directory is gone
		err = errors.Join(err, terr)
	}
	w.data = nil
	w.store.release(w.ref)
	if err != nil {
		return fmt.Errorf("close ingest %s: %w", w.ref, errs.Disk(err))
	}
	return nil
}

// Commit makes the blob visible, on disk before its name is. What does not match
// stays an ingest, and the writer is closed whatever happens.
func (w *writer) Commit(_ context.Context, size int64, expected digest.Digest, labels map[string]string) (err error) {
	if w.data == nil {
		return fmt.Errorf("commit ingest %s: %w", w.ref, fs.ErrClosed)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.verify(size, expected); err != nil {
		return fmt.Errorf("commit ingest %s: %w", w.ref, err)
	}
	dgst := w.digest.Digest()
	if err := w.publish(dgst); err != nil {
		return fmt.Errorf("commit ingest %s: %w", w.ref, errs.Disk(err))
	}
	if len(labels) == 0 {
		return nil
	}
	if err := w.store.labels.set(dgst, labels); err != nil {
		return fmt.Errorf("label %s: %w", dgst, err)
	}
	return nil
}

func (w *writer) verify(size int64, expected digest.Digest) error {
	if size > 0 && size != w.status.Offset {
		return fmt.Errorf("received %d bytes, not %d: %w", w.status.Offset, size, errdefs.ErrFailedPrecondition)
	}
	if got := w.digest.Digest(); expected != "" && got != expected {
		return fmt.Errorf("received %s, not %s: %w", got, expected, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// publish moves the data among the blobs. The order matters: data on disk, then
// the name, then the directory; a power cut leaves an ingest or a whole blob.
func (w *writer) publish(dgst digest.Digest) error {
	target, err := w.store.path(dgst)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); err == nil {
		return errors.Join(fmt.Errorf("content %s: %w", dgst, errdefs.ErrAlreadyExists), os.RemoveAll(string(w.dir)))
	}
	if err := w.data.Sync(); err != nil {
		return err
	}
	if err := w.data.Chmod(0o444); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if err := os.Rename(w.dir.file("data"), target); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(target)); err != nil {
		return err
	}
	return w.dir.remove()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
