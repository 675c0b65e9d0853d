package rig

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the time of every file that the rig makes, so that images are the same
// bytes each time.
var epoch = time.Unix(1700000000, 0).UTC()

// Layout writes an OCI image layout (image-spec, image-layout.md) at dir.
type Layout struct {
	Architecture string // this machine's, as Go names it, unless set

	dir    string
	layers []ocispec.Descriptor
	diffs  []digest.Digest
}

// NewLayout makes an empty layout in dir, which must not be there.
func NewLayout(dir string) (*Layout, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return nil, err
	}
	return &Layout{Architecture: runtime.GOARCH, dir: dir}, nil
}

// Layer adds a gzip layer whose tar is written by fill.
func (l *Layout) Layer(fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(l.dir, "layer")
	if err != nil {
		return err
	}
	defer f.Close()
	blob, diff := digest.SHA256.Digester(), digest.SHA256.Digester()
	zip, err := gzip.NewWriterLevel(io.MultiWriter(f, blob.Hash()), gzip.BestSpeed)
	if err != nil {
		return err
	}
	if err := fill(io.MultiWriter(zip, diff.Hash())); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	l.layers = append(l.layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: blob.Digest(), Size: size})
	l.diffs = append(l.diffs, diff.Digest())
	return os.Rename(f.Name(), l.blob(blob.Digest()))
}

// Base adds the layers of the image in another layout.
func (l *Layout) Base(dir string) error {
	base := &Layout{dir: dir}
	var index ocispec.Index
	if err := readJSON(filepath.Join(dir, "index.json"), &index); err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := readJSON(base.blob(index.Manifests[0].Digest), &manifest); err != nil {
		return err
	}
	var img ocispec.Image
	if err := readJSON(base.blob(manifest.Config.Digest), &img); err != nil {
		return err
	}
	for _, layer := range manifest.Layers {
		if err := os.Link(base.blob(layer.Digest), l.blob(layer.Digest)); err != nil {
			return err
		}
	}
	l.layers = append(l.layers, manifest.Layers...)
	l.diffs = append(l.diffs, img.RootFS.DiffIDs...)
	return nil
}

func readJSON(file string, v any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// Finish writes config, manifest and index; name is the reference in the index.
func (l *Layout) Finish(name string, config ocispec.ImageConfig) error {
	created := epoch
	img := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: l.Architecture, OS: "linux"},
		Config:   config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: l.diffs},
	}
	for range l.diffs {
		img.History = append(img.History, ocispec.History{Created: &created, CreatedBy: "gantry test rig"})
	}
	cfg, err := l.json(ocispec.MediaTypeImageConfig, img)
	if err != nil {
		return err
	}
	manifest, err := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    cfg,
		Layers:    l.layers,
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{manifest},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

func (l *Layout) json(mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, os.WriteFile(l.blob(d.Digest), data, 0o644)
}

func (l *Layout) blob(d digest.Digest) string {
	return filepath.Join(l.dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// Archive writes the layout at dir as one tar, as 'skopeo copy oci-archive:' and
// 'docker load' take it.
func Archive(w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		return err
	}
	return tw.Close()
}

// File is one entry of a layer made by hand.
type File struct {
	Name string // without leading slash; a trailing slash makes a directory
	Mode int64
	Data []byte
	Link string // target of a hard link
	Sym  string // target of a symbolic link
}

// Tar writes files as a layer, in the order given.
func Tar(files []File) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for _, f := range files {
			h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Data)), ModTime: epoch, Typeflag: tar.TypeReg}
			switch {
			case f.Link != "":
				h.Typeflag, h.Linkname = tar.TypeLink, f.Link
			case f.Sym != "":
				h.Typeflag, h.Linkname = tar.TypeSymlink, f.Sym
			case f.Name[len(f.Name)-1] == '/':
				h.Typeflag = tar.TypeDir
			}
			if err := tw.WriteHeader(h); err != nil {
				return fmt.Errorf("layer entry %s: %w", f.Name, err)
			}
			if _, err := io.Copy(tw, bytes.NewReader(f.Data)); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}
