package engine

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"google.golang.org/protobuf/types/known/anypb"

	ourmount "github.com/gantryd/gantry/internal/mount"
)

// ready says that the record of a new container has its config.json, and from what
// that was made: while it is so, the first start need neither make nor write it.
// What a start changes of the record beside the spec is written soon after it; an
// engine that is killed before that finds it again (restore.go).
type ready struct {
	config *container.Config
	host   *container.HostConfig
	path   string // of the network namespace
	lower  string // the option of the layers in which users were looked up
}

// earlySpec is the spec of a container that is being made. Where it depends on what
// only the start knows, or a mistake in it is the start's to say, it is empty.
func (c *containers) earlySpec(id string, rec record, img *resolved) (*anypb.Any, *ready) {
	empty := &anypb.Any{TypeUrl: specType, Value: []byte("{}")}
	h := rec.HostConfig
	if h.NetworkMode.IsContainer() || h.NetworkMode.IsHost() || h.IpcMode.IsContainer() || h.PidMode.IsContainer() {
		return empty, nil
	}
	for _, p := range rec.Mounts {
		if p.Type == mount.TypeVolume {
			return empty, nil // it is somewhere once it is made
		}
	}
	c.mu.RLock()
	lower := c.lower[img.ChainID]
	c.mu.RUnlock()
	if lower == "" {
		return empty, nil
	}
	r := &ready{config: rec.Config, host: h, path: c.networks.path(id), lower: lower}
	layers := []ourmount.Mount{{Type: "overlay", Options: []string{lower}}}
	spec, err := c.spec(rec, id, netSandbox{Path: r.path}, layers, nil)
	if err != nil {
		return empty, nil
	}
	return spec, r
}

// noteLayers keeps, and gives, the option that names the layers of a new snapshot.
func (c *containers) noteLayers(chain string, rootfs []ourmount.Mount) string {
	if len(rootfs) != 1 {
		return ""
	}
	options := rootfs[0].Options
	i := slices.IndexFunc(options, func(o string) bool { return strings.HasPrefix(o, "lowerdir=") })
	if i < 0 {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lower) >= maxKnown {
		clear(c.lower)
	}
	c.lower[chain] = options[i]
	return options[i]
}

// isReady says whether the record has the spec of this start. It is asked once: by
// the second start the container may have changed its users.
func (k *ctr) isReady(rec record, p prepared) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.ready
	k.ready = nil
	return r != nil && r.config == rec.Config && r.host == rec.HostConfig && r.path == p.sandbox.Path && len(p.subs) == 0
}

// notReady is said of a container whose root is changed before its start.
func (k *ctr) notReady() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready = nil
}
