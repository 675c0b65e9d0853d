package image

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/store/content"
)

// PushOptions say what Push sends.
type PushOptions struct {
	Registry *remote.Client
	// Platforms whose manifests are sent: of one that manifest, of several an index
	// of them. None is all that is there.
	Platforms []ocispec.Platform
	Progress  func(Progress)
}

// Push sends target and all below it, tags it as ref, and gives what it tagged: of
// an index that came without most of its manifests, the one that is here.
func Push(ctx context.Context, s Stores, ref string, target ocispec.Descriptor, o PushOptions) (ocispec.Descriptor, error) {
	named, err := remote.ParseName(ref)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(o.Platforms) > 0 {
		target, err = narrow(ctx, s.Content, target, o.Platforms)
	} else {
		target, err = complete(ctx, s.Content, target)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p := &pusher{
		store: s.Content, registry: o.Registry, repo: reference.TrimNamed(named),
		report: newReporter(named.String(), o.Progress), seen: map[digest.Digest]bool{},
	}
	if err := p.plan(ctx, target, maxNesting); err != nil {
		return ocispec.Descriptor{}, err
	}
	return target, p.send(ctx, named)
}

// complete gives target, or, where it is an index with only one image here, that
// image's manifest: registries refuse an index that lacks a part.
func complete(ctx context.Context, s content.Store, target ocispec.Descriptor) (ocispec.Descriptor, error) {
	if !isIndex(target.MediaType) {
		return target, nil
	}
	index, err := readIndex(ctx, stored{s}, target)
	if err != nil {
		return target, err
	}
	var here []ocispec.Descriptor
	lacking := false
	for _, m := range index.Manifests {
		_, err := s.Info(ctx, m.Digest)
		switch {
		case errdefs.IsNotFound(err):
			lacking = true
		case err != nil:
			return target, err
		case !attestation(m):
			here = append(here, m)
		}
	}
	if !lacking {
		return target, nil
	}
	if len(here) != 1 {
		return target, fmt.Errorf("%d of the %d manifests of index %s are here (%s): choose a platform, or pull all: %w",
			len(here), len(index.Manifests), target.Digest, offered(here), errdefs.ErrFailedPrecondition)
	}
	return ocispec.Descriptor{MediaType: here[0].MediaType, Digest: here[0].Digest, Size: here[0].Size}, nil
}

// pusher is one push under way.
type pusher struct {
	store    content.Store
	registry *remote.Client
	repo     reference.Named
	report   *reporter

	blobs     []ocispec.Descriptor
	manifests []ocispec.Descriptor // parts before wholes
	seen      map[digest.Digest]bool
}

// plan lists what is to be sent.
func (p *pusher) plan(ctx context.Context, desc ocispec.Descriptor, nesting int) error {
	if p.seen[desc.Digest] {
		return nil
	}
	p.seen[desc.Digest] = true
	switch {
	case isManifest(desc.MediaType):
		m, err := readManifest(ctx, stored{p.store}, desc)
		if err != nil {
			return err
		}
		for _, d := range append(slices.Clone(m.Layers), m.Config) {
			if err := p.plan(ctx, d, nesting); err != nil {
				return err
			}
		}
		p.manifests = append(p.manifests, desc)
	case isIndex(desc.MediaType):
		if nesting == 0 {
			return fmt.Errorf("%s: indexes nested more than %d deep: %w", desc.Digest, maxNesting, errdefs.ErrInvalidArgument)
		}
		index, err := readIndex(ctx, stored{p.store}, desc)
		if err != nil {
			return err
		}
		for _, m := range index.Manifests {
			if err := p.plan(ctx, m, nesting-1); err != nil {
				return err
			}
		}
		p.manifests = append(p.manifests, desc)
	default:
		info, err := p.store.Info(ctx, desc.Digest)
		if err != nil {
			return err
		}
		desc.Size = info.Size
		p.blobs = append(p.blobs, desc)
		p.report.say(desc, Waiting, 0)
	}
	return nil
}

// send sends the blobs side by side, then the manifests, and the last one, the
// whole, with the tag.
func (p *pusher) send(ctx context.Context, named reference.Named) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(defaultLayers)
	for _, desc := range p.blobs {
		g.Go(func() error { return p.blob(gctx, desc) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, desc := range p.manifests {
		data, err := content.ReadBlob(ctx, p.store, desc)
		if err != nil {
			return err
		}
		ref := p.repo
		if i == len(p.manifests)-1 {
			ref = named
		}
		if err := p.registry.PutManifest(ctx, ref, desc, data); err != nil {
			return err
		}
		p.report.final(desc, Done)
	}
	return nil
}

func (p *pusher) blob(ctx context.Context, desc ocispec.Descriptor) error {
	ok, err := p.registry.Exists(ctx, p.repo, desc)
	if err == nil && !ok {
		ok, err = p.mount(ctx, desc)
	}
	if err != nil {
		return err
	}
	if ok {
		p.report.final(desc, Exists)
		return nil
	}
	err = p.registry.Upload(ctx, p.repo, desc, func() (io.ReadCloser, error) {
		ra, err := p.store.ReaderAt(ctx, desc)
		if err != nil {
			return nil, err
		}
		return &upload{Reader: io.NewSectionReader(ra, 0, desc.Size), blob: ra, report: p.report, desc: desc}, nil
	})
	if err != nil {
		return err
	}
	p.report.final(desc, Done)
	return nil
}

// maxMounts is in how many repositories a blob is looked for.
const maxMounts = 3

// mount looks for desc in the repositories of the same registry that it is known
// to have come from, those with the most similar names first.
func (p *pusher) mount(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	info, err := p.store.Info(ctx, desc.Digest)
	if err != nil {
		return false, err
	}
	path := reference.Path(p.repo)
	from := strings.FieldsFunc(info.Labels[labelSource+reference.Domain(p.repo)], func(r rune) bool { return r == ',' })
	from = slices.DeleteFunc(from, func(f string) bool { return f == path })
	slices.SortStableFunc(from, func(a, b string) int { return cmp.Compare(common(b, path), common(a, path)) })
	for _, f := range from[:min(len(from), maxMounts)] {
		if ok, err := p.registry.Mount(ctx, p.repo, desc, f); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// common is how many bytes a and b begin with alike.
func common(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// upload reads a blob and reports how far it is read.
type upload struct {
	io.Reader
	blob   content.ReaderAt
	report *reporter
	desc   ocispec.Descriptor
	offset int64
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	u.offset += int64(n)
	u.report.say(u.desc, Uploading, u.offset)
	return n, err
}

func (u *upload) Close() error { return u.blob.Close() }
