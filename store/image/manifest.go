package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/store/content"
)

// Manifest finds the manifest of target for a platform (nil is this machine's)
// and reads it, with its descriptor.
func Manifest(ctx context.Context, s content.Store, target ocispec.Descriptor, p *ocispec.Platform) (ocispec.Manifest, ocispec.Descriptor, error) {
	return find(ctx, stored{s}, target, p)
}

// Config is the config of target for a platform, with its descriptor; the blob
// itself has docker's further fields.
func Config(ctx context.Context, s content.Store, target ocispec.Descriptor, p *ocispec.Platform) (ocispec.Image, ocispec.Descriptor, error) {
	m, _, err := Manifest(ctx, s, target, p)
	if err != nil {
		return ocispec.Image{}, ocispec.Descriptor{}, err
	}
	config, err := readConfig(ctx, s, m)
	return config, m.Config, err
}

// Platforms lists the platforms of target whose manifests are in s.
func Platforms(ctx context.Context, s content.Store, target ocispec.Descriptor) ([]ocispec.Platform, error) {
	if !isIndex(target.MediaType) {
		config, _, err := Config(ctx, s, target, nil)
		if err != nil {
			return nil, err
		}
		return []ocispec.Platform{platforms.Normalize(config.Platform)}, nil
	}
	index, err := readIndex(ctx, stored{s}, target)
	if err != nil {
		return nil, err
	}
	var all []ocispec.Platform
	for _, m := range index.Manifests {
		if m.Platform == nil || attestation(m) {
			continue
		}
		if _, err := s.Info(ctx, m.Digest); errdefs.IsNotFound(err) {
			continue
		} else if err != nil {
			return nil, err
		}
		all = append(all, platforms.Normalize(*m.Platform))
	}
	return all, nil
}

// ChainID names the snapshot of the given layers, bottom first (image-spec, config.md).
func ChainID(diffIDs []digest.Digest) digest.Digest { return identity.ChainID(diffIDs) }

// source reads manifests and configs: from a store, or from a registry into it.
type source interface {
	read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
}

// stored reads what is in a store.
type stored struct{ content.Store }

func (s stored) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return content.ReadBlob(ctx, s.Store, desc)
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == remote.DockerManifestList
}

func isManifest(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageManifest || mediaType == remote.DockerManifest
}

// attestation says whether an index entry describes another one, as BuildKit's
// provenance does.
func attestation(m ocispec.Descriptor) bool {
	return m.Annotations["vnd.docker.reference.type"] != "" ||
		m.Platform != nil && m.Platform.OS == "unknown" && m.Platform.Architecture == "unknown"
}

// maxNesting of indexes in indexes is followed.
const maxNesting = 4

// find reads target, and where it is an index chooses the manifest that fits best.
func find(ctx context.Context, s source, target ocispec.Descriptor, p *ocispec.Platform) (ocispec.Manifest, ocispec.Descriptor, error) {
	for range maxNesting {
		if isManifest(target.MediaType) {
			m, err := readManifest(ctx, s, target)
			return m, target, err
		}
		if !isIndex(target.MediaType) {
			return ocispec.Manifest{}, target, fmt.Errorf("%s is %q, not an image: %w", target.Digest, target.MediaType, errdefs.ErrInvalidArgument)
		}
		index, err := readIndex(ctx, s, target)
		if err != nil {
			return ocispec.Manifest{}, target, err
		}
		fits := choose(index.Manifests, p)
		if len(fits) == 0 {
			return ocispec.Manifest{}, target, fmt.Errorf("no image for platform %s, only for %s: %w", formatPlatform(p), offered(index.Manifests), errdefs.ErrNotFound)
		}
		// The best that is there: an index may have come without all its manifests.
		for _, target = range fits {
			if _, ok := s.(stored); !ok {
				break
			}
			if _, err := s.read(ctx, target); !errdefs.IsNotFound(err) {
				break
			}
		}
	}
	return ocispec.Manifest{}, target, fmt.Errorf("%s: indexes nested more than %d deep: %w", target.Digest, maxNesting, errdefs.ErrInvalidArgument)
}

// choose gives the manifests for a platform, best first.
func choose(manifests []ocispec.Descriptor, p *ocispec.Platform) []ocispec.Descriptor {
	matcher := matcherOf(p)
	fits := slices.DeleteFunc(slices.Clone(manifests), func(m ocispec.Descriptor) bool {
		if attestation(m) || !isManifest(m.MediaType) && !isIndex(m.MediaType) {
			return true
		}
		return m.Platform != nil && !matcher.Match(*m.Platform)
	})
	slices.SortStableFunc(fits, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil || b.Platform == nil:
			return bool2int(a.Platform == nil) - bool2int(b.Platform == nil)
		case matcher.Less(*a.Platform, *b.Platform):
			return -1
		case matcher.Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fits
}

func bool2int(b bool) int {
	if b {
		return 1
	}
	return 0
}

// narrow gives what target has for the given platforms: of one its manifest, of several
// an index of theirs and of what is said of them, which is stored. Each must be there.
func narrow(ctx context.Context, s content.Store, target ocispec.Descriptor, ps []ocispec.Platform) (ocispec.Descriptor, error) {
	switch {
	case len(ps) == 0:
		return target, nil
	case len(ps) == 1 || !isIndex(target.MediaType):
		_, target, err := Manifest(ctx, s, target, &ps[0])
		return target, err
	}
	index, err := readIndex(ctx, stored{s}, target)
	if err != nil {
		return target, err
	}
	var kept []ocispec.Descriptor
	is := func(dgst string) bool {
		return slices.ContainsFunc(kept, func(m ocispec.Descriptor) bool { return m.Digest.String() == dgst })
	}
	for _, p := range ps {
		_, m, err := Manifest(ctx, s, target, &p)
		if err != nil {
			return target, err
		}
		if !is(m.Digest.String()) {
			kept = append(kept, m)
		}
	}
	for _, m := range index.Manifests {
		if attestation(m) && is(m.Annotations["vnd.docker.reference.digest"]) {
			kept = append(kept, m)
		}
	}
	if !slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return !is(m.Digest.String()) }) {
		return target, nil
	}
	index.Manifests = kept
	data, err := json.Marshal(index)
	if err != nil {
		return target, err
	}
	narrowed := ocispec.Descriptor{MediaType: target.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return narrowed, content.WriteBlob(ctx, s, ingestRef(narrowed), data, narrowed, refsOfIndex(index))
}

func matcherOf(p *ocispec.Platform) platforms.MatchComparer {
	if p == nil {
		return platforms.Default()
	}
	return platforms.Only(*p)
}

func formatPlatform(p *ocispec.Platform) string {
	if p == nil {
		return platforms.DefaultString()
	}
	return platforms.Format(*p)
}

func offered(manifests []ocispec.Descriptor) string {
	var all []string
	for _, m := range manifests {
		if m.Platform != nil && !attestation(m) {
			all = append(all, platforms.Format(*m.Platform))
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func readIndex(ctx context.Context, s source, desc ocispec.Descriptor) (ocispec.Index, error) {
	var index ocispec.Index
	err := readJSON(ctx, s, desc, &index)
	return index, err
}

func readManifest(ctx context.Context, s source, desc ocispec.Descriptor) (ocispec.Manifest, error) {
	var m ocispec.Manifest
	if err := readJSON(ctx, s, desc, &m); err != nil {
		return m, err
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return m, fmt.Errorf("manifest %s: digest %q: %w: %w", desc.Digest, d.Digest, err, errdefs.ErrInvalidArgument)
		}
		if d.Size < 0 {
			return m, fmt.Errorf("manifest %s: %s has the size %d: %w", desc.Digest, d.Digest, d.Size, errdefs.ErrInvalidArgument)
		}
	}
	return m, nil
}

func readJSON(ctx context.Context, s source, desc ocispec.Descriptor, v any) error {
	data, err := s.read(ctx, desc)
	if err != nil {
		return err
	}
	return parse(desc, data, v)
}

// parse reads a manifest or an index and refuses one that is both at once, which
// two readers would understand differently (CVE-2021-41190).
func parse(desc ocispec.Descriptor, data []byte, v any) error {
	var both struct {
		Schema    int             `json:"schemaVersion"`
		Config    json.RawMessage `json:"config"`
		Layers    json.RawMessage `json:"layers"`
		Manifests json.RawMessage `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	err := json.Unmarshal(data, &both)
	switch {
	case err != nil:
	case both.FSLayers != nil || both.Schema == 1:
		err = errors.New("docker's schema 1 is not supported")
	case both.Manifests != nil && (both.Config != nil || both.Layers != nil):
		err = errors.New("it is an index and a manifest at once")
	default:
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("read manifest %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	return nil
}

func readConfig(ctx context.Context, s content.Store, m ocispec.Manifest) (ocispec.Image, error) {
	data, err := content.ReadBlob(ctx, s, m.Config)
	if err != nil {
		return ocispec.Image{}, err
	}
	return parseConfig(m.Config, data)
}

func parseConfig(desc ocispec.Descriptor, data []byte) (ocispec.Image, error) {
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return config, fmt.Errorf("read config %s: %w: %w", desc.Digest, err, errdefs.ErrInvalidArgument)
	}
	return config, nil
}
