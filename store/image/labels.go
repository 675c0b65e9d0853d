package image

import (
	"strconv"

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

// sourceLabel says where a blob came from, so that a push there can do without it.
func sourceLabel(ref reference.Named) map[string]string {
	return map[string]string{labelSource + reference.Domain(ref): reference.Path(ref)}
}
