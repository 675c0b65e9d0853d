package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/store/content"
)

// ingestAge is how long an ingest that no lease holds is kept for a resume.
const ingestAge = 24 * time.Hour

// Writer opens or resumes the namespace's ingest ref. A blob that another
// namespace has already is linked at Commit without a byte written; until then the
// ingest, which expects it, keeps it.
func (c Content) Writer(ctx context.Context, ref string, desc ocispec.Descriptor) (content.Writer, error) {
	if ref == "" {
		return nil, fmt.Errorf("ingest without a ref: %w", errdefs.ErrInvalidArgument)
	}
	c.db.linking.RLock() // so that what is found in the store below is still there at Commit
	defer c.db.linking.RUnlock()

	if desc.Digest != "" {
		if err := c.refuseExisting(desc.Digest); err != nil {
			return nil, err
		}
	}
	w := &writer{view: c, ref: ref, started: time.Now()}
	err := c.db.update(func(tx *bolt.Tx) (err error) {
		w.below, err = c.beginIngest(tx, ref, desc.Digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.Writer, err = c.db.content.Writer(ctx, w.below, desc)
	if errdefs.IsAlreadyExists(err) {
		w.Writer = nil
		if w.shared, err = c.db.content.Info(ctx, desc.Digest); err == nil && desc.Size > 0 && desc.Size != w.shared.Size {
			err = fmt.Errorf("content %s has %d bytes, not %d: %w", desc.Digest, w.shared.Size, desc.Size, errdefs.ErrInvalidArgument)
		}
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// refuseExisting answers AlreadyExists for a blob that the namespace has: the client
// goes on as if it had written it.
func (c Content) refuseExisting(dgst digest.Digest) error {
	found, err := c.db.existing(c.scope, func(tx *bolt.Tx) *bolt.Bucket { return c.blob(tx, dgst) }, blobs, dgst.String())
	if err == nil && found {
		err = fmt.Errorf("content %s: %w", dgst, errdefs.ErrAlreadyExists)
	}
	return err
}

// beginIngest finds or makes the record of ref and gives its name in the store
// below.
func (c Content) beginIngest(tx *bolt.Tx, ref string, expected digest.Digest) (string, error) {
	b, err := makeAt(tx, c.scope.Namespace, blobs, "ingests", ref)
	if err != nil {
		return "", err
	}
	name := string(b.Get(keyRef))
	if name == "" {
		name = c.db.unique(c.scope.Namespace, ref)
	}
	if err := put(b, [2][]byte{keyRef, []byte(name)}, [2][]byte{keyExpected, []byte(expected)}); err != nil {
		return "", err
	}
	if c.scope.Lease != "" {
		return name, c.scope.hold(tx, "ingests", ref)
	}
	return name, writeTime(b, keyExpireAt, time.Now().Add(ingestAge))
}

// endIngest forgets the record of ref.
func (c Content) endIngest(tx *bolt.Tx, ref string) error {
	set := at(tx, c.scope.Namespace, blobs, "ingests")
	if below(set, ref) == nil {
		return nil
	}
	if err := set.DeleteBucket([]byte(ref)); err != nil {
		return err
	}
	return c.scope.release(tx, "ingests", ref)
}

// ingest gives the name of ref in the store below.
func (c Content) ingest(ref string) (name string, expected digest.Digest, err error) {
	err = c.db.bolt.View(func(tx *bolt.Tx) error {
		b := at(tx, c.scope.Namespace, blobs, "ingests", ref)
		if b == nil {
			return notFound("ingest", ref)
		}
		name, expected = string(b.Get(keyRef)), digest.Digest(b.Get(keyExpected))
		return nil
	})
	return name, expected, err
}

// Status reads one ingest.
func (c Content) Status(ctx context.Context, ref string) (content.Status, error) {
	name, expected, err := c.ingest(ref)
	if err != nil {
		return content.Status{}, err
	}
	st, err := c.db.content.Status(ctx, name)
	if err != nil {
		return content.Status{}, err
	}
	st.Ref, st.Expected = ref, expected
	return st, nil
}

// ListStatuses reads the ingests that match one of the filters.
func (c Content) ListStatuses(ctx context.Context, filters ...string) (out []content.Status, err error) {
	f, err := filter.Parse(filters...)
	if err != nil {
		return nil, err
	}
	var refs []string
	err = c.db.bolt.View(func(tx *bolt.Tx) error {
		eachKey(at(tx, c.scope.Namespace, blobs, "ingests"), func(ref string) { refs = append(refs, ref) })
		return nil
	})
	for _, ref := range refs {
		st, serr := c.Status(ctx, ref)
		if errdefs.IsNotFound(serr) {
			continue // ended meanwhile, or shared
		} else if serr != nil {
			return nil, serr
		}
		if f.Match(func(path []string) (string, bool) { return st.Ref, path[0] == "ref" }) {
			out = append(out, st)
		}
	}
	return out, err
}

// Abort gives an ingest up.
func (c Content) Abort(ctx context.Context, ref string) error {
	name, expected, err := c.ingest(ref)
	if err != nil {
		return err
	}
	if err := c.db.content.Abort(ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if err := c.db.delete(func(tx *bolt.Tx) error { return c.endIngest(tx, ref) }); err != nil {
		return err
	}
	c.db.collections.unlinked(expected)
	return nil
}

// writer is an ingest in the store below, or, where shared is set, the promise to
// link a blob that is there.
type writer struct {
	content.Writer
	view    Content
	ref     string
	below   string
	shared  content.Info
	started time.Time
}

func (w *writer) Digest() digest.Digest {
	if w.Writer == nil {
		return w.shared.Digest
	}
	return w.Writer.Digest()
}

func (w *writer) Status() (content.Status, error) {
	if w.Writer == nil {
		return content.Status{
			Ref: w.ref, Offset: w.shared.Size, Total: w.shared.Size, Expected: w.shared.Digest,
			StartedAt: w.started, UpdatedAt: w.started,
		}, nil
	}
	st, err := w.Writer.Status()
	st.Ref = w.ref
	return st, err
}

func (w *writer) Write(p []byte) (int, error) {
	if err := w.open(); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (w *writer) Truncate(size int64) error {
	if w.Writer == nil && size == w.shared.Size {
		return nil
	}
	if err := w.open(); err != nil {
		return err
	}
	return w.Writer.Truncate(size)
}

// open begins to write for real where the client wants to write a blob that it
// could have shared.
func (w *writer) open() (err error) {
	if w.Writer == nil {
		w.Writer, err = w.view.db.content.Writer(context.Background(), w.below, ocispec.Descriptor{})
	}
	return err
}

func (w *writer) Close() error {
	if w.Writer == nil {
		return nil
	}
	return w.Writer.Close()
}

// Commit makes the blob the namespace's, in one step with the end of the ingest.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, labels map[string]string) error {
	db := w.view.db
	db.linking.RLock()
	defer db.linking.RUnlock()
	dgst, size, err := w.commitBelow(ctx, size, expected)
	if err != nil {
		return err
	}
	isNew := false
	err = db.update(func(tx *bolt.Tx) (err error) {
		isNew, err = w.view.link(tx, w.ref, dgst, size, labels)
		return err
	})
	if err != nil {
		db.collections.unlinked(dgst)
		return err
	}
	if !isNew {
		return fmt.Errorf("content %s: %w", dgst, errdefs.ErrAlreadyExists)
	}
	db.publish(w.view.scope.Namespace, "/content/create", &events.ContentCreate{Digest: dgst.String(), Size: size})
	return nil
}

// commitBelow commits in the store below; a blob that is there already is as good.
func (w *writer) commitBelow(ctx context.Context, size int64, expected digest.Digest) (digest.Digest, int64, error) {
	if w.Writer == nil {
		// What was received before somebody else had the whole blob is of no use. Unavailable
		// is that somebody, who is about to let go of it.
		if err := w.view.db.content.Abort(ctx, w.below); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsUnavailable(err) {
			return "", 0, err
		}
		info, err := w.view.db.content.Info(ctx, w.shared.Digest)
		if err != nil {
			return "", 0, err
		}
		if size > 0 && size != info.Size || expected != "" && expected != info.Digest {
			return "", 0, fmt.Errorf("commit %s: have %s of %d bytes, want %s of %d: %w",
				w.ref, info.Digest, info.Size, expected, size, errdefs.ErrFailedPrecondition)
		}
		return info.Digest, info.Size, nil
	}
	st, err := w.Writer.Status()
	if err != nil {
		return "", 0, err
	}
	dgst := w.Writer.Digest()
	if err := w.Writer.Commit(ctx, size, expected, nil); err != nil && !errdefs.IsAlreadyExists(err) {
		return "", 0, err
	}
	return dgst, st.Offset, nil
}
