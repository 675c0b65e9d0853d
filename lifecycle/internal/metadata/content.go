package metadata

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/store/content"
)

// Content is one namespace's view of the content store: the blobs linked here.
// It implements content.Store.
type Content struct {
	db    *DB
	scope Scope
}

// Content gives the view of s; what is written through it belongs to s's lease.
func (db *DB) Content(s Scope) Content { return Content{db, s} }

// Info reads what is known of a blob.
func (c Content) Info(_ context.Context, dgst digest.Digest) (info content.Info, err error) {
	err = c.db.bolt.View(func(tx *bolt.Tx) error {
		b := c.blob(tx, dgst)
		if b == nil {
			return notFound("content", dgst.String())
		}
		info = readBlob(b, dgst)
		return nil
	})
	return info, err
}

func (c Content) blob(tx *bolt.Tx, dgst digest.Digest) *bolt.Bucket {
	return at(tx, c.scope.Namespace, blobs, "blob", dgst.String())
}

// Update writes labels.
func (c Content) Update(_ context.Context, next content.Info, paths ...string) (info content.Info, err error) {
	if err := checkPaths(paths, "labels."); err != nil {
		return content.Info{}, err
	}
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	err = c.db.update(func(tx *bolt.Tx) error {
		b := c.blob(tx, next.Digest)
		if b == nil {
			return notFound("content", next.Digest.String())
		}
		info = readBlob(b, next.Digest)
		info.Labels = editLabels(info.Labels, next.Labels, paths)
		info.UpdatedAt = time.Now().UTC()
		if err := writeTime(b, keyUpdatedAt, info.UpdatedAt); err != nil {
			return err
		}
		return writeLabels(b, info.Labels)
	})
	return info, err
}

// Walk calls fn for every blob that matches one of the filters.
func (c Content) Walk(_ context.Context, fn func(content.Info) error, filters ...string) error {
	f, err := filter.Parse(filters...)
	if err != nil {
		return err
	}
	var all []content.Info
	err = c.db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx, c.scope.Namespace, blobs, "blob"), func(dgst string, b *bolt.Bucket) error {
			if info := readBlob(b, digest.Digest(dgst)); f.Match(blobFields(info)) {
				all = append(all, info)
			}
			return nil
		})
	})
	for _, info := range all {
		if err != nil {
			break
		}
		err = fn(info) // outside the transaction: fn may write
	}
	return err
}

func blobFields(i content.Info) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "digest":
			return i.Digest.String(), true
		case "size":
			return fmt.Sprint(i.Size), true
		case "labels":
			return filter.Labels(i.Labels, path[1:])
		}
		return "", false
	}
}

// Delete unlinks a blob from the namespace. It is deleted a little later, if no
// other has it.
func (c Content) Delete(_ context.Context, dgst digest.Digest) error {
	err := c.db.delete(func(tx *bolt.Tx) error {
		if c.blob(tx, dgst) == nil {
			return notFound("content", dgst.String())
		}
		if err := at(tx, c.scope.Namespace, blobs, "blob").DeleteBucket([]byte(dgst)); err != nil {
			return err
		}
		return c.scope.release(tx, blobs, dgst.String())
	})
	if err != nil {
		return err
	}
	c.db.collections.unlinked(dgst)
	c.db.publish(c.scope.Namespace, "/content/delete", &events.ContentDelete{Digest: dgst.String()})
	return nil
}

// ReaderAt opens a blob that the namespace has.
func (c Content) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	if _, err := c.Info(ctx, desc.Digest); err != nil {
		return nil, err
	}
	return c.db.content.ReaderAt(ctx, desc)
}

// link records a blob that the content store has, and ends its ingest. It says
// whether the namespace did not have the blob before.
func (c Content) link(tx *bolt.Tx, ref string, dgst digest.Digest, size int64, labels map[string]string) (isNew bool, err error) {
	if err := c.endIngest(tx, ref); err != nil {
		return false, err
	}
	if isNew = c.blob(tx, dgst) == nil; isNew {
		if err := c.record(tx, dgst, size, labels); err != nil {
			return false, err
		}
	}
	return isNew, c.scope.hold(tx, blobs, dgst.String())
}

// record writes the record of a new blob.
func (c Content) record(tx *bolt.Tx, dgst digest.Digest, size int64, labels map[string]string) error {
	b, err := makeAt(tx, c.scope.Namespace, blobs, "blob", dgst.String())
	if err != nil {
		return err
	}
	if err := stamp(b, time.Now()); err != nil {
		return err
	}
	if err := b.Put(keySize, varint(size)); err != nil {
		return err
	}
	return writeLabels(b, labels)
}

func readBlob(b *bolt.Bucket, dgst digest.Digest) content.Info {
	return content.Info{
		Digest:    dgst,
		Size:      readVarint(b.Get(keySize)),
		CreatedAt: readTime(b, keyCreatedAt),
		UpdatedAt: readTime(b, keyUpdatedAt),
		Labels:    labelsOf(b),
	}
}

// linked says whether any namespace has the blob, or an ingest that expects it: it
// may have been promised that the blob is there.
func linked(tx *bolt.Tx, dgst digest.Digest) bool {
	found := false
	eachBucket(at(tx), func(_ string, ns *bolt.Bucket) error {
		found = found || below(ns, blobs, "blob", dgst.String()) != nil
		return eachBucket(below(ns, blobs, "ingests"), func(_ string, b *bolt.Bucket) error {
			found = found || string(b.Get(keyExpected)) == dgst.String()
			return nil
		})
	})
	return found
}
