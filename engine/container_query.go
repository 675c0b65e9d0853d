package engine

import (
	"context"

	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

func (c *containers) usingImage(id digest.Digest) []user     { return nil }
func (c *containers) usingVolume(name string) []user         { return nil }
func (c *containers) usingNetwork(name, id string) []user    { return nil }
func (c *containers) counts() (running, paused, stopped int) { return 0, 0, 0 }
func (c *containers) summaries(ctx context.Context, size bool) ([]container.Summary, error) {
	return nil, nil
}

func (c *containers) editNetworks(ctx context.Context, ref string, f func(u user, eps map[string]*dockernet.EndpointSettings) error) error {
	return nil
}
