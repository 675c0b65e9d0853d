package image

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The labels by which containerd's garbage collector finds its way, and what
// its tools look up.
const (
	labelContent      = "containerd.io/gc.ref.content."
	labelSnapshot     = "containerd.io/gc.ref.snapshot."
	labelUncompressed = "containerd.io/uncompressed"
	labelSource       = "containerd.io/distribution.source."
)

// refsOfIndex are the labels from an index to its manifests.
func refsOfIndex(index ocispec.Index) map[string]string {
	labels := map[string]string{}
	for i, m := range index.Manifests {
		labels[labelContent+"m."+strconv.Itoa(i)] = m.Digest.String()
	}
	return labels
}

// refsOfManifest are the labels from a manifest to its config and layers.
func refsOfManifest(m ocispec.Manifest) map[string]string {
	labels := map[string]string{labelContent + "config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		labels[labelContent+"l."+strconv.Itoa(i)] = l.Digest.String()
	}
	return labels
}

// refs are the labels from a document to what it refers to; a config refers to nothing.
func refs(desc ocispec.Descriptor, data []byte) (labels map[string]string, err error) {
	switch {
	case isIndex(desc.MediaType):
		var index ocispec.Index
		if err = parse(desc, data, &index); err == nil {
			labels = refsOfIndex(index)
		}
	case isManifest(desc.MediaType):
		var m ocispec.Manifest
		if err = parse(desc, data, &m); err == nil {
			labels = refsOfManifest(m)
		}
	}
	return labels, err
}

// labels are those of what came from o, with more. They tell a later push to the
// same registry that it can do without the bytes.
func (o *origin) labels(more, have map[string]string) map[string]string {
	key, path := labelSource+reference.Domain(o.repo), reference.Path(o.repo)
	if known := have[key]; known != "" && !slices.Contains(strings.Split(known, ","), path) {
		path = known + "," + path
	} else if known != "" {
		path = known
	}
	all := map[string]string{key: path}
	maps.Copy(all, more)
	return all
}
