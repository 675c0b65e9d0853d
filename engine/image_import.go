package engine

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/image"
)

// importTar is POST /images/create?fromSrc=: an image of one layer, from a tar
// in the body or at a URL, compressed or not.
func (i *images) importTar(w http.ResponseWriter, r *http.Request, platform *ocispec.Platform) error {
	var named reference.Named
	if repo := r.FormValue("repo"); repo != "" {
		n, err := reference.ParseNormalizedNamed(repo)
		if err != nil {
			return invalid("invalid reference format: %q: %w", repo, err)
		}
		if n, err = withTag(n, r.FormValue("tag")); err != nil {
			return err
		}
		named = reference.TagNameOnly(n)
	}
	p := platforms.DefaultSpec()
	if platform != nil {
		p = *platform
	}
	config, err := imageChanges(dockerspec.DockerOCIImageConfig{}, r.URL.Query()["changes"])
	if err != nil {
		return err
	}
	src, err := importSource(r)
	if err != nil {
		return err
	}
	defer src.Close()
	out := &messages{w: w}
	message := r.FormValue("message")
	if message == "" {
		message = "Imported from " + r.FormValue("fromSrc")
	}
	id, err := i.makeImage(r.Context(), src, madeImage{config: config, platform: p, comment: message, named: named})
	if err != nil {
		return out.end(err)
	}
	i.tell(eventsapi.ActionImport, id.String(), id.String(), nil)
	out.send(jsonstream.Message{Status: id.String()})
	return nil
}

// importSource opens the body, or the URL that fromSrc names.
func importSource(r *http.Request) (io.ReadCloser, error) {
	src := r.FormValue("fromSrc")
	if src == "" || src == "-" {
		return r.Body, nil
	}
	u, err := url.Parse(src)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalid("invalid fromSrc %q: want - or an http URL", src)
	}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, src, nil)
	if err != nil {
		return nil, invalid("invalid fromSrc %q: %w", src, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, because(errdefs.ErrUnavailable, "download %s: %w", src, err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, invalid("download %s: %s", src, resp.Status)
	}
	return resp.Body, nil
}

// madeImage is an image that is made here from one more layer.
type madeImage struct {
	base     *loaded // what it stands on; nil for nothing
	config   dockerspec.DockerOCIImageConfig
	platform ocispec.Platform
	comment  string
	author   string
	by       string          // what made the layer
	named    reference.Named // nil for none
}

// makeImage stores the tar layer and an image with it on top, unpacks it, names it
// and gives its ID.
func (i *images) makeImage(ctx context.Context, layer io.Reader, m madeImage) (digest.Digest, error) {
	ctx, done, err := i.lease(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	desc, diffID, err := i.writeLayer(ctx, layer)
	if err != nil {
		return "", err
	}
	return i.compose(ctx, desc, diffID, m)
}

// compose is makeImage with a layer that is stored already, under ctx's lease.
func (i *images) compose(ctx context.Context, desc ocispec.Descriptor, diffID digest.Digest, m madeImage) (_ digest.Digest, err error) {
	now := time.Now().UTC()
	img := dockerspec.DockerOCIImage{Config: m.config}
	man := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	if m.base != nil {
		img.Image = m.base.Image.Image
		man.Layers = append(man.Layers, m.base.layers...)
	}
	img.Created, img.Author, img.Platform = &now, m.author, m.platform
	img.RootFS.Type = "layers"
	img.RootFS.DiffIDs = append(append([]digest.Digest{}, img.RootFS.DiffIDs...), diffID)
	img.History = append(append([]ocispec.History{}, img.History...), ocispec.History{Created: &now, CreatedBy: m.by, Author: m.author, Comment: m.comment})
	man.Layers = append(man.Layers, desc)

	if man.Config, err = i.writeJSON(ctx, ocispec.MediaTypeImageConfig, img, nil); err != nil {
		return "", err
	}
	labels := map[string]string{"containerd.io/gc.ref.content.config": man.Config.Digest.String()}
	for k, l := range man.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", k)] = l.Digest.String()
	}
	target, err := i.writeJSON(ctx, man.MediaType, man, labels)
	if err != nil {
		return "", err
	}
	if _, err := image.Unpack(ctx, i.stores, target, image.UnpackOptions{Platform: &m.platform}); err != nil {
		return "", err
	}
	if m.named == nil {
		return target.Digest, i.keepUnnamed(ctx, target)
	}
	return target.Digest, i.name(ctx, m.named.String(), target)
}

func (i *images) writeJSON(ctx context.Context, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write %s: %w", mediaType, err)
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return desc, content.WriteBlob(ctx, i.stores.Content, "gantry-make-"+desc.Digest.String(), raw, desc, labels)
}

// writeLayer stores a tar as it comes, and finds the digest that it has without
// compression.
func (i *images) writeLayer(ctx context.Context, layer io.Reader) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	w, err := i.stores.Content.Writer(ctx, "gantry-layer-"+itoa(time.Now().UnixNano()), ocispec.Descriptor{})
	if err != nil {
		return desc, "", err
	}
	defer w.Close()
	in := bufio.NewReaderSize(io.TeeReader(layer, w), 1<<18)
	plain, mediaType, err := uncompressed(in)
	if err != nil {
		return desc, "", err
	}
	defer plain.Close()
	plainDigest := digest.Canonical.Digester()
	if _, err := io.Copy(plainDigest.Hash(), plain); err != nil {
		return desc, "", invalid("read layer: %w", err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what follows the compressed stream
		return desc, "", fmt.Errorf("read layer: %w", err)
	}
	status, err := w.Status()
	if err != nil {
		return desc, "", err
	}
	diffID = plainDigest.Digest()
	desc = ocispec.Descriptor{MediaType: mediaType, Digest: w.Digest(), Size: status.Offset}
	labels := map[string]string{"containerd.io/uncompressed": diffID.String()}
	err = w.Commit(ctx, desc.Size, desc.Digest, labels)
	if errdefs.IsAlreadyExists(err) {
		err = content.AddLabels(ctx, i.stores.Content, desc, labels)
	}
	return desc, diffID, err
}

// uncompressed looks at the first bytes of r.
func uncompressed(r *bufio.Reader) (io.ReadCloser, string, error) {
	magic, err := r.Peek(4)
	if err != nil && len(magic) == 0 {
		return nil, "", invalid("read layer: no data: %w", err)
	}
	switch {
	case len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, "", invalid("read layer: %w", err)
		}
		return z, ocispec.MediaTypeImageLayerGzip, nil
	case string(magic) == "\x28\xb5\x2f\xfd":
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, "", invalid("read layer: %w", err)
		}
		return z.IOReadCloser(), ocispec.MediaTypeImageLayerZstd, nil
	case string(magic[:min(3, len(magic))]) == "BZh", string(magic) == "\xfd7zX":
		return nil, "", invalid("read layer: bzip2 and xz are not read: give a tar, tar.gz or tar.zst")
	}
	return io.NopCloser(r), ocispec.MediaTypeImageLayer, nil
}
