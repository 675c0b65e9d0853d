package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/layer"
)

// ImportOptions say how Import reads an archive.
type ImportOptions struct {
	Platform *ocispec.Platform
	Unpack   bool
	// More is unpacked besides. Of several platforms each image must have one.
	More []Wish
	// Digests also names images that have no name in the archive, by this prefix and
	// "@DIGEST"; empty leaves them out.
	Digests string
	// Names, where it is set, names the images instead: it is asked for each
	// descriptor in the archive's list of images, and for the list itself, an index,
	// which is kept only where it has a name.
	Names    func(desc ocispec.Descriptor, index bool) []Image
	Progress func(Progress)
}

// names are the names of one image where Names is not set: the one that the archive
// tells, or the digest.
func (o ImportOptions) names(desc ocispec.Descriptor) []Image {
	if o.Names != nil {
		return o.Names(desc, false)
	}
	target := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	if name := layoutName(desc.Annotations); name != "" {
		return []Image{{Name: name, Target: target}}
	}
	if o.Digests != "" {
		return []Image{{Name: o.Digests + "@" + desc.Digest.String(), Target: target}}
	}
	return nil
}

// Import reads an archive as docker save or OCI tools write it, compressed or
// not, stores its blobs and names its images. Where an archive is an OCI layout
// and a docker archive at once, the layout counts.
func Import(ctx context.Context, s Stores, r io.Reader, o ImportOptions) ([]Image, error) {
	a := &archive{stores: s, files: map[string]ocispec.Descriptor{}, links: map[string]string{}, documents: map[string][]byte{}}
	if err := a.receive(ctx, r); err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	index, data, err := a.index(ctx)
	if err != nil {
		return nil, fmt.Errorf("read archive: %w", err)
	}
	checked := map[digest.Digest]bool{}
	var named []Image
	for _, desc := range index.Manifests {
		if !checked[desc.Digest] {
			checked[desc.Digest] = true
			if err := a.settle(ctx, desc, o); err != nil {
				return nil, err
			}
		}
		named = append(named, o.names(desc)...)
	}
	if o.Names != nil {
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}
		all := o.Names(desc, true)
		if len(all) > 0 {
			if err := content.WriteBlob(ctx, s.Content, ingestRef(desc), data, desc, refsOfIndex(index)); err != nil {
				return nil, err
			}
		}
		named = append(named, all...)
	}
	// Names come last: what has one is whole.
	for i, img := range named {
		if named[i], err = s.name(ctx, img); err != nil {
			return nil, err
		}
	}
	return named, nil
}

// archive is what came out of a tar. It cannot be read twice, so what may be a
// blob goes into the store as it comes, and what it is turns out at the end.
type archive struct {
	stores    Stores
	files     map[string]ocispec.Descriptor // stored, by path
	links     map[string]string             // path to path
	documents map[string][]byte             // index.json, manifest.json, oci-layout
}

// maxFiles of an archive are remembered.
const maxFiles = 1 << 16

func (a *archive) receive(ctx context.Context, r io.Reader) error {
	z, _, err := layer.Decompress(r)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	defer z.Close()
	tr := tar.NewReader(z)
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		if len(a.files)+len(a.links) > maxFiles {
			return fmt.Errorf("more than %d files: %w", maxFiles, errdefs.ErrInvalidArgument)
		}
		if err := a.entry(ctx, hdr, tr); err != nil {
			return fmt.Errorf("%s: %w", hdr.Name, err)
		}
	}
	// What follows the end marker is padding; the sender wants to be rid of it.
	_, err = io.Copy(io.Discard, z)
	return err
}

func (a *archive) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	name := clean(hdr.Name)
	switch hdr.Typeflag {
	case tar.TypeSymlink:
		a.links[name] = clean(path.Join(path.Dir(name), hdr.Linkname))
		return nil
	case tar.TypeLink:
		a.links[name] = clean(hdr.Linkname)
		return nil
	case tar.TypeReg:
	default:
		return nil
	}
	switch name {
	case ocispec.ImageIndexFile, ocispec.ImageLayoutFile, dockerManifestFile:
		data, err := io.ReadAll(io.LimitReader(r, content.MaxSmall+1))
		if err == nil && len(data) > content.MaxSmall {
			err = fmt.Errorf("more than %d bytes: %w", content.MaxSmall, errdefs.ErrInvalidArgument)
		}
		a.documents[name] = data
		return err
	}
	desc := ocispec.Descriptor{Size: hdr.Size}
	if algorithm, hex, ok := strings.Cut(strings.TrimPrefix(name, blobsDir), "/"); ok && strings.HasPrefix(name, blobsDir) {
		desc.Digest = digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
		if err := desc.Digest.Validate(); err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		a.files[name] = desc
		return content.Copy(ctx, a.stores.Content, "import-"+desc.Digest.String(), r, desc, nil)
	}
	if ext := path.Ext(name); ext != ".json" && ext != ".tar" {
		return nil // a version, or what only docker before 1.10 reads
	}
	desc, err := a.store(ctx, r, desc.Size)
	a.files[name] = desc
	return err
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// store keeps a file whose digest its name does not tell.
func (a *archive) store(ctx context.Context, r io.Reader, size int64) (ocispec.Descriptor, error) {
	w, err := content.Open(ctx, a.stores.Content, uniqueRef("import"), ocispec.Descriptor{Size: size})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, packedSize)); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: w.Digest(), Size: size}
	if err := w.Commit(ctx, size, desc.Digest, nil); err != nil && !errdefs.IsAlreadyExists(err) {
		return ocispec.Descriptor{}, err
	}
	return desc, nil
}

// index is the archive's list of images, and its bytes: those of an OCI layout, or
// one made of what a docker archive tells.
func (a *archive) index(ctx context.Context) (index ocispec.Index, data []byte, err error) {
	if data, ok := a.documents[ocispec.ImageIndexFile]; ok && a.documents[ocispec.ImageLayoutFile] != nil {
		return index, data, layoutIndex(data, &index)
	}
	if data, ok := a.documents[dockerManifestFile]; ok {
		if index, err = a.dockerIndex(ctx, data); err != nil {
			return index, nil, err
		}
		data, err = json.Marshal(index)
		return index, data, err
	}
	return index, nil, fmt.Errorf("neither an OCI layout (index.json, oci-layout) nor a docker archive (manifest.json): %w", errdefs.ErrInvalidArgument)
}

// annotationName is the whole name of an image in an index.json, as docker and
// containerd write it; the standard's own annotation may be only a tag.
const annotationName = "io.containerd.image.name"

func layoutIndex(data []byte, index *ocispec.Index) error {
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data)}
	if err := parse(desc, data, index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	for _, m := range index.Manifests {
		if err := m.Digest.Validate(); err != nil {
			return fmt.Errorf("%s: digest %q: %w: %w", ocispec.ImageIndexFile, m.Digest, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func layoutName(annotations map[string]string) string {
	if name := annotations[annotationName]; name != "" {
		return name
	}
	name := annotations[ocispec.AnnotationRefName]
	if !strings.ContainsAny(name, ":/") {
		return "" // a tag of a name that the archive does not tell
	}
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return ""
	}
	return named.String()
}

// dockerImage is an entry of a docker archive's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// dockerIndex makes a manifest for each image of a docker archive, and lists it once
// for each name, or once without.
func (a *archive) dockerIndex(ctx context.Context, data []byte) (ocispec.Index, error) {
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	var entries []dockerImage
	if err := json.Unmarshal(data, &entries); err != nil {
		return index, fmt.Errorf("%s: %w: %w", dockerManifestFile, err, errdefs.ErrInvalidArgument)
	}
	for _, e := range entries {
		desc, err := a.manifest(ctx, e)
		if err != nil {
			return index, err
		}
		for _, tag := range e.RepoTags {
			named, err := reference.ParseDockerRef(tag)
			if err != nil {
				return index, fmt.Errorf("%s: name %q: %w: %w", dockerManifestFile, tag, err, errdefs.ErrInvalidArgument)
			}
			desc.Annotations = map[string]string{annotationName: named.String()}
			index.Manifests = append(index.Manifests, desc)
		}
		if len(e.RepoTags) == 0 {
			index.Manifests = append(index.Manifests, desc)
		}
	}
	return index, nil
}

// manifest stores the manifest of an entry.
func (a *archive) manifest(ctx context.Context, e dockerImage) (ocispec.Descriptor, error) {
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	var err error
	if m.Config, err = a.file(e.Config); err != nil {
		return ocispec.Descriptor{}, err
	}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for _, name := range e.Layers {
		l, err := a.file(name)
		if err == nil {
			l.MediaType, err = a.layerType(ctx, l)
		}
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		m.Layers = append(m.Layers, l)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, content.WriteBlob(ctx, a.stores.Content, ingestRef(desc), data, desc, refsOfManifest(m))
}

// maxLinks are followed to find a file.
const maxLinks = 8

func (a *archive) file(name string) (ocispec.Descriptor, error) {
	at := clean(name)
	for range maxLinks {
		if desc, ok := a.files[at]; ok {
			return desc, nil
		}
		at = a.links[at]
	}
	return ocispec.Descriptor{}, fmt.Errorf("%s names %q, which is not in the archive: %w", dockerManifestFile, name, errdefs.ErrInvalidArgument)
}

// layerType looks into a layer.
func (a *archive) layerType(ctx context.Context, desc ocispec.Descriptor) (string, error) {
	ra, err := a.stores.Content.ReaderAt(ctx, desc)
	if err != nil {
		return "", err
	}
	defer ra.Close()
	z, compression, err := layer.Decompress(io.NewSectionReader(ra, 0, min(ra.Size(), packedSize)))
	if err != nil {
		return "", fmt.Errorf("layer %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	z.Close()
	return map[layer.Compression]string{
		layer.Uncompressed: ocispec.MediaTypeImageLayer,
		layer.Gzip:         ocispec.MediaTypeImageLayerGzip,
		layer.Zstd:         ocispec.MediaTypeImageLayerZstd,
	}[compression], nil
}

// settle makes sure that an image is whole, labels it, and unpacks it.
func (a *archive) settle(ctx context.Context, target ocispec.Descriptor, o ImportOptions) error {
	if err := a.whole(ctx, target, maxNesting); err != nil {
		return fmt.Errorf("image %s: %w", target.Digest, err)
	}
	var lacking error
	fits := 0
	for _, w := range append([]Wish{{Platform: o.Platform, Unpack: o.Unpack}}, o.More...) {
		here, err := a.fit(ctx, target, w)
		switch {
		case errdefs.IsNotFound(err):
			lacking = errors.Join(lacking, err)
			continue
		case err == nil && here && w.Unpack:
			_, err = Unpack(ctx, w.in(a.stores), target, UnpackOptions{Platform: w.Platform, Progress: o.Progress})
		}
		if err != nil {
			return err
		}
		fits++
	}
	if fits == 0 {
		return lacking
	}
	return nil
}

// fit says whether target has something for w to unpack, and refuses one that is for
// other platforms. One that is for other machines than this is fine where w names none.
func (a *archive) fit(ctx context.Context, target ocispec.Descriptor, w Wish) (bool, error) {
	m, _, err := Manifest(ctx, a.stores.Content, target, w.Platform)
	if errdefs.IsNotFound(err) && w.Platform == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	config, err := readConfig(ctx, a.stores.Content, m)
	if err != nil {
		return false, err
	}
	if w.Platform != nil && config.OS != "" && !matcherOf(w.Platform).Match(config.Platform) {
		return false, fmt.Errorf("image %s is for platform %s, not %s: %w",
			target.Digest, platforms.Format(config.Platform), formatPlatform(w.Platform), errdefs.ErrNotFound)
	}
	return true, nil
}

// whole labels what is there of target and refuses what lacks a part. An index
// may lack manifests, as long as it has one.
func (a *archive) whole(ctx context.Context, target ocispec.Descriptor, nesting int) error {
	src := stored{a.stores.Content}
	if isManifest(target.MediaType) {
		m, err := readManifest(ctx, src, target)
		if err != nil {
			return err
		}
		for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			info, err := src.Info(ctx, d.Digest)
			if err == nil && info.Size != d.Size {
				err = fmt.Errorf("%s has %d bytes, the manifest says %d: %w", d.Digest, info.Size, d.Size, errdefs.ErrFailedPrecondition)
			}
			if err != nil {
				return err
			}
		}
		return content.AddLabels(ctx, src, target, refsOfManifest(m))
	}
	if !isIndex(target.MediaType) || nesting == 0 {
		return fmt.Errorf("it is %q, not an image: %w", target.MediaType, errdefs.ErrInvalidArgument)
	}
	index, err := readIndex(ctx, src, target)
	if err != nil {
		return err
	}
	some := false
	for _, m := range index.Manifests {
		if _, err := src.Info(ctx, m.Digest); errdefs.IsNotFound(err) {
			continue
		}
		if err := a.whole(ctx, m, nesting-1); err != nil {
			return err
		}
		some = true
	}
	if !some {
		return fmt.Errorf("none of its %d manifests is there: %w", len(index.Manifests), errdefs.ErrNotFound)
	}
	return content.AddLabels(ctx, src, target, refsOfIndex(index))
}
