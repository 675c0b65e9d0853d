package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
)

const (
	// killTime is how long a killed task may take to be gone.
	killTime = 10 * time.Second
	// exitUnknown is the exit code of a task whose end nobody saw.
	exitUnknown = 255
)

// watch waits for the exit of r, and does what follows from it.
func (c *containers) watch(ctx context.Context, k *ctr, r *run) {
	code, at, err := c.awaitExit(ctx, k.id)
	if ctx.Err() != nil {
		return // the next engine picks the exit up
	}
	<-r.begun
	if r.over() {
		return // its start failed, and was cleaned up there
	}
	if err != nil {
		c.cfg.Log.Error("exit is not known", "container", k.id, "err", err)
		code, at = exitUnknown, time.Now()
	}
	c.ended(ctx, k, r, code, at)
}

// awaitExit asks until containerd answers; it may be restarted meanwhile.
func (c *containers) awaitExit(ctx context.Context, id string) (code int, at time.Time, err error) {
	for {
		resp, err := c.ctrd.Tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id})
		if err == nil {
			return int(resp.ExitStatus), resp.ExitedAt.AsTime(), nil
		}
		if !errdefs.IsUnavailable(err) && !errdefs.IsInternal(err) && !errdefs.IsUnknown(err) || ctx.Err() != nil {
			return 0, time.Time{}, fmt.Errorf("wait for task %s: %w", id, err)
		}
		select {
		case <-ctx.Done():
			return 0, time.Time{}, ctx.Err()
		case <-time.After(awaitAgain):
		}
	}
}

// awaitAgain is how long to wait before asking a containerd that was away.
const awaitAgain = 50 * time.Millisecond

// ended is what follows from the exit of r: those who wait are told first, then
// the task and its network are taken apart, and then the container is started
// again, or removed, if it asked for that.
func (c *containers) ended(ctx context.Context, k *ctr, r *run, code int, at time.Time) {
	next, delay := c.exit(k, r, code, at)
	attrs := map[string]string{"exitCode": strconv.Itoa(code)}
	if !r.started.IsZero() {
		attrs["execDuration"] = strconv.Itoa(int(at.Sub(r.started).Seconds()))
	}
	c.publishAt(k, at, eventsapi.ActionDie, attrs)
	if next == thenRemove {
		// Its ports and volumes are free when the removal is told; the rest goes on
		// behind it.
		if err := c.giveBack(ctx, k); err != nil {
			c.cfg.Log.Warn("network or volumes are left", "container", k.id, "err", err)
		}
		c.depart(k)
	}
	c.settleRun(k, r, next)
	switch next {
	case thenRemove:
		if err := c.erase(ctx, k, removal{volumes: true}); err != nil {
			c.cfg.Log.Error("remove", "container", k.id, "err", err)
		}
	case thenRestart:
		c.restartAfter(k, delay)
	}
}

// giveBack frees what others may want as soon as k is gone: its ports, its
// mounts of volumes, and the anonymous volumes. Nobody finds k from here on.
func (c *containers) giveBack(ctx context.Context, k *ctr) error {
	err := errors.Join(c.networks.down(ctx, k.id), c.unmountVolumes(ctx, k))
	c.forget(k)
	return errors.Join(err, c.eraseVolumes(ctx, k, removal{volumes: true}))
}

// what follows the exit of a task.
type sequel int

const (
	thenStop sequel = iota
	thenRestart
	thenRemove
)

// exit keeps the exit in k's state, and tells who waits for it.
func (c *containers) exit(k *ctr, r *run, code int, at time.Time) (next sequel, delay time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r.code, r.at = code, at
	s := &k.rec.State
	s.Paused, s.ExitCode, s.FinishedAt, s.Phase = false, code, at, exited
	ran := at.Sub(s.StartedAt)
	switch {
	case k.rec.State.Dead:
	case k.rec.HostConfig.AutoRemove && !k.leaving:
		next, s.Phase = thenRemove, removing
	case !k.leaving && c.life.Err() == nil && shouldRestart(k.rec.HostConfig.RestartPolicy, *s):
		next, s.Phase = thenRestart, restarting
		delay = k.backoff.next(ran)
		s.RestartCount++
	}
	if h := k.rec.Health; h != nil {
		// Nobody looks any more; clients know it by this word.
		k.rec.Health = &container.Health{Status: container.Unhealthy, FailingStreak: h.FailingStreak, Log: h.Log}
	}
	close(r.exited)
	k.wake()
	return next, delay
}

// settleRun takes the task of r apart. Its exit is on disk before the task, which
// is its only other witness, is deleted.
func (c *containers) settleRun(k *ctr, r *run, next sequel) {
	defer close(r.settled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), killTime)
	defer cancel()
	log := c.cfg.Log.With("container", k.id)
	c.execs.forget(k.id)
	if next != thenRemove {
		if err := c.networks.down(ctx, k.id); err != nil {
			log.Warn("network is left", "err", err)
		}
		k.edit(func(r *record) {
			r.SandboxKey, r.Ports = "", nil
			for _, ep := range r.Endpoints {
				clearEndpoint(ep)
			}
		})
		if err := c.persist(ctx, k, nil); err != nil {
			log.Error("exit is not on disk", "err", err)
			return // the task stays, and with it the exit, for the next engine
		}
	}
	if err := c.deleteTask(ctx, k.id); err != nil {
		log.Warn("task is left", "err", err)
	}
	if err := os.RemoveAll(c.fifoDir(k.id)); err != nil {
		log.Warn("fifos are left", "err", err)
	}
	if err := c.unmountVolumes(ctx, k); err != nil {
		log.Warn("volumes are left", "err", err)
	}
}

// deleteTask deletes the task, killing what runs; no task is no error.
func (c *containers) deleteTask(ctx context.Context, id string) error {
	_, err := c.ctrd.Tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	if errdefs.IsFailedPrecondition(err) {
		kill := &tasksapi.KillRequest{ContainerID: id, Signal: 9, All: true}
		if _, kerr := c.ctrd.Tasks.Kill(ctx, kill); kerr != nil && !errdefs.IsNotFound(kerr) {
			return errors.Join(err, kerr)
		}
		if _, werr := c.ctrd.Tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id}); werr != nil && !errdefs.IsNotFound(werr) {
			return errors.Join(err, werr)
		}
		_, err = c.ctrd.Tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", id, err)
	}
	return nil
}
