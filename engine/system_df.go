package engine

import (
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	imageapi "github.com/moby/moby/api/types/image"
	volumeapi "github.com/moby/moby/api/types/volume"
)

// diskUsage is the answer of GET /system/df up to API 1.51.
type diskUsage struct {
	LayersSize  int64
	Images      []imageapi.Summary
	Containers  []container.Summary
	Volumes     []volumeapi.Volume
	BuildCache  []build.CacheRecord
	BuilderSize *int64 `json:",omitempty"` // before API 1.42
}

// getUsage is GET /system/df?type=…
func (s *system) getUsage(w http.ResponseWriter, r *http.Request) (err error) {
	ctx := r.Context()
	if err := r.ParseForm(); err != nil {
		return invalid("invalid query: %w", err)
	}
	kinds := r.Form["type"]
	for _, k := range kinds {
		if !slices.Contains([]string{"container", "image", "volume", "build-cache"}, k) {
			return invalid("unknown object type: %s", k)
		}
	}
	wanted := func(kind string) bool { return len(kinds) == 0 || slices.Contains(kinds, kind) }
	out := diskUsage{BuildCache: []build.CacheRecord{}}
	if wanted("image") {
		if out.Images, err = s.images.summaries(ctx, nil, true); err != nil {
			return err
		}
		if out.LayersSize, err = s.images.layersSize(ctx); err != nil {
			return err
		}
	}
	if wanted("container") {
		if out.Containers, err = s.containers.summaries(ctx, true); err != nil {
			return err
		}
	}
	if wanted("volume") {
		if out.Volumes, err = s.volumes.usage(ctx); err != nil {
			return err
		}
	}
	if minor(r) < 42 {
		out.BuilderSize = new(int64)
	}
	return replyJSON(w, http.StatusOK, out)
}
