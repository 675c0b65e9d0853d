package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/bundle/docker"
)

// recordKey is the extension of a containerd container that has what Docker
// knows of it. Its value is JSON under a type URL of the same name.
const recordKey = "gantry.engine/container"

// record is what Docker knows of a container beyond containerd's words. A copy
// shares Config and HostConfig, which are replaced and never changed.
type record struct {
	Name       string // without slash
	Created    time.Time
	Image      string // as the user named it
	ImageID    digest.Digest
	Manifest   *ocispec.Descriptor `json:",omitempty"`
	Config     *container.Config
	HostConfig *container.HostConfig
	Runtime    string // containerd's name of it
	// The labels of SELinux, "" without.
	ProcessLabel string `json:",omitempty"`
	MountLabel   string `json:",omitempty"`
	// Endpoints are the networks wished for; while the container runs, with what
	// each network gave. SandboxKey and Ports are the same of the sandbox.
	Endpoints  map[string]*dockernet.EndpointSettings
	SandboxKey string            `json:",omitempty"`
	Ports      dockernet.PortMap `json:",omitempty"`
	Mounts     []docker.Point    `json:",omitempty"`
	LogPath    string            `json:",omitempty"`
	State      state
	Health     *container.Health `json:",omitempty"`
}

// state is where a container is in its life, as far as it must outlive the engine.
type state struct {
	Phase        phase
	Paused       bool      `json:",omitempty"`
	StartedAt    time.Time `json:",omitzero"`
	FinishedAt   time.Time `json:",omitzero"`
	ExitCode     int       `json:",omitempty"`
	Error        string    `json:",omitempty"`
	OOMKilled    bool      `json:",omitempty"`
	RestartCount int       `json:",omitempty"`
	// Held says that a commit holds it still: an engine that finds it so lets it go on.
	Held bool `json:",omitempty"`
	// Stopped says that a user stopped it, so that unless-stopped leaves it so.
	Stopped bool `json:",omitempty"`
	Dead    bool `json:",omitempty"`
}

// phase is a container's place in its life.
type phase string

// The phases. A container is made created, and running while it has a task; a
// restarting one waits for its policy's next start.
const (
	created    phase = "created"
	running    phase = "running"
	restarting phase = "restarting"
	exited     phase = "exited"
	removing   phase = "removing"
)

// status is the one word for it in the API.
func (r *record) status() container.ContainerState {
	switch {
	case r.State.Dead:
		return container.StateDead
	case r.State.Paused:
		return container.StatePaused
	}
	return container.ContainerState(r.State.Phase)
}

// clone copies what may be changed in place.
func (r record) clone() record {
	r.Endpoints = maps.Clone(r.Endpoints)
	for name, ep := range r.Endpoints {
		r.Endpoints[name] = ep.Copy()
	}
	return r
}

func (r *record) any() (*anypb.Any, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	return &anypb.Any{TypeUrl: recordKey, Value: data}, nil
}

func parseRecord(a *anypb.Any) (record, error) {
	var r record
	if err := json.Unmarshal(a.GetValue(), &r); err != nil {
		return record{}, fmt.Errorf("decode record: %w", err)
	}
	return r, nil
}

// persist writes k's record, and spec where it is not nil, to containerd.
func (c *containers) persist(ctx context.Context, k *ctr, spec *anypb.Any) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	rec := k.snapshot()
	ext, err := rec.any()
	if err != nil {
		return err
	}
	req := &containersapi.UpdateContainerRequest{
		Container: &containersapi.Container{
			ID: k.id, Spec: spec,
			Extensions: map[string]*anypb.Any{recordKey: ext},
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"extensions." + recordKey}},
	}
	if spec != nil {
		req.UpdateMask.Paths = append(req.UpdateMask.Paths, "spec")
	}
	if _, err := c.ctrd.Containers.Update(ctx, req); err != nil {
		return fmt.Errorf("keep record of container %s: %w", k.id, err)
	}
	return nil
}

// persistDelay is how long a change that no answer promises may wait, so that
// several make one write, and a container that is removed at its end none.
const persistDelay = 100 * time.Millisecond

// persistSoon writes k's record before long.
func (c *containers) persistSoon(k *ctr) {
	if !k.dirty.CompareAndSwap(false, true) {
		return
	}
	c.goroutine(func(ctx context.Context) {
		select {
		case <-time.After(persistDelay):
		case <-ctx.Done():
		}
		k.dirty.Store(false)
		if k.gone() {
			return
		}
		// The engine's end must not lose it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
		defer cancel()
		if err := c.persist(ctx, k, nil); err != nil && !k.gone() {
			c.cfg.Log.Warn("state is not on disk", "container", k.id, "err", err)
		}
	})
}
