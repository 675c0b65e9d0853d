package lifecycle

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/image"
)

// pull is registry to image store.
func (t *transfers) pull(ctx context.Context, s meta.Scope, src *transfertypes.OCIRegistry, dst *transfertypes.ImageStore, p *progress) error {
	registry, done, err := t.registry(s.Namespace, src)
	if err != nil {
		return err
	}
	defer done()
	each, all := wishes(dst)
	stores, more, err := t.unpacking(s, each)
	if err != nil {
		return err
	}
	o := image.PullOptions{Registry: registry, Name: dst.Name, AllPlatforms: all, Labels: dst.Labels, Progress: p.image}
	if len(more) > 0 {
		o.Platform, o.Unpack, o.More = more[0].Platform, more[0].Unpack, more[1:]
	}
	p.status("Pulling from OCI Registry (%s)", src.Reference)
	if _, err := image.Pull(ctx, stores, src.Reference, o); err != nil {
		return err
	}
	p.status("Completed pull from OCI Registry (%s)", src.Reference)
	return t.pulled(s.Namespace, src.Reference)
}

// push is image store to registry.
func (t *transfers) push(ctx context.Context, s meta.Scope, src *transfertypes.ImageStore, dst *transfertypes.OCIRegistry, p *progress) error {
	registry, done, err := t.registry(s.Namespace, dst)
	if err != nil {
		return err
	}
	defer done()
	stores, err := t.stores(s, "")
	if err != nil {
		return err
	}
	img, err := stores.Images.Get(ctx, src.Name)
	if err != nil {
		return err
	}
	o := image.PushOptions{Registry: registry, Progress: p.image}
	for _, pl := range src.Platforms {
		o.Platforms = append(o.Platforms, platformFromAPI(pl))
	}
	p.status("Pushing to OCI Registry (%s)", dst.Reference)
	if _, err := image.Push(ctx, stores, dst.Reference, img.Target, o); err != nil {
		return err
	}
	p.status("Completed push to OCI Registry (%s)", dst.Reference)
	return nil
}

// load is import stream to image store.
func (t *transfers) load(ctx context.Context, s meta.Scope, src *transfertypes.ImageImportStream, dst *transfertypes.ImageStore, p *progress) error {
	st, err := t.streams.take(s.Namespace, src.Stream)
	if err != nil {
		return err
	}
	defer st.close()
	each, all := wishes(dst)
	stores, more, err := t.unpacking(s, each)
	if err != nil {
		return err
	}
	o := image.ImportOptions{Progress: p.image}
	if len(more) > 0 {
		o.Unpack, o.More = more[0].Unpack, more[1:]
		if !all || o.Unpack {
			o.Platform = more[0].Platform
		}
	}
	o.Names = func(desc ocispec.Descriptor, index bool) []image.Image { return importNames(dst, desc, index) }
	p.status("Importing")
	images, err := image.Import(ctx, stores, &byteReader{s: st}, o)
	if err != nil {
		return err
	}
	for _, img := range images {
		p.saved(img)
	}
	p.status("Completed import")
	return nil
}

// echo is import stream to export stream: a client tries its streams.
func (t *transfers) echo(ctx context.Context, s meta.Scope, src *transfertypes.ImageImportStream, dst *transfertypes.ImageExportStream) error {
	in, err := t.streams.take(s.Namespace, src.Stream)
	if err != nil {
		return err
	}
	defer in.close()
	out, err := t.streams.take(s.Namespace, dst.Stream)
	if err != nil {
		return err
	}
	defer out.close()
	_, err = io.Copy(newByteWriter(ctx, out), &byteReader{s: in})
	return err
}

// importNames are the names that the destination of an import has for an image of
// the archive, or for the archive's index (containerd, core/transfer/image).
func importNames(dst *transfertypes.ImageStore, desc ocispec.Descriptor, index bool) (out []image.Image) {
	target := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
	add := func(name string, labels map[string]string) {
		out = append(out, image.Image{Name: name, Target: target, Labels: labels})
	}
	if index && dst.Name != "" {
		add(dst.Name, dst.Labels)
	}
	more := extraLabels(dst)
	for _, ref := range dst.ExtraReferences {
		byDigest := ref.Name + "@" + desc.Digest.String()
		if index {
			switch {
			case ref.AddDigest:
				add(byDigest, more)
			case !ref.IsPrefix:
				add(ref.Name, more)
			}
			continue
		}
		if !ref.IsPrefix {
			continue
		}
		name := prefixedName(ref, desc.Annotations)
		if name != "" {
			add(name, more)
		}
		if ref.AddDigest && (name == "" || !ref.SkipNamedDigest) {
			add(byDigest, more)
		}
	}
	return out
}

// extraLabels has the further names of a named import go with the name.
func extraLabels(dst *transfertypes.ImageStore) map[string]string {
	if dst.Name == "" {
		return dst.Labels
	}
	labels := maps.Clone(dst.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels["containerd.io/gc.bref.image"] = dst.Name
	labels["containerd.io/gc.expire"] = time.Now().Format(time.RFC3339)
	return labels
}

// prefixedName is the name in an archive's annotations as a prefix takes it: a tag
// is given to the prefix; a whole name must have it, unless any may come.
func prefixedName(prefix *transfertypes.ImageReference, annotations map[string]string) string {
	whole := annotations["io.containerd.image.name"]
	name := whole
	if name == "" {
		name = annotations[ocispec.AnnotationRefName]
	}
	switch {
	case name == "" || prefix.Name == "":
		return ""
	case strings.ContainsAny(name, "/:@"):
		if rest, ok := strings.CutPrefix(name, prefix.Name); prefix.AllowOverwrite || ok && (rest == "" || strings.ContainsAny(rest[:1], "/:@")) {
			return name
		}
		return ""
	case whole != "":
		return "" // a tag in the place of a whole name
	}
	return prefix.Name + ":" + name
}

// save is image store to export stream.
func (t *transfers) save(ctx context.Context, s meta.Scope, src *transfertypes.ImageStore, dst *transfertypes.ImageExportStream, p *progress) error {
	st, err := t.streams.take(s.Namespace, dst.Stream)
	if err != nil {
		return err
	}
	defer st.close()
	stores, err := t.stores(s, "")
	if err != nil {
		return err
	}
	images, err := lookUp(ctx, stores.Images, src)
	if err != nil {
		return err
	}
	o := image.ExportOptions{OnlyOCI: dst.SkipCompatibilityManifest}
	for _, pl := range dst.Platforms {
		o.Platforms = append(o.Platforms, platformFromAPI(pl))
	}
	p.status("Exporting")
	if err := image.Export(ctx, stores, images, newByteWriter(ctx, st), o); err != nil {
		return err
	}
	p.status("Completed export")
	return nil
}

// lookUp finds the images that a source names: its name, its further names, and
// all that begin with a prefix.
func lookUp(ctx context.Context, names image.Images, src *transfertypes.ImageStore) ([]image.Image, error) {
	var out []image.Image
	refs := src.ExtraReferences
	if src.Name != "" {
		refs = append([]*transfertypes.ImageReference{{Name: src.Name}}, refs...)
	}
	for _, ref := range refs {
		if !ref.IsPrefix {
			img, err := names.Get(ctx, ref.Name)
			if err != nil {
				return nil, err
			}
			out = append(out, img)
			continue
		}
		all, err := names.List(ctx)
		if err != nil {
			return nil, err
		}
		for _, img := range all {
			if strings.HasPrefix(img.Name, ref.Name) {
				out = append(out, img)
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("images %q: %w", src.Name, errdefs.ErrNotFound)
	}
	return out, nil
}
