package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"

	"github.com/gantryd/gantry/bundle/docker"
)

// resourcesType is the type URL of the runtime spec's LinuxResources in JSON.
const resourcesType = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

// postResize is POST /containers/{id}/resize.
func (c *containers) postResize(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	height, width, err := parseSize(r)
	if err != nil {
		return err
	}
	if k.live() == nil {
		return conflict("container %s is not running", k.id)
	}
	_, err = c.ctrd.Tasks.ResizePty(r.Context(), &tasksapi.ResizePtyRequest{ContainerID: k.id, Width: width, Height: height})
	if err != nil {
		return fmt.Errorf("resize terminal of %s: %w", k.id, err)
	}
	c.publish(k, eventsapi.ActionResize, map[string]string{"height": fmt.Sprint(height), "width": fmt.Sprint(width)})
	w.WriteHeader(http.StatusOK)
	return nil
}

// postRename is POST /containers/{id}/rename.
func (c *containers) postRename(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(r.FormValue("name"), "/")
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	k.life.Lock()
	defer k.life.Unlock()
	old := k.snapshot().Name
	if old == name {
		return invalid("Renaming a container with the same name as its current name")
	}
	if err := c.reserve(name, k.id); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	k.edit(func(r *record) { r.Name = name })
	if err := c.persist(ctx, k, nil); err != nil {
		k.edit(func(r *record) { r.Name = old })
		c.release(name, k.id)
		return err
	}
	if k.live() != nil {
		rec := k.snapshot()
		if err := c.networks.renamed(ctx, k.id, name, rec.Config.Hostname, rec.Endpoints); err != nil {
			c.cfg.Log.Warn("rename", "container", k.id, "err", err)
		}
		k.edit(func(r *record) { r.Endpoints = rec.Endpoints })
	}
	c.release(old, k.id)
	c.publish(k, eventsapi.ActionRename, map[string]string{"oldName": "/" + old})
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postUpdate is POST /containers/{id}/update.
func (c *containers) postUpdate(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	var u container.UpdateConfig
	if err := readJSON(r, &u); err != nil {
		return err
	}
	k.life.Lock()
	defer k.life.Unlock()
	if err := c.update(r.Context(), k, u); err != nil {
		return err
	}
	c.publish(k, eventsapi.ActionUpdate, nil)
	return replyJSON(w, http.StatusOK, container.UpdateResponse{Warnings: []string{}})
}

// update changes the limits of k, of its task too if it runs. k.life is held.
func (c *containers) update(ctx context.Context, k *ctr, u container.UpdateConfig) error {
	rec := k.snapshot()
	if rec.State.Phase == removing {
		return conflict("container is marked for removal and cannot be \"update\"")
	}
	host := *rec.HostConfig
	if err := overlay(&host.Resources, u.Resources); err != nil {
		return err
	}
	if u.RestartPolicy.Name != "" {
		if host.AutoRemove && !u.RestartPolicy.IsNone() {
			return conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		if err := container.ValidateRestartPolicy(u.RestartPolicy); err != nil {
			return invalid("%w", err)
		}
		host.RestartPolicy = u.RestartPolicy
	}
	wishes, err := docker.Container(rec.Config, &host)
	if err != nil {
		return invalidUnlessKnown(err)
	}
	if k.live() != nil {
		res, err := specAny(resourcesType, wishes.Resources)
		if err != nil {
			return err
		}
		if _, err := c.ctrd.Tasks.Update(ctx, &tasksapi.UpdateTaskRequest{ContainerID: k.id, Resources: res}); err != nil {
			return because(errdefs.ErrUnknown, "Cannot update container %s: %w", k.id, err)
		}
	}
	k.edit(func(r *record) { r.HostConfig = &host })
	return c.persist(ctx, k, nil)
}

// overlay lays what u says over r. What u leaves at its zero value stays, and CPUs
// as a number and as period and quota exclude each other.
func overlay(r *container.Resources, u container.Resources) error {
	if u.NanoCPUs != 0 && (r.CPUPeriod != 0 || r.CPUQuota != 0) {
		return conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set")
	}
	if (u.CPUPeriod != 0 || u.CPUQuota != 0) && r.NanoCPUs != 0 {
		return conflict("Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set")
	}
	if u.Memory != 0 && u.MemorySwap == 0 && r.MemorySwap > 0 && u.Memory > r.MemorySwap {
		return conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	var fields, base map[string]json.RawMessage
	for _, x := range []struct {
		from any
		to   *map[string]json.RawMessage
	}{{u, &fields}, {r, &base}} {
		data, err := json.Marshal(x.from)
		if err != nil {
			return fmt.Errorf("update limits: %w", err)
		}
		if err := json.Unmarshal(data, x.to); err != nil {
			return fmt.Errorf("update limits: %w", err)
		}
	}
	for name, value := range fields {
		switch string(value) {
		case "0", `""`, "null", "[]":
		default:
			base[name] = value
		}
	}
	data, err := json.Marshal(base)
	if err != nil {
		return fmt.Errorf("update limits: %w", err)
	}
	return json.Unmarshal(data, r)
}
