package lifecycle

import (
	"fmt"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/image"
)

// progress tells the client how far a transfer is, in containerd's words, on the
// stream that it opened for that. Without a stream it tells nobody.
type progress struct{ s *stream }

func (t *transfers) progress(ns, id string) (*progress, error) {
	if id == "" {
		return &progress{}, nil
	}
	s, err := t.streams.take(ns, id)
	return &progress{s}, err
}

func (p *progress) send(m *transfertypes.Progress) {
	if p.s == nil {
		return
	}
	// A client that does not listen has its transfer nevertheless.
	_ = p.s.send(m)
}

func (p *progress) close() {
	if p.s != nil {
		p.s.close()
	}
}

// status is the one line over all.
func (p *progress) status(format string, args ...any) {
	p.send(&transfertypes.Progress{Event: fmt.Sprintf(format, args...)})
}

func (p *progress) saved(img image.Image) {
	p.send(&transfertypes.Progress{Event: "saved", Name: img.Name, Desc: descriptorToAPI(img.Target)})
}

// phaseEvents are containerd's words for the phases.
var phaseEvents = map[image.Phase]string{
	image.Waiting:     "waiting",
	image.Downloading: "downloading",
	image.Extracting:  "extracting",
	image.Uploading:   "uploading",
	image.Exists:      "already exists",
	image.Done:        "complete",
}

// image tells one step of one descriptor.
func (p *progress) image(step image.Progress) {
	if step.Phase == image.Resolving {
		p.status("Resolving %s", step.Name)
		return
	}
	p.send(&transfertypes.Progress{
		Event: phaseEvents[step.Phase], Name: refKey(step.Desc),
		Progress: step.Offset, Total: step.Total, Desc: descriptorToAPI(step.Desc),
	})
}

// refKey names a descriptor as containerd's clients show it.
func refKey(d ocispec.Descriptor) string {
	kind := "unknown"
	switch d.MediaType {
	case ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json":
		kind = "manifest"
	case ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
		kind = "index"
	case ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json":
		kind = "config"
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip":
		kind = "layer"
	}
	return kind + "-" + d.Digest.String()
}
