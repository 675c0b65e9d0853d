package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"google.golang.org/grpc"

	"github.com/gantryd/gantry/engine/internal/rootfs"
)

const (
	// connectWait is how long containerd may take to come up.
	connectWait = 30 * time.Second
	// taskWait is how long one task may take to tell its state before the engine
	// goes on without it.
	taskWait = 2 * time.Second
	// askers is how many tasks are asked at the same time.
	askers = 16
)

// found is a container and what containerd says of its task.
type found struct {
	k    *ctr
	task *task.Process // nil: there is none
	late bool          // its shim does not answer
	// noSnapshot says that it has no file system: its create was cut off.
	noSnapshot bool
}

// restore makes the index from what containerd has, and goes on where the engine
// before this one left off: it waits for what runs, picks up the exits that
// nobody saw, and finishes what was half done.
func (c *containers) restore(ctx context.Context) error {
	list, stop := context.WithTimeout(ctx, connectWait)
	defer stop()
	resp, err := c.ctrd.Containers.List(list, &containersapi.ListContainersRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	if err := c.unmountRoots(); err != nil {
		return err
	}
	all := c.index(resp.Containers)
	c.ask(ctx, all)

	live := map[string]netWish{}
	for _, f := range all {
		if f.late || runsNow(f.task.GetStatus()) {
			live[f.k.id] = wish(f.k.id, f.k.snapshot())
		}
	}
	if err := c.networks.restore(ctx, live); err != nil {
		return err
	}
	c.tellHistory(all)
	for _, f := range all {
		if _, runs := live[f.k.id]; runs {
			c.regainNetwork(f.k)
		}
		c.resumeLife(f)
	}
	c.watchOOM()
	return c.sweep()
}

// regainNetwork finds what the network gave to a container whose start was made
// and its record was not.
func (c *containers) regainNetwork(k *ctr) {
	rec := k.snapshot()
	if rec.SandboxKey != "" || rec.HostConfig.NetworkMode.IsContainer() || rec.HostConfig.NetworkMode.IsHost() {
		return
	}
	sb, err := c.networks.given(wish(k.id, rec))
	if err != nil {
		c.cfg.Log.Error("the network of a running container is not known", "container", k.id, "err", err)
		return
	}
	k.edit(func(r *record) { r.SandboxKey, r.Ports, r.Endpoints = sb.Path, sb.Ports, sb.Endpoints })
	c.persistSoon(k)
}

// index makes the containers of the records; those of other clients of the
// namespace have no record of ours, and are left alone.
func (c *containers) index(list []*containersapi.Container) []*found {
	var all []*found
	for _, cc := range list {
		ext, ours := cc.Extensions[recordKey]
		if !ours {
			continue
		}
		rec, err := parseRecord(ext)
		if err != nil {
			c.cfg.Log.Error("container is not readable", "container", cc.ID, "err", err)
			continue
		}
		k := newCtr(cc.ID, rec)
		if owner, taken := c.names[rec.Name]; taken {
			// A rename that was cut off before the other's removal was.
			c.cfg.Log.Warn("name is taken twice", "name", rec.Name, "container", cc.ID, "other", owner)
			k.rec.Name = cc.ID[:min(12, len(cc.ID))]
		}
		c.names[k.rec.Name], c.byID[cc.ID] = cc.ID, k
		if err := c.seLinux.reserve(rec); err != nil { // those of --security-opt may be another's, too
			c.cfg.Log.Debug("label is not reserved", "container", cc.ID, "err", err)
		}
		all = append(all, &found{k: k})
	}
	slices.SortFunc(all, func(a, b *found) int { return a.k.created.Compare(b.k.created) })
	return all
}

// ask finds the task of each container. A shim that hangs delays nobody else.
func (c *containers) ask(ctx context.Context, all []*found) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, askers)
	for _, f := range all {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, taskWait)
			defer cancel()
			resp, err := c.ctrd.Tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: f.k.id})
			switch {
			case err == nil:
				f.task = resp.Process
			case !errdefs.IsNotFound(err):
				c.cfg.Log.Warn("task does not tell its state", "container", f.k.id, "err", err)
				f.late = true
			case f.k.snapshot().State.Phase == created:
				_, err := c.snapshotMounts(ctx, f.k.id)
				f.noSnapshot = errdefs.IsNotFound(err)
			}
		})
	}
	wg.Wait()
}

// tellHistory makes the events that the records still know of, so that a client
// that asks with since misses no exit because the engine was restarted.
func (c *containers) tellHistory(all []*found) {
	type past struct {
		k      *ctr
		at     time.Time
		action eventsapi.Action
		attrs  map[string]string
	}
	var ps []past
	for _, f := range all {
		rec := f.k.snapshot()
		ps = append(ps, past{f.k, rec.Created, eventsapi.ActionCreate, nil})
		if !rec.State.StartedAt.IsZero() {
			ps = append(ps, past{f.k, rec.State.StartedAt, eventsapi.ActionStart, nil})
		}
		if rec.State.FinishedAt.After(rec.State.StartedAt) {
			ps = append(ps, past{f.k, rec.State.FinishedAt, eventsapi.ActionDie, map[string]string{"exitCode": fmt.Sprint(rec.State.ExitCode)}})
		}
	}
	slices.SortStableFunc(ps, func(a, b past) int { return a.at.Compare(b.at) })
	for _, p := range ps {
		c.publishAt(p.k, p.at, p.action, p.attrs)
	}
}

// resumeLife brings one container on from where it is.
func (c *containers) resumeLife(f *found) {
	k := f.k
	rec := k.snapshot()
	status := task.Status_UNKNOWN
	if f.task != nil {
		status = f.task.Status
	}
	switch {
	case f.late || runsNow(status):
		c.adopt(k, f.task)
	case status == task.Status_STOPPED && !exitKept(rec, f.task):
		r := c.adoptRun(k, f.task)
		c.goroutine(func(ctx context.Context) {
			c.ended(ctx, k, r, int(f.task.ExitStatus), f.task.ExitedAt.AsTime())
		})
	case rec.State.Phase == running && !rec.HostConfig.AutoRemove: // else its end was told, and its removal cut off
		// Its task is gone without a trace: the machine was rebooted, or somebody
		// deleted it.
		r := c.adoptRun(k, nil)
		c.goroutine(func(ctx context.Context) { c.ended(ctx, k, r, exitUnknown, time.Now()) })
	case rec.State.Phase == removing || rec.HostConfig.AutoRemove || rec.State.Phase == created && !c.whole(rec, f):
		k.edit(func(r *record) { r.State.Phase = removing }) // before anybody can ask for it
		c.goroutine(func(ctx context.Context) { c.finishRemoval(ctx, k, f.task != nil) })
	default:
		c.goroutine(func(ctx context.Context) { c.rest(ctx, k, f.task != nil) })
	}
}

// exitKept says whether the record has this end of its task: the engine before this
// one was killed between writing it and deleting the task.
func exitKept(rec record, t *task.Process) bool {
	return rec.State.Phase != running && rec.State.FinishedAt.Equal(t.ExitedAt.AsTime())
}

// whole says whether a container that was never started has all that its create
// makes. Nobody was told of one that has not, and it is taken away.
func (c *containers) whole(rec record, f *found) bool {
	if f.noSnapshot {
		return false
	}
	for _, p := range rec.Mounts {
		// Its source is written down when all volumes are made and filled.
		if p.Type == mount.TypeVolume && (p.Source == "" || !c.volumes.has(p.Name)) {
			return false
		}
	}
	return true
}

// runsNow says whether a task has a program that runs. One that was made and not
// started is taken away, and with it its network.
func runsNow(s task.Status) bool {
	return s == task.Status_RUNNING || s == task.Status_PAUSED || s == task.Status_PAUSING
}

// adopt goes on watching a task that runs.
func (c *containers) adopt(k *ctr, t *task.Process) {
	r := c.adoptRun(k, t)
	if k.snapshot().State.Held {
		c.goroutine(func(ctx context.Context) { c.endHold(ctx, k) })
	}
	c.goroutine(func(ctx context.Context) { c.watch(ctx, k, r) })
	c.probe(k, r)
}

// adoptRun makes the run of a task that an engine before this one started.
func (c *containers) adoptRun(k *ctr, t *task.Process) *run {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &run{
		number: 1, started: k.rec.State.StartedAt,
		exited: make(chan struct{}), settled: make(chan struct{}), begun: make(chan struct{}),
	}
	close(r.begun)
	s := &k.rec.State
	if s.Phase != running && s.Phase != removing {
		// The start was made, and its record was not.
		s.StartedAt, s.Error, s.Stopped = time.Now(), "", false
		r.started = s.StartedAt
		s.Phase = running
		k.rec.Health = freshHealth(k.rec.Config)
	}
	if t != nil {
		r.pid = int(t.Pid)
		s.Paused = !s.Held && (t.Status == task.Status_PAUSED || t.Status == task.Status_PAUSING)
	}
	k.run = r
	return r
}

// endHold lets a container go on that a commit held when the engine was killed.
func (c *containers) endHold(ctx context.Context, k *ctr) {
	if err := c.letGo(ctx, k); err != nil {
		c.cfg.Log.Warn("container is left paused", "container", k.id, "err", err)
		k.edit(func(r *record) { r.State.Paused = true })
	}
}

// finishRemoval ends what a removal, or a start of a container that is removed at
// its end, left.
func (c *containers) finishRemoval(ctx context.Context, k *ctr, task bool) {
	if task {
		if err := c.deleteTask(ctx, k.id); err != nil {
			c.cfg.Log.Warn("task is left", "container", k.id, "err", err)
		}
	}
	if err := c.erase(ctx, k, removal{volumes: true}); err != nil {
		c.cfg.Log.Warn("container is left", "container", k.id, "err", err)
		k.edit(func(r *record) { r.State.Dead = true })
		return
	}
	c.depart(k)
}

// rest is for a container that does not run: a task that was never started is
// taken away, and the policy decides whether it is started now.
func (c *containers) rest(ctx context.Context, k *ctr, task bool) {
	if task {
		if err := c.deleteTask(ctx, k.id); err != nil {
			c.cfg.Log.Warn("task is left", "container", k.id, "err", err)
		}
	}
	rec := k.snapshot()
	p := rec.HostConfig.RestartPolicy
	again := rec.State.Phase == restarting || rec.State.Phase == exited && (p.IsAlways() || p.IsUnlessStopped() && !rec.State.Stopped)
	if !again {
		return
	}
	k.edit(func(r *record) { r.State.Phase = restarting })
	c.startAgain(ctx, k)
}

// unmountRoots takes away what was mounted for a moment when the engine was killed.
func (c *containers) unmountRoots() error {
	dir := filepath.Join(c.cfg.State, "roots")
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, n := range names {
		err = errors.Join(err, rootfs.Unmount(filepath.Join(dir, n.Name())))
	}
	return err
}

// sweep removes files of containers that are no more.
func (c *containers) sweep() error {
	var errs error
	for _, dir := range []string{
		filepath.Join(c.cfg.Root, "containers"), filepath.Join(c.cfg.State, "a"), filepath.Join(c.cfg.State, "fifo"),
	} {
		names, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			errs = errors.Join(errs, err)
		}
		for _, n := range names {
			if _, err := c.find(n.Name()); errdefs.IsNotFound(err) {
				errs = errors.Join(errs, os.RemoveAll(filepath.Join(dir, n.Name())))
			}
		}
	}
	return errs
}
