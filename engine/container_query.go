package engine

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// usingImage gives the containers made from the image with this ID.
func (c *containers) usingImage(id digest.Digest) []user {
	return c.users(func(rec record) bool { return rec.ImageID == id })
}

// usingVolume gives the containers that mount the volume, running or not. One that
// is being removed does not count.
func (c *containers) usingVolume(name string) []user {
	return c.users(func(rec record) bool {
		if rec.State.Phase == removing {
			return false
		}
		for _, p := range rec.Mounts {
			if p.Name == name {
				return true
			}
		}
		return false
	})
}

// usingNetwork gives the containers that are joined to the network, or will be at
// their start.
func (c *containers) usingNetwork(name, id string) []user {
	return c.users(func(rec record) bool {
		for n, ep := range rec.Endpoints {
			if n == name || n == id || id != "" && ep.NetworkID == id {
				return true
			}
		}
		return false
	})
}

func (c *containers) users(fits func(record) bool) []user {
	var us []user
	for _, k := range c.all() {
		if rec := k.snapshot(); fits(rec) {
			us = append(us, k.asUser(rec))
		}
	}
	return us
}

func (k *ctr) asUser(rec record) user {
	return user{
		ID: k.id, Name: rec.Name, Running: rec.State.Phase == running,
		Created: rec.Created.Unix(), ImageID: rec.ImageID,
		Hostname: rec.Config.Hostname, Mode: rec.HostConfig.NetworkMode,
	}
}

// counts gives how many containers are in each state; a paused one does not count
// as running.
func (c *containers) counts() (up, paused, stopped int) {
	for _, k := range c.all() {
		switch rec := k.snapshot(); rec.status() {
		case container.StateRunning, container.StateRestarting:
			up++
		case container.StatePaused:
			paused++
		default:
			stopped++
		}
	}
	return up, paused, stopped
}

// summaries is GET /containers/json of all containers.
func (c *containers) summaries(ctx context.Context, size bool) ([]container.Summary, error) {
	list := []container.Summary{}
	for _, k := range c.all() {
		s, err := c.summary(ctx, listed{k, k.snapshot()}, size)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// editNetworks runs f on the endpoints of the container that ref names while
// nothing else begins or ends its life, and keeps what f leaves there.
func (c *containers) editNetworks(ctx context.Context, ref string, f func(u user, eps map[string]*dockernet.EndpointSettings) error) error {
	k, err := c.find(ref)
	if err != nil {
		return err
	}
	k.life.Lock()
	defer k.life.Unlock()
	rec := k.snapshot()
	if rec.State.Phase == removing || rec.State.Dead {
		return conflict("container %s is marked for removal and cannot be connected or disconnected to the network", k.id)
	}
	if rec.Endpoints == nil {
		rec.Endpoints = map[string]*dockernet.EndpointSettings{}
	}
	before := k.snapshot()
	if err := f(k.asUser(rec), rec.Endpoints); err != nil {
		return err
	}
	k.edit(func(r *record) { r.Endpoints = rec.Endpoints })
	if k.live() != nil {
		if err := c.rewriteEtc(k, before); err != nil {
			return err
		}
	}
	if err := c.persist(ctx, k, nil); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
