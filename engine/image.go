package engine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/engine/internal/ctrd"
	"github.com/gantryd/gantry/store/content"
	contentproxy "github.com/gantryd/gantry/store/content/proxy"
	"github.com/gantryd/gantry/store/image"
	imageproxy "github.com/gantryd/gantry/store/image/proxy"
	snapshotproxy "github.com/gantryd/gantry/store/snapshot/proxy"
)

// images is every image of containerd's namespace. containerd has the truth; what
// follows from a digest is kept here, since it cannot change.
type images struct {
	cfg        Config
	ctrd       *ctrd.Client
	events     *events
	containers *containers
	stores     image.Stores

	run       string      // names this life of the engine
	transfers func() bool // says once whether containerd has the Transfer service

	mu    sync.Mutex
	known map[string]*loaded // by target and platform
	sizes map[string]int64   // of one snapshot in bytes, by chain ID

	naming sync.Mutex // held while names move, so that none is lost
}

// maxKnown bounds what is kept: it is a cache, and images come and go.
const maxKnown = 4096

// loaded is all that a target is for one platform.
type loaded struct {
	resolved
	layers []ocispec.Descriptor
	config []byte // as it is
}

func newImages(_ context.Context, cfg Config, client *ctrd.Client, ev *events, cs *containers) (*images, error) {
	i := &images{
		cfg: cfg, ctrd: client, events: ev, containers: cs,
		stores: image.Stores{
			Content:     contentproxy.New(client.Conn),
			Snapshots:   snapshotproxy.New(client.Conn, cfg.Snapshotter),
			Snapshotter: cfg.Snapshotter,
			Images:      imageproxy.New(client.Conn),
			Flights:     &image.Flights{},
		},
		run:   rand.Text(),
		known: map[string]*loaded{},
		sizes: map[string]int64{},
	}
	i.transfers = sync.OnceValue(i.hasTransfer)
	return i, nil
}

func (i *images) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{get, "/images/json", i.getList},
		{post, "/images/create", i.postCreate},
		{post, "/images/load", i.postLoad},
		{post, "/images/prune", i.postPrune},
		{get, "/images/search", i.getSearch},
		{get, "/images/get", i.getSave},
		{get, "/images/{name...}/get", i.getSave},
		{get, "/images/{name...}/json", i.getInspect},
		{get, "/images/{name...}/history", i.getHistory},
		{post, "/images/{name...}/push", i.postPush},
		{post, "/images/{name...}/tag", i.postTag},
		{http.MethodDelete, "/images/{name...}", i.delete},
		{get, "/distribution/{name...}/json", i.getDistribution},
		{post, "/auth", i.postAuth},
	}
}

// resolve finds the image that ref names (a name with or without tag or digest,
// or an ID or a prefix of one) for platform, nil being the host's.
func (i *images) resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*resolved, error) {
	img, err := i.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	r, err := i.load(ctx, img.Target, platform)
	if errdefs.IsNotFound(err) {
		return nil, notFound("image with reference %s was found but does not provide the specified platform (%s)", ref, format(platform))
	}
	if err != nil {
		return nil, err
	}
	// A lone manifest is for the platform that its config says.
	if p := r.Image.Platform; platform != nil && p.Architecture != "" && !platforms.Only(*platform).Match(p) {
		return nil, notFound("image with reference %s was found but does not provide the specified platform (%s)", ref, format(platform))
	}
	named := r.resolved
	named.Name = img.Name
	return &named, nil
}

func format(p *ocispec.Platform) string {
	if p == nil {
		return platforms.Format(platforms.DefaultSpec())
	}
	return platforms.Format(*p)
}

// unpack makes the snapshot of r.ChainID where it is missing.
func (i *images) unpack(ctx context.Context, r *resolved) error {
	if r.ChainID == "" {
		return nil
	}
	_, err := i.stores.Snapshots.Stat(ctx, r.ChainID)
	if !errdefs.IsNotFound(err) {
		return err
	}
	ctx, done, err := i.lease(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = image.Unpack(ctx, i.stores, r.Target, image.UnpackOptions{Platform: &r.Image.Platform})
	return err
}

// load reads what target is for a platform.
func (i *images) load(ctx context.Context, target ocispec.Descriptor, platform *ocispec.Platform) (*loaded, error) {
	key := target.Digest.String() + " " + format(platform)
	i.mu.Lock()
	r := i.known[key]
	i.mu.Unlock()
	if r != nil {
		return r, nil
	}
	man, desc, err := image.Manifest(ctx, i.stores.Content, target, platform)
	if err != nil {
		return nil, err
	}
	raw, err := content.ReadBlob(ctx, i.stores.Content, man.Config)
	if err != nil {
		return nil, err
	}
	r = &loaded{layers: man.Layers, config: raw}
	r.Target, r.Manifest, r.Config = target, desc, man.Config.Digest
	if err := json.Unmarshal(raw, &r.Image); err != nil {
		return nil, fmt.Errorf("read config %s of image %s: %w", man.Config.Digest, target.Digest, err)
	}
	if len(r.Image.RootFS.DiffIDs) > 0 {
		r.ChainID = image.ChainID(r.Image.RootFS.DiffIDs).String()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= maxKnown {
		clear(i.known)
	}
	i.known[key] = r
	return r, nil
}

// find finds the image that ref names. A name goes before an ID that looks alike,
// unless ref is a whole ID.
func (i *images) find(ctx context.Context, ref string) (image.Image, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil {
		return image.Image{}, invalid("invalid reference format: %q: %w", ref, err)
	}
	named, isName := parsed.(reference.Named)
	if isName {
		img, err := i.stores.Images.Get(ctx, reference.TagNameOnly(named).String())
		if !errdefs.IsNotFound(err) {
			return img, err
		}
		if d, ok := named.(reference.Digested); ok {
			return i.findRepoDigest(ctx, named, d.Digest(), ref)
		}
	}
	hex := strings.TrimPrefix(ref, "sha256:")
	if !isHex(hex) {
		return image.Image{}, noSuchImage(ref)
	}
	return i.findID(ctx, hex, ref)
}

// noSuchImage has the words by which clients know that they should pull.
func noSuchImage(ref string) error {
	if named, err := reference.ParseNormalizedNamed(ref); err == nil {
		ref = reference.FamiliarString(reference.TagNameOnly(named))
	}
	return notFound("No such image: %s", ref)
}

func isHex(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// findRepoDigest finds an image of the repository with the digest under any tag.
func (i *images) findRepoDigest(ctx context.Context, repo reference.Named, d digest.Digest, ref string) (image.Image, error) {
	all, err := i.stores.Images.List(ctx)
	if err != nil {
		return image.Image{}, err
	}
	for _, img := range all {
		if named, err := reference.ParseNormalizedNamed(img.Name); err == nil && named.Name() == repo.Name() && img.Target.Digest == d {
			return img, nil
		}
	}
	return image.Image{}, noSuchImage(ref)
}

// findID finds the one image whose ID, or whose config's digest, begins with hex.
func (i *images) findID(ctx context.Context, hex, ref string) (image.Image, error) {
	all, err := i.stores.Images.List(ctx)
	if err != nil {
		return image.Image{}, err
	}
	var found []image.Image
	for _, byConfig := range []bool{false, true} {
		for _, img := range all {
			id := img.Target.Digest
			if byConfig {
				r, err := i.load(ctx, img.Target, nil)
				if err != nil {
					continue
				}
				id = r.Config
			}
			if strings.HasPrefix(id.Encoded(), hex) {
				found = append(found, img)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		return image.Image{}, noSuchImage(ref)
	}
	for _, img := range found[1:] {
		if img.Target.Digest != found[0].Target.Digest {
			return image.Image{}, invalid("ambiguous reference: %q is the beginning of several image IDs", ref)
		}
	}
	// A tag says more than a digest, and a digest more than nothing.
	slices.SortStableFunc(found, func(a, b image.Image) int { return nameRank(a.Name) - nameRank(b.Name) })
	return found[0], nil
}

func nameRank(name string) int {
	switch {
	case isDangling(name):
		return 2
	case strings.Contains(name, "@"):
		return 1
	}
	return 0
}

// named lists the images with the target id.
func (i *images) named(ctx context.Context, id digest.Digest) ([]image.Image, error) {
	imgs, err := i.stores.Images.List(ctx, fmt.Sprintf("target.digest==%q", id.String()))
	if err != nil {
		return nil, fmt.Errorf("list the names of image %s: %w", id, err)
	}
	return imgs, nil
}

// An image without a name must have one for containerd to keep it. The Docker
// Engine uses the same.
const danglingPrefix = "moby-dangling@"

func isDangling(name string) bool { return strings.HasPrefix(name, danglingPrefix) }

// keepUnnamed gives target the name of the nameless if it has no other.
func (i *images) keepUnnamed(ctx context.Context, target ocispec.Descriptor) error {
	names, err := i.named(ctx, target.Digest)
	if err != nil || len(names) > 0 {
		return err
	}
	_, err = i.stores.Images.Create(ctx, image.Image{Name: danglingPrefix + target.Digest.String(), Target: target})
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// dropUnnamed takes the name of the nameless off a target that has another.
func (i *images) dropUnnamed(ctx context.Context, id digest.Digest) error {
	err := i.stores.Images.Delete(ctx, danglingPrefix+id.String())
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// name points name to target; an image that loses its last name by that stays,
// without a name.
func (i *images) name(ctx context.Context, name string, target ocispec.Descriptor) error {
	i.naming.Lock()
	defer i.naming.Unlock()
	old, err := i.stores.Images.Get(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		_, err = i.stores.Images.Create(ctx, image.Image{Name: name, Target: target})
	case err == nil && old.Target.Digest != target.Digest:
		if _, err = i.stores.Images.Update(ctx, image.Image{Name: name, Target: target}, "target"); err == nil {
			err = i.keepUnnamed(ctx, old.Target)
		}
	}
	if err != nil {
		return fmt.Errorf("name image %s %s: %w", target.Digest, name, err)
	}
	return i.dropUnnamed(ctx, target.Digest)
}

// tell publishes an event of an image.
func (i *images) tell(action eventsapi.Action, id, name string, labels map[string]string) {
	attrs := map[string]string{"name": name}
	for k, v := range labels {
		attrs[k] = v
	}
	i.events.publish(eventsapi.ImageEventType, action, id, attrs)
}
