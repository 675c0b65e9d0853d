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
	"github.com/gantryd/gantry/store/image"
)

// Images is the images of one namespace. It implements image.Images.
type Images struct {
	db *DB
	ns string
}

// Images gives the images of ns.
func (db *DB) Images(ns string) Images { return Images{db, ns} }

// Get reads one.
func (i Images) Get(_ context.Context, name string) (image.Image, error) {
	return readOne(i.db, i.ns, images, "image", name, readImage)
}

// List reads those that match one of the filters.
func (i Images) List(_ context.Context, filters ...string) ([]image.Image, error) {
	return readAll(i.db, i.ns, images, filters, readImage, imageFields)
}

// Create names a descriptor.
func (i Images) Create(_ context.Context, img image.Image) (image.Image, error) {
	if err := checkImage(img); err != nil {
		return image.Image{}, err
	}
	now := time.Now().UTC()
	if img.CreatedAt.IsZero() {
		img.CreatedAt = now
	}
	img.UpdatedAt = img.CreatedAt
	err := i.db.update(func(tx *bolt.Tx) error {
		set, err := makeAt(tx, i.ns, images)
		if err != nil {
			return err
		}
		b, err := makeNew(set, "image", img.Name)
		if err != nil {
			return err
		}
		return writeImage(b, img)
	})
	if err != nil {
		return image.Image{}, err
	}
	i.db.publish(i.ns, "/images/create", &events.ImageCreate{Name: img.Name, Labels: img.Labels})
	return img, nil
}

// Update writes what paths name of an image, where there is no path its target
// and labels.
func (i Images) Update(_ context.Context, next image.Image, paths ...string) (img image.Image, err error) {
	if err := checkPaths(paths, "target", "labels.", "annotations."); err != nil {
		return image.Image{}, err
	}
	if len(paths) == 0 {
		paths = []string{"target", "labels"}
	}
	err = i.db.update(func(tx *bolt.Tx) error {
		b := at(tx, i.ns, images, next.Name)
		if b == nil {
			return notFound("image", next.Name)
		}
		img = readImage(b, next.Name)
		img.Labels = editLabels(img.Labels, next.Labels, paths)
		img.Target.Annotations = editMap(img.Target.Annotations, next.Target.Annotations, "annotations", paths)
		for _, p := range paths {
			if p == "target" {
				img.Target = next.Target
			}
		}
		if err := checkImage(img); err != nil {
			return err
		}
		img.UpdatedAt = time.Now().UTC()
		if !next.UpdatedAt.IsZero() {
			img.UpdatedAt = next.UpdatedAt
		}
		return writeImage(b, img)
	})
	if err != nil {
		return image.Image{}, err
	}
	i.db.publish(i.ns, "/images/update", &events.ImageUpdate{Name: img.Name, Labels: img.Labels})
	i.db.collections.later() // what the old target held
	return img, nil
}

// Delete forgets a name. What it held is collected a little later.
func (i Images) Delete(ctx context.Context, name string) error {
	return i.DeleteTarget(ctx, name, "")
}

// DeleteTarget is Delete if the image still has this target; empty is any.
func (i Images) DeleteTarget(_ context.Context, name string, target digest.Digest) error {
	err := i.db.delete(func(tx *bolt.Tx) error {
		set := at(tx, i.ns, images)
		b := below(set, name)
		if b == nil {
			return notFound("image", name)
		}
		if is := readImage(b, name).Target.Digest; target != "" && target != is {
			return fmt.Errorf("image %q has target %s, not %s: %w", name, is, target, errdefs.ErrNotFound)
		}
		return set.DeleteBucket([]byte(name))
	})
	if err != nil {
		return err
	}
	i.db.publish(i.ns, "/images/delete", &events.ImageDelete{Name: name})
	i.db.collections.later()
	return nil
}

func checkImage(img image.Image) error {
	if img.Name == "" {
		return fmt.Errorf("image without a name: %w", errdefs.ErrInvalidArgument)
	}
	if err := img.Target.Digest.Validate(); err != nil {
		return fmt.Errorf("image %q: target digest %q: %w: %w", img.Name, img.Target.Digest, err, errdefs.ErrInvalidArgument)
	}
	if img.Target.Size == 0 || img.Target.MediaType == "" {
		return fmt.Errorf("image %q: target %s without size or media type: %w", img.Name, img.Target.Digest, errdefs.ErrInvalidArgument)
	}
	return checkLabels(img.Labels)
}

func imageFields(img image.Image) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return img.Name, true
		case "target":
			switch {
			case len(path) == 2 && path[1] == "digest":
				return img.Target.Digest.String(), true
			case len(path) == 2 && path[1] == "mediatype":
				return img.Target.MediaType, true
			}
		case "labels":
			return filter.Labels(img.Labels, path[1:])
		case "annotations":
			return filter.Labels(img.Target.Annotations, path[1:])
		}
		return "", false
	}
}

func readImage(b *bolt.Bucket, name string) image.Image {
	img := image.Image{
		Name:      name,
		Labels:    labelsOf(b),
		CreatedAt: readTime(b, keyCreatedAt),
		UpdatedAt: readTime(b, keyUpdatedAt),
	}
	if tb := b.Bucket(keyTarget); tb != nil {
		img.Target = ocispec.Descriptor{
			MediaType:   string(tb.Get(keyMediaType)),
			Digest:      digest.Digest(tb.Get(keyDigest)),
			Size:        readVarint(tb.Get(keySize)),
			Annotations: readMap(tb, keyAnnotations),
		}
	}
	return img
}

func writeImage(b *bolt.Bucket, img image.Image) error {
	if err := writeTime(b, keyCreatedAt, img.CreatedAt); err != nil {
		return err
	}
	if err := writeTime(b, keyUpdatedAt, img.UpdatedAt); err != nil {
		return err
	}
	if err := writeLabels(b, img.Labels); err != nil {
		return err
	}
	tb, err := b.CreateBucketIfNotExists(keyTarget)
	if err != nil {
		return err
	}
	if err := writeMap(tb, keyAnnotations, img.Target.Annotations); err != nil {
		return err
	}
	return put(
		tb,
		[2][]byte{keyDigest, []byte(img.Target.Digest)},
		[2][]byte{keyMediaType, []byte(img.Target.MediaType)},
		[2][]byte{keySize, varint(img.Target.Size)},
	)
}
