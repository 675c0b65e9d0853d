package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	registryapi "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/store/image"
)

// postCreate is POST /images/create: a pull, or an import from a tar.
func (i *images) postCreate(w http.ResponseWriter, r *http.Request) error {
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	if r.FormValue("fromImage") == "" {
		return i.importTar(w, r, platform)
	}
	named, all, err := pullReference(r.FormValue("fromImage"), r.FormValue("tag"))
	if err != nil {
		return err
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	out := &messages{w: w}
	if !all {
		return out.end(i.pullTold(r.Context(), out, named, platform, auth))
	}
	tags, err := i.tags(r.Context(), named, auth)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		tagged, err := reference.WithTag(named, tag)
		if err == nil {
			err = i.pullTold(r.Context(), out, tagged, platform, auth)
		}
		if err != nil {
			return out.end(err)
		}
	}
	return nil
}

// pullReference reads fromImage and tag, which may be a digest. Without a tag in
// either, all tags are meant.
func pullReference(from, tag string) (named reference.Named, all bool, err error) {
	bad := func(err error) (reference.Named, bool, error) {
		return nil, false, invalid("invalid reference format: %q: %w", from, err)
	}
	if named, err = reference.ParseNormalizedNamed(from); err != nil {
		return bad(err)
	}
	switch {
	case tag == "":
	case strings.Contains(tag, ":"):
		d, err := digest.Parse(tag)
		if err != nil {
			return bad(err)
		}
		if named, err = reference.WithDigest(reference.TrimNamed(named), d); err != nil {
			return bad(err)
		}
	default:
		if named, err = reference.WithTag(reference.TrimNamed(named), tag); err != nil {
			return bad(err)
		}
	}
	return named, reference.IsNameOnly(named), nil
}

// platformOf reads ?platform=, "linux/arm64" or OCI's JSON.
func platformOf(r *http.Request) (*ocispec.Platform, error) {
	v := r.FormValue("platform")
	if v == "" {
		return nil, nil
	}
	var p ocispec.Platform
	if strings.HasPrefix(v, "{") {
		if err := json.Unmarshal([]byte(v), &p); err != nil {
			return nil, invalid("invalid platform %q: %w", v, err)
		}
		return &p, nil
	}
	p, err := platforms.Parse(v)
	if err != nil {
		return nil, invalid("invalid platform: %w", err)
	}
	p = platforms.Normalize(p)
	return &p, nil
}

// few is the platform that was asked for, or none.
func few(p *ocispec.Platform) []ocispec.Platform {
	if p == nil {
		return nil
	}
	return []ocispec.Platform{*p}
}

// authOf reads the credentials that the client sends along.
func authOf(r *http.Request) (registryapi.AuthConfig, error) {
	var auth registryapi.AuthConfig
	h := strings.TrimRight(r.Header.Get("X-Registry-Auth"), "=")
	if h == "" {
		return auth, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(h)
	if err != nil {
		raw, err = base64.RawStdEncoding.DecodeString(h)
	}
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &auth)
	}
	if err != nil {
		return auth, invalid("invalid X-Registry-Auth header: %w", err)
	}
	return auth, nil
}

// registry is a client that has the credentials, for one request.
func (i *images) registry(auth registryapi.AuthConfig) *remote.Client {
	return remote.New(remote.Config{
		Credentials: func(context.Context, string) (remote.Credential, error) { return credential(auth), nil },
		PlainHTTP:   i.insecure,
	})
}

func credential(auth registryapi.AuthConfig) remote.Credential {
	if auth.IdentityToken != "" {
		return remote.Credential{Secret: auth.IdentityToken}
	}
	if auth.Username == "" && auth.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(auth.Auth)
		if user, secret, ok := strings.Cut(string(raw), ":"); err == nil && ok {
			return remote.Credential{User: user, Secret: secret}
		}
	}
	return remote.Credential{User: auth.Username, Secret: auth.Password}
}

// insecure says whether the user allows host without TLS.
func (i *images) insecure(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return slices.Contains(i.cfg.InsecureRegistries, host) || slices.Contains(i.cfg.InsecureRegistries, name)
}

// pullTold pulls named and tells what happens.
func (i *images) pullTold(ctx context.Context, out *messages, named reference.Named, platform *ocispec.Platform, auth registryapi.AuthConfig) error {
	tag := "latest"
	switch n := named.(type) {
	case reference.Digested:
		tag = n.Digest().String()
	case reference.Tagged:
		tag = n.Tag()
	}
	begin := func() {
		out.send(jsonstream.Message{ID: tag, Status: "Pulling from " + reference.Path(named)})
	}
	bars := &layerBars{out: out, words: pullWords(), first: begin}
	img, isNew, err := i.pull(ctx, named, platform, auth, bars.tell)
	if err != nil {
		return pullError(named, err)
	}
	if bars.first != nil {
		begin()
	}
	out.send(jsonstream.Message{Status: "Digest: " + img.Target.Digest.String()})
	status := "Status: Image is up to date for "
	if isNew {
		status = "Status: Downloaded newer image for "
	}
	out.send(jsonstream.Message{Status: status + reference.FamiliarString(named)})
	return nil
}

// pull fetches named and unpacks it, by whoever can do it best: a containerd with
// a Transfer service itself, else the same work is done here over its stores.
func (i *images) pull(ctx context.Context, named reference.Named, platform *ocispec.Platform, auth registryapi.AuthConfig, tell func(image.Progress)) (img image.Image, isNew bool, err error) {
	name := named.String()
	ctx, done, err := i.pullLease(ctx, name)
	if err != nil {
		return image.Image{}, false, err
	}
	defer done()
	old, err := i.stores.Images.Get(ctx, name)
	if err != nil && !errdefs.IsNotFound(err) {
		return image.Image{}, false, err
	}
	if err == nil {
		// The image that has the name now must not vanish when it loses it.
		release, err := i.hold(ctx, old.Target)
		if err != nil {
			return image.Image{}, false, err
		}
		defer release()
	}
	if i.transfers() {
		img, err = i.pullTransfer(ctx, name, platform, auth, tell)
	} else {
		client := i.registry(auth)
		defer client.Close()
		img, err = image.Pull(ctx, i.stores, name, image.PullOptions{
			Registry: client, Name: name, Platform: platform, Unpack: true, Progress: tell,
		})
	}
	if err != nil {
		return image.Image{}, false, err
	}
	r, err := i.load(ctx, img.Target, platform)
	if err != nil {
		return image.Image{}, false, err
	}
	i.tell(eventsapi.ActionPull, reference.FamiliarString(named), reference.FamiliarName(named), r.Image.Config.Labels)
	return img, old.Target.Digest != img.Target.Digest, errors.Join(i.dropUnnamed(ctx, img.Target.Digest), i.pulled(ctx, name))
}

// hold gives target the name of the nameless, and release takes it off again
// where the image kept another name.
func (i *images) hold(ctx context.Context, target ocispec.Descriptor) (release func(), err error) {
	_, err = i.stores.Images.Create(ctx, image.Image{Name: danglingPrefix + target.Digest.String(), Target: target})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return nil, err
	}
	return func() {
		ctx := context.WithoutCancel(ctx)
		names, err := i.named(ctx, target.Digest)
		if err == nil && slices.ContainsFunc(names, func(n image.Image) bool { return !isDangling(n.Name) }) {
			err = i.dropUnnamed(ctx, target.Digest)
		}
		if err != nil {
			i.cfg.Log.Warn("release image", "id", target.Digest, "err", err)
		}
	}, nil
}

// pullError says why named cannot be had, beginning with the stock words: clients
// look for them.
func pullError(named reference.Named, err error) error {
	name, why := reference.FamiliarString(named), plainText(err)
	switch {
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return notFound("pull access denied for %s, repository does not exist or may require 'docker login': %s", reference.FamiliarName(named), why)
	case errdefs.IsNotFound(err):
		return notFound("manifest for %s not found: manifest unknown: %s", name, why)
	}
	return because(kindOf(err), "pull %s: %s", name, why)
}

// kindOf is the kind of err in errdefs; Unknown where the API has no status for it.
func kindOf(err error) error {
	for _, kind := range []error{
		errdefs.ErrNotFound, errdefs.ErrInvalidArgument, errdefs.ErrUnavailable,
		errdefs.ErrNotImplemented, errdefs.ErrConflict,
	} {
		if errdefs.Resolve(err) == kind {
			return kind
		}
	}
	return errdefs.ErrUnknown
}

// postPush is POST /images/{name}/push.
func (i *images) postPush(w http.ResponseWriter, r *http.Request) error {
	named, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return invalid("invalid reference format: %q: %w", r.PathValue("name"), err)
	}
	platform, err := platformOf(r)
	if err != nil {
		return err
	}
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	named, err = withTag(named, r.FormValue("tag"))
	if err != nil {
		return err
	}
	out := &messages{w: w}
	if !reference.IsNameOnly(named) {
		return out.end(i.push(r.Context(), out, named, platform, auth))
	}
	all, err := i.stores.Images.List(r.Context())
	if err != nil {
		return err
	}
	sent := 0
	for _, img := range all {
		n, err := reference.ParseNormalizedNamed(img.Name)
		if _, tagged := n.(reference.NamedTagged); err != nil || !tagged || n.Name() != named.Name() {
			continue
		}
		sent++
		if err := i.push(r.Context(), out, n, platform, auth); err != nil {
			return out.end(err)
		}
	}
	if sent == 0 {
		return notFound("An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	return nil
}

// withTag is named with the tag, or as it is without one.
func withTag(named reference.Named, tag string) (reference.Named, error) {
	if tag == "" {
		return named, nil
	}
	tagged, err := reference.WithTag(reference.TrimNamed(named), tag)
	if err != nil {
		return nil, invalid("invalid tag format: %q: %w", tag, err)
	}
	return tagged, nil
}

func (i *images) push(ctx context.Context, out *messages, named reference.Named, platform *ocispec.Platform, auth registryapi.AuthConfig) error {
	img, err := i.stores.Images.Get(ctx, named.String())
	if errdefs.IsNotFound(err) {
		return notFound("An image does not exist locally with the tag: %s", reference.FamiliarName(named))
	}
	if err != nil {
		return err
	}
	client := i.registry(auth)
	defer client.Close()
	begin := func() {
		out.send(jsonstream.Message{Status: "The push refers to repository [" + named.Name() + "]"})
	}
	bars := &layerBars{out: out, words: pushWords(), first: begin}
	sent, err := image.Push(ctx, i.stores, named.String(), img.Target, image.PushOptions{Registry: client, Platforms: few(platform), Progress: bars.tell})
	switch {
	case errdefs.IsUnauthorized(err), errdefs.IsPermissionDenied(err):
		return because(errdefs.ErrPermissionDenied, "push access denied for %s: %w", reference.FamiliarName(named), err)
	case err != nil:
		return because(kindOf(err), "push %s: %w", reference.FamiliarString(named), err)
	}
	if bars.first != nil {
		begin()
	}
	tag := named.(reference.NamedTagged).Tag()
	out.send(jsonstream.Message{Status: tag + ": digest: " + sent.Digest.String() + " size: " + itoa(sent.Size)})
	i.tell(eventsapi.ActionPush, reference.FamiliarString(named), reference.FamiliarName(named), nil)
	return out.aux(struct {
		Tag, Digest string
		Size        int64
	}{tag, sent.Digest.String(), sent.Size})
}
