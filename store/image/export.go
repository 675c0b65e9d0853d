package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/content"
)

// The files of an archive: those of an OCI image layout (image-spec,
// image-layout.md), and docker's.
const (
	blobsDir           = ocispec.ImageBlobsDir + "/"
	dockerManifestFile = "manifest.json"
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	// Platforms whose manifests are written: of one that manifest, of several an index
	// of them. None is all that is there.
	Platforms []ocispec.Platform
	// OnlyOCI leaves docker's manifest.json out.
	OnlyOCI bool
}

// Export writes images as a tar that is an OCI image layout and, unless o says
// otherwise, a docker archive at once. Images with the same target are one image with several names. What is
// missing is found before the first byte is written.
func Export(ctx context.Context, s Stores, images []Image, w io.Writer, o ExportOptions) error {
	e := &export{store: s.Content, seen: map[digest.Digest]bool{}, entry: map[digest.Digest]int{}}
	for _, img := range images {
		if err := e.add(ctx, img, o.Platforms); err != nil {
			return fmt.Errorf("export %s: %w", img.Name, err)
		}
	}
	if o.OnlyOCI {
		e.docker = nil
	}
	return e.write(ctx, w)
}

// export is an archive that is being planned.
type export struct {
	store content.Store
	index ocispec.Index
	blobs []ocispec.Descriptor
	seen  map[digest.Digest]bool // in blobs

	docker []dockerImage
	entry  map[digest.Digest]int // in docker, by manifest
}

func (e *export) add(ctx context.Context, img Image, platforms []ocispec.Platform) error {
	target, err := narrow(ctx, e.store, img.Target, platforms)
	if err != nil {
		return err
	}
	m, desc, err := e.choose(ctx, target)
	if err != nil {
		return err
	}
	if err := e.collect(ctx, target, maxNesting); err != nil {
		return err
	}
	target.Annotations, target.Platform = nil, nil
	tag, named := tagOf(img.Name)
	if named {
		target.Annotations = map[string]string{annotationName: img.Name, ocispec.AnnotationRefName: tag.Tag()}
	}
	e.index.Manifests = append(e.index.Manifests, target)
	at, ok := e.entry[desc.Digest]
	if !ok {
		at = len(e.docker)
		e.entry[desc.Digest] = at
		d := dockerImage{Config: blobPath(m.Config.Digest)}
		for _, l := range m.Layers {
			d.Layers = append(d.Layers, blobPath(l.Digest))
		}
		e.docker = append(e.docker, d)
	}
	if named {
		e.docker[at].RepoTags = append(e.docker[at].RepoTags, reference.FamiliarString(tag))
	}
	return nil
}

// choose finds the manifest that the docker archive shows: it can show one only.
func (e *export) choose(ctx context.Context, target ocispec.Descriptor) (ocispec.Manifest, ocispec.Descriptor, error) {
	m, desc, err := Manifest(ctx, e.store, target, nil)
	if !errdefs.IsNotFound(err) || !isIndex(target.MediaType) {
		return m, desc, err
	}
	all, perr := Platforms(ctx, e.store, target)
	if perr != nil || len(all) == 0 {
		return m, desc, err
	}
	return Manifest(ctx, e.store, target, &all[0])
}

// tagOf reads a name that has a tag; one that has only a digest names nothing on
// another machine.
func tagOf(name string) (reference.NamedTagged, bool) {
	if strings.Contains(name, "@") {
		return nil, false
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, false
	}
	tagged, ok := named.(reference.NamedTagged)
	return tagged, ok
}

func blobPath(d digest.Digest) string { return blobsDir + d.Algorithm().String() + "/" + d.Encoded() }

// collect adds desc and all that is there below it.
func (e *export) collect(ctx context.Context, desc ocispec.Descriptor, nesting int) error {
	if e.seen[desc.Digest] {
		return nil
	}
	info, err := e.store.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	desc.Size = info.Size
	switch {
	case isManifest(desc.MediaType):
		m, err := readManifest(ctx, stored{e.store}, desc)
		if err != nil {
			return err
		}
		for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if err := e.collect(ctx, d, nesting); err != nil {
				return err
			}
		}
	case isIndex(desc.MediaType):
		if nesting == 0 {
			return fmt.Errorf("%s: indexes nested more than %d deep: %w", desc.Digest, maxNesting, errdefs.ErrInvalidArgument)
		}
		index, err := readIndex(ctx, stored{e.store}, desc)
		if err != nil {
			return err
		}
		for _, m := range index.Manifests {
			if _, err := e.store.Info(ctx, m.Digest); errdefs.IsNotFound(err) {
				continue // was not pulled
			}
			if err := e.collect(ctx, m, nesting-1); err != nil {
				return err
			}
		}
	}
	e.seen[desc.Digest] = true
	e.blobs = append(e.blobs, desc)
	return nil
}

func (e *export) write(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	made := map[string]bool{}
	for _, desc := range e.blobs {
		for _, dir := range []string{blobsDir, path.Dir(blobPath(desc.Digest)) + "/"} {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
				return fmt.Errorf("write archive: %w", err)
			}
		}
		if err := e.writeBlob(ctx, tw, desc); err != nil {
			return fmt.Errorf("write archive: %s: %w", desc.Digest, err)
		}
	}
	e.index.SchemaVersion, e.index.MediaType = 2, ocispec.MediaTypeImageIndex
	for _, doc := range []struct {
		name string
		v    any
	}{
		{ocispec.ImageIndexFile, e.index},
		{dockerManifestFile, e.docker},
		{ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
	} {
		if doc.name == dockerManifestFile && e.docker == nil {
			continue
		}
		data, err := json.Marshal(doc.v)
		if err == nil {
			err = writeFile(tw, doc.name, int64(len(data)))
		}
		if err == nil {
			_, err = tw.Write(data)
		}
		if err != nil {
			return fmt.Errorf("write archive: %s: %w", doc.name, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func (e *export) writeBlob(ctx context.Context, tw *tar.Writer, desc ocispec.Descriptor) error {
	ra, err := e.store.ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := writeFile(tw, blobPath(desc.Digest), ra.Size()); err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{tw}, io.NewSectionReader(ra, 0, ra.Size()), make([]byte, 1<<20))
	return err
}

func writeFile(tw *tar.Writer, name string, size int64) error {
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}
