package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	registryapi "github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
)

// tags asks the registry for all tags of a repository.
func (i *images) tags(ctx context.Context, repo reference.Named, auth registryapi.AuthConfig) ([]string, error) {
	client := i.registry(auth)
	defer client.Close()
	tags, err := client.Tags(ctx, repo)
	if err != nil {
		return nil, pullError(repo, err)
	}
	return tags, nil
}

// getDistribution is GET /distribution/{name}/json: what a registry has under a
// name, without pulling it.
func (i *images) getDistribution(w http.ResponseWriter, r *http.Request) error {
	named, err := reference.ParseNormalizedNamed(r.PathValue("name"))
	if err != nil {
		return invalid("invalid reference format: %q: %w", r.PathValue("name"), err)
	}
	named = reference.TagNameOnly(named)
	auth, err := authOf(r)
	if err != nil {
		return err
	}
	client := i.registry(auth)
	defer client.Close()
	desc, err := client.Resolve(r.Context(), named)
	if err != nil {
		return pullError(named, err)
	}
	raw, err := client.Manifest(r.Context(), named, desc)
	if err != nil {
		return pullError(named, err)
	}
	out := registryapi.DistributionInspect{Descriptor: desc, Platforms: []ocispec.Platform{}}
	var index ocispec.Index
	var man ocispec.Manifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return because(errdefs.ErrUnknown, "read the manifest of %s: %w", reference.FamiliarString(named), err)
	}
	for _, m := range index.Manifests {
		if m.Platform != nil && m.Platform.OS != "unknown" {
			out.Platforms = append(out.Platforms, *m.Platform)
		}
	}
	if err := json.Unmarshal(raw, &man); err == nil && man.Config.Digest != "" {
		p, err := configPlatform(r.Context(), client, named, man.Config)
		if err != nil {
			return pullError(named, err)
		}
		out.Platforms = append(out.Platforms, p)
	}
	return replyJSON(w, http.StatusOK, out)
}

func configPlatform(ctx context.Context, client *remote.Client, named reference.Named, config ocispec.Descriptor) (ocispec.Platform, error) {
	rc, err := client.Fetch(ctx, named, config, 0)
	if err != nil {
		return ocispec.Platform{}, err
	}
	defer rc.Close()
	var p ocispec.Platform
	if err := json.NewDecoder(rc).Decode(&p); err != nil {
		return ocispec.Platform{}, err
	}
	return platforms.Normalize(p), nil
}

// postAuth is POST /auth: are these credentials good?
func (i *images) postAuth(w http.ResponseWriter, r *http.Request) error {
	var auth registryapi.AuthConfig
	if err := readJSON(r, &auth); err != nil {
		return err
	}
	if auth.ServerAddress == "" {
		auth.ServerAddress = "docker.io"
	}
	client := i.registry(auth)
	defer client.Close()
	if err := client.Ping(r.Context(), registryHost(auth.ServerAddress)); err != nil {
		return because(kindOf(err), "login attempt to %s failed: %w", auth.ServerAddress, err)
	}
	return replyJSON(w, http.StatusOK, registryapi.AuthResponse{Status: "Login Succeeded"})
}

// registryHost takes the host out of an address as old clients write it,
// "https://index.docker.io/v1/".
func registryHost(address string) string {
	_, rest, ok := strings.Cut(address, "://")
	if !ok {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "index.docker.io" {
		return "docker.io"
	}
	return host
}

// getSearch is GET /images/search. The registry that has the index is not spoken
// to for it.
func (i *images) getSearch(http.ResponseWriter, *http.Request) error {
	return because(errdefs.ErrNotFound, "searching for images is not served: look in the registry's own pages, and pull by name")
}
