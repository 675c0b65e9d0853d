package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platforms is Finish for an image of several platforms. Each has the layers so far,
// programs for this machine whatever the platform says, and one that names it and the
// image.
func (l *Layout) Platforms(name string, config ocispec.ImageConfig, platforms ...ocispec.Platform) error {
	all := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	layers, diffs := slices.Clip(l.layers), slices.Clip(l.diffs)
	for _, p := range platforms {
		l.layers, l.diffs = layers, diffs
		about := fmt.Appendf(nil, "%s for %s/%s%s\n", name, p.OS, p.Architecture, p.Variant)
		if err := l.Layer(Tar([]File{{Name: "etc/", Mode: 0o755}, {Name: "etc/image", Mode: 0o644, Data: about}})); err != nil {
			return err
		}
		cfg, err := l.json(ocispec.MediaTypeImageConfig, ocispec.Image{
			Created: &epoch, Platform: p, Config: config,
			RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: l.diffs},
			History: slices.Repeat([]ocispec.History{{Created: &epoch, CreatedBy: "gantry test rig"}}, len(l.diffs)),
		})
		if err != nil {
			return err
		}
		m, err := l.json(ocispec.MediaTypeImageManifest, ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: cfg, Layers: l.layers,
		})
		if err != nil {
			return err
		}
		m.Platform = &p
		all.Manifests = append(all.Manifests, m)
	}
	index, err := l.json(ocispec.MediaTypeImageIndex, all)
	if err != nil {
		return err
	}
	index.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	list, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{index},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), list, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}
