package image

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/snapshot"
)

// PullOptions say what Pull fetches.
type PullOptions struct {
	Registry *remote.Client
	// Name is given to the image; empty is the reference itself, in full.
	Name string
	// Platform to fetch; nil is this machine's.
	Platform *ocispec.Platform
	// Unpack extracts the layers into Snapshots while they are fetched.
	Unpack bool
	// More is fetched, and unpacked, besides.
	More []Wish
	// AllPlatforms fetches every one, and unpacks only those that are named.
	AllPlatforms bool
	// Labels for the image.
	Labels map[string]string
	// MaxLayers at the same time; 0 is 3.
	MaxLayers int
	// Progress is called from several goroutines, never at the same time.
	Progress func(Progress)
}

// Wish is a platform that a pull is to fetch, or an import to unpack.
type Wish struct {
	Platform *ocispec.Platform // nil is this machine's
	Unpack   bool
	// Snapshots and its name are where to, if not to those of the stores.
	Snapshots   snapshot.Snapshotter
	Snapshotter string
}

// in gives the stores that w is unpacked into.
func (w Wish) in(s Stores) Stores {
	if w.Snapshots != nil {
		s.Snapshots, s.Snapshotter = w.Snapshots, w.Snapshotter
	}
	return s
}

// Pull fetches ref, verifies, stores and unpacks it in one pass, and names it.
func Pull(ctx context.Context, s Stores, ref string, o PullOptions) (Image, error) {
	named, err := remote.ParseName(ref)
	if err != nil {
		return Image{}, err
	}
	name := o.Name
	if name == "" {
		name = named.String()
	}
	report := newReporter(name, o.Progress)
	report.say(ocispec.Descriptor{}, Resolving, 0)
	target, err := o.Registry.Resolve(ctx, named)
	if err != nil {
		return Image{}, err
	}
	p := puller{fetched: fetched{Store: s.Content, from: &origin{o.Registry, named}, report: report}, stores: s, opts: o}
	for _, w := range append([]Wish{{Platform: o.Platform, Unpack: o.Unpack}}, o.More...) {
		if w.Unpack || !o.AllPlatforms {
			if err := p.platform(ctx, target, w); err != nil {
				return Image{}, err
			}
		}
	}
	if o.AllPlatforms {
		if err := p.all(ctx, target, maxNesting); err != nil {
			return Image{}, err
		}
	}
	return s.name(ctx, Image{Name: name, Target: target, Labels: o.Labels})
}

// puller is one pull under way.
type puller struct {
	fetched
	stores Stores
	opts   PullOptions
}

// platform fetches, and unpacks where that is wanted, the one manifest of target
// that fits w best.
func (p puller) platform(ctx context.Context, target ocispec.Descriptor, w Wish) error {
	m, _, err := find(ctx, p.fetched, target, w.Platform)
	if err != nil {
		return err
	}
	p.stores = w.in(p.stores)
	return p.layers(ctx, m, w.Unpack)
}

// all fetches whatever is below target, and unpacks nothing.
func (p puller) all(ctx context.Context, target ocispec.Descriptor, nesting int) error {
	if isManifest(target.MediaType) {
		m, err := readManifest(ctx, p.fetched, target)
		if err != nil {
			return err
		}
		return p.layers(ctx, m, false)
	}
	if !isIndex(target.MediaType) {
		_, err := p.read(ctx, target)
		return err
	}
	if nesting == 0 {
		return fmt.Errorf("%s: indexes nested more than %d deep: %w", target.Digest, maxNesting, errdefs.ErrInvalidArgument)
	}
	index, err := readIndex(ctx, p.fetched, target)
	if err != nil {
		return err
	}
	for _, m := range index.Manifests {
		if err := p.all(ctx, m, nesting-1); err != nil {
			return err
		}
	}
	return nil
}

// layers fetches the config and the layers of m.
func (p puller) layers(ctx context.Context, m ocispec.Manifest, unpack bool) error {
	var config ocispec.Image
	data, err := p.read(ctx, m.Config)
	if err == nil && unpack {
		config, err = parseConfig(m.Config, data)
	}
	if err != nil {
		return err
	}
	j, err := newJob(p.stores, m, config, unpack)
	if err != nil {
		return err
	}
	j.from, j.report = p.from, p.report
	j.max = cmp.Or(p.opts.MaxLayers, defaultLayers)
	return j.run(ctx)
}

// fetched reads manifests and configs from a registry, and leaves them in the
// store with the labels that they ask for.
type fetched struct {
	content.Store
	from   *origin
	report *reporter
}

func (f fetched) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	// The writer comes first: where the blob is there, that is what makes it the
	// lease's.
	w, err := content.Open(ctx, f.Store, ingestRef(desc), desc)
	if errdefs.IsAlreadyExists(err) {
		data, err := content.ReadBlob(ctx, f.Store, desc)
		if err != nil {
			return nil, err
		}
		f.report.final(desc, Exists)
		return data, f.label(ctx, desc, data)
	}
	if err != nil {
		return nil, err
	}
	data, err := f.receive(ctx, w, desc)
	if err != nil {
		// Best effort, as in discard: a document is short, and begins anew.
		_ = f.Abort(context.WithoutCancel(ctx), ingestRef(desc))
		return nil, err
	}
	f.report.final(desc, Done)
	return data, nil
}

// receive fetches a document into w.
func (f fetched) receive(ctx context.Context, w content.Writer, desc ocispec.Descriptor) ([]byte, error) {
	defer w.Close()
	f.report.say(desc, Downloading, 0)
	data, err := f.fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	labels, err := refs(desc, data)
	if err != nil {
		return nil, err
	}
	return data, content.Fill(ctx, f.Store, w, bytes.NewReader(data), desc, f.from.labels(labels, nil))
}

// label gives a document that was there what a document that is fetched gets.
func (f fetched) label(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	labels, err := refs(desc, data)
	if err != nil {
		return err
	}
	info, err := f.Info(ctx, desc.Digest)
	if err != nil {
		return err
	}
	return content.AddLabels(ctx, f.Store, desc, f.from.labels(labels, info.Labels))
}

// fetch receives a document whole and verifies it.
func (f fetched) fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if remote.IsManifest(desc.MediaType) {
		return f.from.registry.Manifest(ctx, f.from.repo, desc)
	}
	if desc.Size > content.MaxSmall {
		return nil, fmt.Errorf("fetch %s: %d bytes, more than the %d of a manifest or config: %w",
			desc.Digest, desc.Size, content.MaxSmall, errdefs.ErrInvalidArgument)
	}
	r, err := f.from.registry.Fetch(ctx, f.from.repo, desc, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, fmt.Errorf("fetch %s: registry sent %s instead: %w", desc.Digest, got, errdefs.ErrFailedPrecondition)
	}
	return data, nil
}
