package engine

import (
	"context"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
)

// removal is how to remove a container.
type removal struct {
	force   bool // kill it if it runs
	volumes bool // its anonymous volumes too
}

// delete is DELETE /containers/{id}.
func (c *containers) delete(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if boolValue(r, "link") {
		return invalid("legacy links are not supported")
	}
	how := removal{force: boolValue(r, "force"), volumes: boolValue(r, "v")}
	if err := c.remove(context.WithoutCancel(r.Context()), k, how); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// remove stops k if it may, and takes everything of it away.
func (c *containers) remove(ctx context.Context, k *ctr, how removal) error {
	if how.force {
		if err := c.killForRemoval(ctx, k); err != nil {
			return err
		}
		defer k.setLeaving(false)
	}
	k.life.Lock()
	defer k.life.Unlock()
	if r := k.live(); how.force && r != nil { // its policy was just starting it
		if err := c.killNow(ctx, k, r); err != nil {
			return err
		}
	}
	if err := c.markRemoving(k); err != nil {
		return err
	}
	_, last, _ := k.now()
	if last != nil {
		if err := wait(ctx, last.settled); err != nil {
			return err
		}
	}
	if err := c.erase(ctx, k, how); err != nil {
		k.edit(func(r *record) { r.State.Phase, r.State.Dead = exited, true })
		return err
	}
	c.depart(k)
	return nil
}

// killForRemoval ends what runs. It may not wait for k.life: a start that hangs
// holds it.
func (c *containers) killForRemoval(ctx context.Context, k *ctr) error {
	k.setLeaving(true)
	k.cancelRestart()
	if r := k.live(); r != nil {
		return c.killNow(ctx, k, r)
	}
	return nil
}

// setLeaving says whether k's exit leads to nothing else.
func (k *ctr) setLeaving(leaving bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaving = leaving
}

// markRemoving makes k one that is being removed, if it can be.
func (c *containers) markRemoving(k *ctr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.rec.State
	name := "/" + k.rec.Name
	switch {
	case s.Phase == removing:
		return conflict("removal of container %s is already in progress", k.id)
	case s.Paused:
		return conflict("cannot remove container %q: container is paused and must be unpaused first", name)
	case s.Phase == running || s.Phase == restarting:
		return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", name, s.Phase)
	}
	s.Phase = removing
	k.wake()
	return nil
}

// depart makes k unknown, and tells.
func (c *containers) depart(k *ctr) {
	c.forget(k)
	c.dropPending(k)
	c.publish(k, eventsapi.ActionDestroy, nil)
	close(k.removed)
}

// postPrune is POST /containers/prune.
func (c *containers) postPrune(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	var until time.Time
	for _, v := range f.values("until") {
		if until, err = pruneUntil(v, time.Now()); err != nil {
			return err
		}
	}
	report := container.PruneReport{ContainersDeleted: []string{}}
	for _, k := range c.all() {
		rec := k.snapshot()
		if rec.State.Phase == running || rec.State.Phase == restarting ||
			!until.IsZero() && rec.Created.After(until) ||
			!f.labels("label", rec.Config.Labels) || !f.notLabels("label!", rec.Config.Labels) {
			continue
		}
		size, err := c.usage(r.Context(), k.id)
		if err != nil {
			c.cfg.Log.Warn("size of container", "container", k.id, "err", err)
		}
		if err := c.remove(r.Context(), k, removal{}); err != nil {
			c.cfg.Log.Warn("prune", "container", k.id, "err", err)
			continue
		}
		report.ContainersDeleted = append(report.ContainersDeleted, k.id)
		report.SpaceReclaimed += uint64(size)
	}
	c.events.publish(eventsapi.ContainerEventType, eventsapi.ActionPrune, "", map[string]string{
		"reclaimed": formatUint(report.SpaceReclaimed),
	})
	return replyJSON(w, http.StatusOK, report)
}
