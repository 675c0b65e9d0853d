package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	imageapi "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/image"
)

// whole is one image with all its names: what an ID stands for.
type whole struct {
	target ocispec.Descriptor
	names  []image.Image
	*loaded
}

// tags are the names with a tag, digests those by which a registry has it.
func (h whole) tags() (tags, digests []string) {
	tags, digests = []string{}, []string{}
	for _, n := range h.names {
		named, err := reference.ParseNormalizedNamed(n.Name)
		if err != nil || isDangling(n.Name) {
			continue
		}
		if _, ok := named.(reference.Tagged); ok {
			tags = append(tags, reference.FamiliarString(named))
		}
		if d := reference.FamiliarName(named) + "@" + h.target.Digest.String(); !slices.Contains(digests, d) {
			digests = append(digests, d)
		}
	}
	slices.Sort(tags)
	slices.Sort(digests)
	return tags, digests
}

// created is when the image was made; the zero time if it does not say.
func (h whole) created() time.Time {
	if h.Image.Created == nil {
		return time.Time{}
	}
	return *h.Image.Created
}

// all lists the images. One whose content is not there for this machine shows as
// what is there; one without any is left out.
func (i *images) all(ctx context.Context) ([]whole, error) {
	names, err := i.stores.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[digest.Digest]int{}
	var all []whole
	for _, n := range names {
		at, ok := byID[n.Target.Digest]
		if !ok {
			l, err := i.loadAny(ctx, n.Target)
			if err != nil {
				i.cfg.Log.Debug("leave out image", "name", n.Name, "err", err)
				continue
			}
			at = len(all)
			byID[n.Target.Digest] = at
			all = append(all, whole{target: n.Target, loaded: l})
		}
		all[at].names = append(all[at].names, n)
	}
	slices.SortStableFunc(all, func(a, b whole) int {
		if c := b.created().Compare(a.created()); c != 0 {
			return c
		}
		return cmp.Compare(a.target.Digest, b.target.Digest)
	})
	return all, nil
}

// loadAny is load for this machine's platform, else for any that is there.
func (i *images) loadAny(ctx context.Context, target ocispec.Descriptor) (*loaded, error) {
	l, err := i.load(ctx, target, nil)
	if !errdefs.IsNotFound(err) {
		return l, err
	}
	ps, perr := image.Platforms(ctx, i.stores.Content, target)
	if perr != nil || len(ps) == 0 {
		return nil, err
	}
	return i.load(ctx, target, &ps[0])
}

// layer sizes in bytes on disk, bottom first; where the image is not unpacked,
// the sizes of its blobs.
func (i *images) layerSizes(ctx context.Context, l *loaded) []int64 {
	sizes := make([]int64, len(l.Image.RootFS.DiffIDs))
	for k := range sizes {
		size, ok := i.snapshotSize(ctx, image.ChainID(l.Image.RootFS.DiffIDs[:k+1]).String())
		if !ok && k < len(l.layers) {
			size = l.layers[k].Size
		}
		sizes[k] = size
	}
	return sizes
}

func (i *images) snapshotSize(ctx context.Context, chain string) (int64, bool) {
	i.mu.Lock()
	size, ok := i.sizes[chain]
	i.mu.Unlock()
	if ok {
		return size, true
	}
	usage, err := i.stores.Snapshots.Usage(ctx, chain)
	if err != nil {
		return 0, false
	}
	i.mu.Lock()
	i.sizes[chain] = usage.Size
	i.mu.Unlock()
	return usage.Size, true
}

func (i *images) size(ctx context.Context, l *loaded) int64 {
	var sum int64
	for _, s := range i.layerSizes(ctx, l) {
		sum += s
	}
	return sum
}

// summary is one row of a list, with what only old clients read.
type summary struct {
	imageapi.Summary
	VirtualSize *int64 `json:"VirtualSize,omitempty"` // before API 1.44
}

// getList is GET /images/json.
func (i *images) getList(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "before", "dangling", "label", "label!", "reference", "since", "until")
	if err != nil {
		return err
	}
	if pattern := r.FormValue("filter"); pattern != "" && minor(r) < 41 {
		f = filters{"reference": {pattern: true}}
	}
	rows, err := i.summaries(r.Context(), f, boolValue(r, "shared-size"))
	if err != nil {
		return err
	}
	out := make([]summary, len(rows))
	for k, row := range rows {
		if minor(r) < 48 {
			row.Descriptor = nil
		}
		if boolValue(r, "manifests") && minor(r) >= 47 {
			row.Manifests = i.manifests(r.Context(), *row.Descriptor)
		}
		out[k] = summary{Summary: row}
		if minor(r) < 44 {
			out[k].VirtualSize = &row.Size
		}
	}
	return replyJSON(w, http.StatusOK, out)
}

// summaries lists the images that pass f.
func (i *images) summaries(ctx context.Context, f filters, shared bool) ([]imageapi.Summary, error) {
	all, err := i.all(ctx)
	if err != nil {
		return nil, err
	}
	kept, err := i.filter(ctx, all, f)
	if err != nil {
		return nil, err
	}
	rows := []imageapi.Summary{}
	for _, h := range kept {
		tags, digests := h.tags()
		if f.has("reference") {
			tags, digests = matching(tags, f), matching(digests, f)
			if len(tags)+len(digests) == 0 {
				continue
			}
		}
		row := imageapi.Summary{
			ID: h.target.Digest.String(), RepoTags: tags, RepoDigests: digests,
			Created: unixOf(h.created()), Size: i.size(ctx, h.loaded), SharedSize: -1,
			Labels:     h.Image.Config.Labels,
			Containers: int64(len(i.containers.usingImage(h.target.Digest))),
			Descriptor: &h.target,
		}
		if shared {
			row.SharedSize = i.sharedSize(ctx, h, all)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// unixOf is t in seconds; 0 for the zero time.
func unixOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// sharedSize is the size of the layers of h that other images have too.
func (i *images) sharedSize(ctx context.Context, h whole, all []whole) int64 {
	var sum int64
	sizes := i.layerSizes(ctx, h.loaded)
	for k := range h.Image.RootFS.DiffIDs {
		chain := h.Image.RootFS.DiffIDs[:k+1]
		if slices.ContainsFunc(all, func(o whole) bool {
			return o.target.Digest != h.target.Digest && len(o.Image.RootFS.DiffIDs) > k &&
				slices.Equal(o.Image.RootFS.DiffIDs[:k+1], chain)
		}) {
			sum += sizes[k]
		}
	}
	return sum
}

// filter keeps what passes f, names aside.
func (i *images) filter(ctx context.Context, all []whole, f filters) ([]whole, error) {
	var before, since, until time.Time
	for key, at := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f.values(key) {
			r, err := i.resolve(ctx, ref, nil)
			if err != nil {
				return nil, err
			}
			if r.Image.Created != nil {
				*at = *r.Image.Created
			}
		}
	}
	for _, v := range f.values("until") {
		var err error
		if until, err = parseTime(v); err != nil {
			return nil, err
		}
	}
	wantDangling, err := f.truth("dangling", false)
	if err != nil {
		return nil, err
	}
	var kept []whole
	for _, h := range all {
		tags, _ := h.tags()
		at := h.created()
		switch {
		case f.has("dangling") && wantDangling != (len(tags) == 0):
		case !f.labels("label", h.Image.Config.Labels) || !f.notLabels("label!", h.Image.Config.Labels):
		case f.has("before") && !at.Before(before):
		case f.has("since") && !at.After(since):
		case f.has("until") && !at.Before(until):
		default:
			kept = append(kept, h)
		}
	}
	return kept, nil
}

// matching keeps the names that a pattern of the reference filter matches.
func matching(names []string, f filters) []string {
	return slices.DeleteFunc(names, func(name string) bool {
		ref, err := reference.ParseAnyReference(name)
		if err != nil {
			return true
		}
		return !slices.ContainsFunc(f.values("reference"), func(pattern string) bool {
			ok, err := reference.FamiliarMatch(pattern, ref)
			return err == nil && ok
		})
	})
}

// manifests tells of every platform that target names, there or not.
func (i *images) manifests(ctx context.Context, target ocispec.Descriptor) []imageapi.ManifestSummary {
	var all []imageapi.ManifestSummary
	ps, err := image.Platforms(ctx, i.stores.Content, target)
	if err != nil {
		return nil
	}
	for _, p := range ps {
		l, err := i.load(ctx, target, &p)
		if err != nil {
			continue
		}
		m := imageapi.ManifestSummary{
			ID: l.Manifest.Digest.String(), Descriptor: l.Manifest, Available: true, Kind: imageapi.ManifestKindImage,
			ImageData: &imageapi.ImageProperties{Platform: p, Containers: []string{}},
		}
		m.Size.Content = l.Manifest.Size + int64(len(l.config))
		for _, layer := range l.layers {
			m.Size.Content += layer.Size
		}
		for k := range l.Image.RootFS.DiffIDs {
			size, _ := i.snapshotSize(ctx, image.ChainID(l.Image.RootFS.DiffIDs[:k+1]).String())
			m.ImageData.Size.Unpacked += size
		}
		m.Size.Total = m.Size.Content + m.ImageData.Size.Unpacked
		for _, u := range i.containers.usingImage(target.Digest) {
			m.ImageData.Containers = append(m.ImageData.Containers, u.ID)
		}
		all = append(all, m)
	}
	return all
}

// inspect is what only older clients read beside what today's do.
type inspect struct {
	imageapi.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	VirtualSize   *int64           `json:",omitempty"` // before API 1.44
	Container     *string          `json:",omitempty"` // before API 1.45
	ContainerCfg  *json.RawMessage `json:"ContainerConfig,omitempty"`
}

// getInspect is GET /images/{name}/json.
func (i *images) getInspect(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	if platform != nil && boolValue(r, "manifests") {
		return invalid("conflicting options: manifests and platform options cannot both be set")
	}
	h, err := i.whole(r.Context(), r.PathValue("name"), platform)
	if err != nil {
		return err
	}
	tags, digests := h.tags()
	out := inspect{InspectResponse: imageapi.InspectResponse{
		ID: h.target.Digest.String(), RepoTags: tags, RepoDigests: digests,
		Config: &h.Image.Config, Architecture: h.Image.Architecture, Variant: h.Image.Variant,
		Os: h.Image.OS, OsVersion: h.Image.OSVersion, Size: i.size(r.Context(), h.loaded),
		GraphDriver: &storage.DriverData{Name: i.cfg.Snapshotter},
		RootFS:      imageapi.RootFS{Type: h.Image.RootFS.Type},
	}, Author: h.Image.Author}
	if h.Image.Created != nil {
		out.Created = h.Image.Created.Format(time.RFC3339Nano)
	}
	for _, d := range h.Image.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, d.String())
	}
	for k := len(h.Image.History) - 1; k >= 0 && out.Comment == ""; k-- {
		out.Comment = h.Image.History[k].Comment
	}
	for _, n := range h.names {
		if !isDangling(n.Name) && n.UpdatedAt.After(out.Metadata.LastTagTime) {
			out.Metadata.LastTagTime = n.UpdatedAt
		}
	}
	if minor(r) >= 48 {
		out.Descriptor = &h.target
		if boolValue(r, "manifests") {
			out.Manifests = i.manifests(r.Context(), h.target)
		}
	}
	if minor(r) < 44 {
		out.VirtualSize = &out.Size
	}
	if minor(r) < 45 {
		none := json.RawMessage("{}")
		out.Container, out.ContainerCfg = new(string), &none
	}
	return replyJSON(w, http.StatusOK, out)
}

// whole finds the image that ref names, with its names.
func (i *images) whole(ctx context.Context, ref string, platform *ocispec.Platform) (whole, error) {
	img, err := i.find(ctx, ref)
	if err != nil {
		return whole{}, err
	}
	names, err := i.named(ctx, img.Target.Digest)
	if err != nil {
		return whole{}, err
	}
	var l *loaded
	if platform == nil {
		l, err = i.loadAny(ctx, img.Target)
	} else {
		l, err = i.load(ctx, img.Target, platform)
	}
	if errdefs.IsNotFound(err) {
		return whole{}, notFound("image with reference %s was found but does not provide the specified platform (%s)", ref, format(platform))
	}
	return whole{target: img.Target, names: names, loaded: l}, err
}

// getHistory is GET /images/{name}/history.
func (i *images) getHistory(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	h, err := i.whole(r.Context(), r.PathValue("name"), platform)
	if err != nil {
		return err
	}
	sizes := i.layerSizes(r.Context(), h.loaded)
	items := []imageapi.HistoryResponseItem{}
	for _, step := range h.Image.History {
		item := imageapi.HistoryResponseItem{ID: "<missing>", Comment: step.Comment, CreatedBy: step.CreatedBy}
		if step.Created != nil {
			item.Created = step.Created.Unix()
		}
		if !step.EmptyLayer && len(sizes) > 0 {
			item.Size, sizes = sizes[0], sizes[1:]
		}
		items = append(items, item)
	}
	slices.Reverse(items)
	if len(items) > 0 {
		items[0].ID = h.target.Digest.String()
		items[0].Tags, _ = h.tags()
	}
	return replyJSON(w, http.StatusOK, items)
}

// count is how many images there are.
func (i *images) count(ctx context.Context) (int, error) {
	names, err := i.stores.Images.List(ctx)
	if err != nil {
		return 0, err
	}
	ids := map[digest.Digest]bool{}
	for _, n := range names {
		ids[n.Target.Digest] = true
	}
	return len(ids), nil
}

// layersSize is the size of all layers of all images in bytes, each counted once.
func (i *images) layersSize(ctx context.Context) (int64, error) {
	all, err := i.all(ctx)
	if err != nil {
		return 0, err
	}
	sizes := map[digest.Digest]int64{}
	for _, h := range all {
		for k, size := range i.layerSizes(ctx, h.loaded) {
			sizes[image.ChainID(h.Image.RootFS.DiffIDs[:k+1])] = size
		}
	}
	var sum int64
	for _, size := range sizes {
		sum += size
	}
	return sum, nil
}
