package engine

import (
	"context"
	"io"
	"net/http"
	"slices"

	"github.com/distribution/reference"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/gantryd/gantry/store/image"
)

// postLoad is POST /images/load: an archive of docker save, or an OCI layout.
func (i *images) postLoad(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	ctx, done, err := i.lease(r.Context())
	if err != nil {
		return err
	}
	defer done()
	before, err := i.stores.Images.List(ctx)
	if err != nil {
		return err
	}
	out := &messages{w: w}
	bars := &layerBars{out: out, words: map[image.Phase]string{
		image.Waiting: "Loading layer", image.Extracting: "Loading layer", image.Done: "Loading layer",
	}}
	opts := image.ImportOptions{Platform: platform, Unpack: true, Digests: "moby-dangling"}
	if !boolValue(r, "quiet") {
		opts.Progress = bars.tell
	}
	imgs, err := image.Import(ctx, i.stores, r.Body, opts)
	if err != nil {
		return out.end(err)
	}
	for _, img := range imgs {
		if err := i.loaded(ctx, out, img, before); err != nil {
			return out.end(err)
		}
	}
	return nil
}

// loaded tells of one image of an archive. An image whose name it took stays,
// without one.
func (i *images) loaded(ctx context.Context, out *messages, img image.Image, before []image.Image) error {
	at := slices.IndexFunc(before, func(b image.Image) bool { return b.Name == img.Name })
	if at >= 0 && before[at].Target.Digest != img.Target.Digest {
		if err := i.keepUnnamed(ctx, before[at].Target); err != nil {
			return err
		}
	}
	text := "Loaded image ID: " + img.Target.Digest.String()
	name := img.Target.Digest.String()
	if named, err := reference.ParseNormalizedNamed(img.Name); err == nil && !isDangling(img.Name) {
		name = reference.FamiliarString(named)
		text = "Loaded image: " + name
		if err := i.dropUnnamed(ctx, img.Target.Digest); err != nil {
			return err
		}
	}
	out.send(jsonstream.Message{Stream: text + "\n"})
	i.tell(eventsapi.ActionLoad, img.Target.Digest.String(), name, nil)
	return nil
}

// getSave is GET /images/get?names=… and GET /images/{name}/get.
func (i *images) getSave(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	refs := r.URL.Query()["names"]
	if name := r.PathValue("name"); name != "" {
		refs = []string{name}
	}
	if len(refs) == 0 {
		return invalid("no image is named: want /images/get?names=NAME")
	}
	var imgs []image.Image
	for _, ref := range refs {
		found, err := i.saved(r.Context(), ref)
		if err != nil {
			return err
		}
		imgs = append(imgs, found...)
	}
	w.Header().Set("Content-Type", "application/x-tar")
	begun := &begunWriter{w: w}
	err = image.Export(r.Context(), i.stores, imgs, begun, image.ExportOptions{Platforms: few(platform)})
	if err != nil && begun.begun {
		i.cfg.Log.Error("save images", "names", refs, "err", err)
		// The archive must not look whole: cut the connection.
		panic(http.ErrAbortHandler)
	}
	for _, img := range imgs {
		i.tell(eventsapi.ActionSave, img.Target.Digest.String(), img.Target.Digest.String(), nil)
	}
	return err
}

// saved are the names that ref saves: itself; all tags of a bare repository name
// that has no tag "latest" and none else; an ID without a name.
func (i *images) saved(ctx context.Context, ref string) ([]image.Image, error) {
	img, err := i.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !byName(ref, img.Name) {
		img.Name = danglingPrefix + img.Target.Digest.String()
		return []image.Image{img}, nil
	}
	i.tell(eventsapi.ActionSave, img.Target.Digest.String(), ref, nil)
	return []image.Image{img}, nil
}

// begunWriter remembers whether anything was written.
type begunWriter struct {
	w     io.Writer
	begun bool
}

func (b *begunWriter) Write(p []byte) (int, error) {
	b.begun = true
	return b.w.Write(p)
}
