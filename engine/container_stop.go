package engine

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// stopTime is how long a container that says nothing has to stop by itself.
const stopTime = 10 * time.Second

// postStop is POST /containers/{id}/stop.
func (c *containers) postStop(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	how, err := parseStop(r, k)
	if err != nil {
		return err
	}
	if k.cancelRestart() {
		k.edit(func(r *record) { r.State.Stopped = true })
		c.persistSoon(k)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if k.live() == nil {
		return because(errdefs.ErrNotModified, "container %s is already stopped", k.id)
	}
	if err := c.stop(context.WithoutCancel(r.Context()), k, how); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postRestart is POST /containers/{id}/restart.
func (c *containers) postRestart(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	how, err := parseStop(r, k)
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	k.life.Lock()
	defer k.life.Unlock()
	k.cancelRestart()
	if k.live() != nil {
		// A restart is no removal: --rm waits for the end of the next life.
		k.setLeaving(true)
		err := c.stop(ctx, k, how)
		k.setLeaving(false)
		if err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	k.edit(func(r *record) { r.State.Stopped, r.State.RestartCount = false, 0 })
	if err := c.start(ctx, k, nil); err != nil {
		return err
	}
	c.publish(k, eventsapi.ActionRestart, nil)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// stopping is how to stop a container.
type stopping struct {
	signal unix.Signal
	time   time.Duration // until it is killed; below 0 is never
}

// parseStop reads t (seconds, -1 for ever) and signal, with the container's own
// words where they are missing.
func parseStop(r *http.Request, k *ctr) (stopping, error) {
	cfg := k.snapshot().Config
	how := stopping{unix.SIGTERM, stopTime}
	if cfg.StopTimeout != nil {
		how.time = time.Duration(*cfg.StopTimeout) * time.Second
	}
	name := r.FormValue("signal")
	if name == "" {
		name = cfg.StopSignal
	}
	if name != "" {
		sig, err := parseSignal(name)
		if err != nil {
			return how, err
		}
		how.signal = sig
	}
	if t := r.FormValue("t"); t != "" {
		n, err := strconv.Atoi(t)
		if err != nil {
			return how, invalid("invalid t %q: want a number of seconds", t)
		}
		how.time = time.Duration(n) * time.Second
	}
	return how, nil
}

// parseSignal reads "9", "KILL", "SIGKILL" or "RTMIN+3".
func parseSignal(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n <= 0 || n > 64 {
			return 0, invalid("invalid signal: %s", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for _, rt := range []struct {
		base string
		num  int
		sign int
	}{{"RTMIN", 34, 1}, {"RTMAX", 64, -1}} {
		rest, ok := strings.CutPrefix(name, rt.base)
		if !ok {
			continue
		}
		n, err := strconv.Atoi(strings.TrimLeft(rest, "+-"))
		if rest == "" {
			n, err = 0, nil
		}
		if err == nil && n <= 30 {
			return unix.Signal(rt.num + rt.sign*n), nil
		}
	}
	return 0, invalid("invalid signal: %s", s)
}

// stop asks the container to stop, kills it when its time is over, and returns
// when it has stopped. A paused one is thawed, or the signal would wait.
func (c *containers) stop(ctx context.Context, k *ctr, how stopping) error {
	r := k.live()
	if r == nil {
		return nil
	}
	k.edit(func(r *record) { r.State.Stopped = true })
	if err := c.signal(ctx, k, how.signal); err != nil && !ending(err) {
		return err
	}
	if err := c.thaw(ctx, k); err != nil {
		return err
	}
	if how.time >= 0 {
		timer := time.NewTimer(how.time)
		defer timer.Stop()
		select {
		case <-r.exited:
		case <-timer.C:
			if err := c.killNow(ctx, k, r); err != nil {
				return err
			}
		}
	}
	if err := wait(ctx, r.settled); err != nil {
		return err
	}
	c.publish(k, eventsapi.ActionStop, nil)
	return nil
}

// killNow kills k and waits for its end.
func (c *containers) killNow(ctx context.Context, k *ctr, r *run) error {
	if err := c.signal(ctx, k, unix.SIGKILL); err != nil && !ending(err) {
		return err
	}
	if err := c.thaw(ctx, k); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	if err := wait(ctx, r.exited); err != nil {
		return fmt.Errorf("tried to kill container, but did not receive an exit event within %s: container %s, PID %d", killTime, k.id, r.pid)
	}
	return nil
}

// thaw lets a paused container act on a signal. Some shims have thawed it
// themselves by now, and it may have ended.
func (c *containers) thaw(ctx context.Context, k *ctr) error {
	if !k.snapshot().State.Paused {
		return nil
	}
	err := c.resume(ctx, k)
	if errdefs.IsFailedPrecondition(err) || ending(err) {
		return nil
	}
	return err
}

// ending says whether err means that the container has ended, or that its shim has,
// and with it the container: its exit is to be waited for.
func ending(err error) bool { return errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) }

// signal sends sig to the container's first process.
func (c *containers) signal(ctx context.Context, k *ctr, sig unix.Signal) error {
	_, err := c.ctrd.Tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: k.id, Signal: uint32(sig)})
	if err != nil {
		return fmt.Errorf("send signal %d to container %s: %w", sig, k.id, err)
	}
	c.publish(k, eventsapi.ActionKill, map[string]string{"signal": strconv.Itoa(int(sig))})
	return nil
}

// postKill is POST /containers/{id}/kill.
func (c *containers) postKill(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	sig := unix.SIGKILL
	if s := r.FormValue("signal"); s != "" {
		if sig, err = parseSignal(s); err != nil {
			return err
		}
	}
	if k.cancelRestart() {
		k.edit(func(r *record) { r.State.Stopped = true })
		c.persistSoon(k)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	life := k.live()
	if life == nil {
		return conflict("cannot kill container: %s: container %s is not running", r.PathValue("id"), k.id)
	}
	own := unix.SIGTERM
	if s, err := parseSignal(k.snapshot().Config.StopSignal); err == nil {
		own = s
	}
	if sig == unix.SIGKILL || sig == own {
		k.edit(func(r *record) { r.State.Stopped = true })
	}
	ctx := context.WithoutCancel(r.Context())
	if sig == unix.SIGKILL {
		err = c.killNow(ctx, k, life)
	} else {
		err = c.signal(ctx, k, sig)
	}
	if errdefs.IsNotFound(err) {
		return conflict("cannot kill container: %s: container %s is not running", r.PathValue("id"), k.id)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postPause is POST /containers/{id}/pause.
func (c *containers) postPause(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if k.live() == nil {
		return conflict("container %s is not running", k.id)
	}
	if k.snapshot().State.Paused {
		return conflict("container %s is already paused", k.id)
	}
	if _, err := c.ctrd.Tasks.Pause(r.Context(), &tasksapi.PauseTaskRequest{ContainerID: k.id}); err != nil {
		return fmt.Errorf("cannot pause container %s: %w", k.id, err)
	}
	k.edit(func(r *record) { r.State.Paused = true })
	c.publish(k, eventsapi.ActionPause, nil)
	c.persistSoon(k)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// postUnpause is POST /containers/{id}/unpause.
func (c *containers) postUnpause(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if !k.snapshot().State.Paused {
		return conflict("container %s is not paused", k.id)
	}
	if err := c.resume(r.Context(), k); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *containers) resume(ctx context.Context, k *ctr) error {
	if _, err := c.ctrd.Tasks.Resume(ctx, &tasksapi.ResumeTaskRequest{ContainerID: k.id}); err != nil {
		return fmt.Errorf("cannot unpause container %s: %w", k.id, err)
	}
	k.edit(func(r *record) { r.State.Paused = false })
	c.publish(k, eventsapi.ActionUnPause, nil)
	c.persistSoon(k)
	return nil
}
