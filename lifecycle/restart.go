package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	api "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/metadata"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// The labels of a container that is to be kept running, or stopped
// (containerd, core/runtime/restart).
const (
	labelStatus  = "containerd.io/restart.status" // running, stopped
	labelPolicy  = "containerd.io/restart.policy"
	labelCount   = "containerd.io/restart.count"
	labelLog     = "containerd.io/restart.loguri"
	labelStopped = "containerd.io/restart.explicitly-stopped"
)

// restartPolicies are what labelPolicy may say; none means always.
var restartPolicies = []string{"no", "always", "on-failure", "unless-stopped"}

// restartWait is how long one container may be worked on at a time.
const restartWait = time.Minute

// restarts is containerd's restart monitor: it looks from time to time at the
// containers whose labels say what their task is to be, and makes it so.
type restarts struct {
	db    *meta.DB
	tasks *tasks
	every time.Duration
	log   *slog.Logger
	// What the last look left, by namespace and id: tasks that were created and not
	// started, whose maker has until the next look; and containers that could not be
	// started, whose task is gone, but was no success.
	created, failed map[[2]string]bool
}

// run looks until ctx ends. What it is about then it finishes.
func (r *restarts) run(ctx context.Context) {
	r.forgive()
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		r.look(context.WithoutCancel(ctx))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// forgive has containers that are to run always run again, also if they were
// stopped on purpose before the daemon started.
func (r *restarts) forgive() {
	r.each(func(ns, id string, labels map[string]string) {
		stopped, _ := strconv.ParseBool(labels[labelStopped])
		if policy := labels[labelPolicy]; !stopped || policy != "" && policy != "always" {
			return
		}
		if err := r.label(ns, id, labelStopped, "false"); err != nil {
			r.log.Error("restart", "namespace", ns, "container", id, "err", err)
		}
	})
}

// each calls fn for every container that has a wanted status.
func (r *restarts) each(fn func(ns, id string, labels map[string]string)) {
	spaces, err := r.db.Namespaces().List()
	if err != nil {
		r.log.Error("look for containers to restart", "err", err)
		return
	}
	for _, ns := range spaces {
		for id, labels := range r.db.Containers(ns.Name).Labelled(labelStatus) {
			fn(ns.Name, id, labels)
		}
	}
}

func (r *restarts) label(ns, id, key, value string) error {
	next := &containersapi.Container{ID: id, Labels: map[string]string{key: value}}
	_, err := r.db.Containers(ns).Update(next, []string{"labels." + key})
	return err
}

// look sees to all containers at once.
func (r *restarts) look(ctx context.Context) {
	var (
		work   sync.WaitGroup
		mu     sync.Mutex // guards failed
		failed = map[[2]string]bool{}
	)
	created := map[[2]string]bool{}
	r.each(func(ns, id string, labels map[string]string) {
		key := [2]string{ns, id}
		ctx := metadata.NewIncomingContext(ctx, metadata.Pairs(namespaceHeader, ns))
		p, err := r.process(ctx, id)
		if err != nil {
			r.log.Warn("restart", "namespace", ns, "container", id, "err", err)
			return
		}
		if p.GetStatus() == task.Status_CREATED && !r.created[key] {
			created[key] = true
			return
		}
		exit := p.GetExitStatus()
		if r.failed[key] {
			exit = max(exit, 1)
		}
		do := r.due(p, exit, labels)
		if do == nil {
			return
		}
		work.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, restartWait)
			defer cancel()
			if err := do(ctx, ns, id, labels); err != nil {
				r.log.Error("restart", "namespace", ns, "container", id, "err", err)
				mu.Lock()
				failed[key] = true
				mu.Unlock()
			}
		})
	})
	work.Wait()
	r.created, r.failed = created, failed
}

// process is the task's first process, nil where there is no task.
func (r *restarts) process(ctx context.Context, id string) (*task.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, stateWait)
	defer cancel()
	resp, err := r.tasks.Get(ctx, &api.GetRequest{ContainerID: id})
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	return resp.GetProcess(), err
}

// change is what is done to the task of one container.
type change func(ctx context.Context, ns, id string, labels map[string]string) error

// due is the change that a task needs, nil for none.
func (r *restarts) due(p *task.Process, exit uint32, labels map[string]string) change {
	switch labels[labelStatus] {
	case "stopped":
		if p != nil && p.Status != task.Status_STOPPED {
			return r.stop
		}
	case "running":
		if p != nil && p.Status != task.Status_STOPPED && p.Status != task.Status_CREATED {
			return nil // it runs, or is paused, or nobody knows
		}
		if wantsRestart(exit, labels) {
			return r.start
		}
	}
	return nil
}

// wantsRestart says whether the policy is to start a task that ended so. Of one that
// was deleted since, nobody knows how it ended: that is no failure.
func wantsRestart(exit uint32, labels map[string]string) bool {
	if stopped, _ := strconv.ParseBool(labels[labelStopped]); stopped {
		return false
	}
	policy, most, limited := strings.Cut(labels[labelPolicy], ":")
	switch policy {
	case "", "always", "unless-stopped":
		return !limited
	case "on-failure":
		n, err := strconv.Atoi(most)
		if limited && err != nil || exit == 0 {
			return false
		}
		count, _ := strconv.Atoi(labels[labelCount])
		return n == 0 || count < n
	}
	return false
}

// start makes the task anew, with its output where the label says.
func (r *restarts) start(ctx context.Context, ns, id string, labels map[string]string) (err error) {
	count, _ := strconv.Atoi(labels[labelCount])
	if err := r.label(ns, id, labelCount, strconv.Itoa(count+1)); err != nil {
		return err
	}
	if err := r.end(ctx, id); err != nil {
		return err
	}
	req, err := r.request(ctx, ns, id, labels[labelLog])
	if err != nil {
		return err
	}
	if _, err := r.tasks.Create(ctx, req); err != nil {
		return fmt.Errorf("create task %s: %w", id, err)
	}
	if _, err := r.tasks.Start(ctx, &api.StartRequest{ContainerID: id}); err != nil {
		return errors.Join(fmt.Errorf("start task %s: %w", id, err), r.end(context.WithoutCancel(ctx), id))
	}
	return nil
}

// request is what a client would ask to have the container's task made.
func (r *restarts) request(ctx context.Context, ns, id, output string) (*api.CreateTaskRequest, error) {
	c, err := r.db.Containers(ns).Get(id)
	if err != nil {
		return nil, err
	}
	var spec struct {
		Process struct{ Terminal bool }
	}
	if err := json.Unmarshal(c.Spec.GetValue(), &spec); err != nil {
		return nil, fmt.Errorf("read spec of container %s: %w", id, err)
	}
	req := &api.CreateTaskRequest{ContainerID: id, Stdout: output, Terminal: spec.Process.Terminal}
	switch {
	case !req.Terminal:
		req.Stderr = output
	case output == "":
		req.Stdout = "file:///dev/null" // a terminal has to have somebody that reads it
	}
	if c.SnapshotKey == "" {
		return req, nil
	}
	sn, err := r.db.Snapshots(meta.Scope{Namespace: ns}, c.Snapshotter)
	if err != nil {
		return nil, err
	}
	mounts, err := sn.Mounts(ctx, c.SnapshotKey)
	req.Rootfs = mountsToAPI(mounts)
	return req, err
}

func (r *restarts) stop(ctx context.Context, _, id string, _ map[string]string) error {
	return r.end(ctx, id)
}

// end kills and deletes a task, if there is one.
func (r *restarts) end(ctx context.Context, id string) error {
	_, err := r.tasks.Kill(ctx, &api.KillRequest{ContainerID: id, Signal: uint32(unix.SIGKILL), All: true})
	if err == nil {
		_, err = r.tasks.Wait(ctx, &api.WaitRequest{ContainerID: id})
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("kill task %s: %w", id, err)
	}
	// NotFound is also said of a process that has ended.
	if _, err := r.tasks.Delete(ctx, &api.DeleteTaskRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete task %s: %w", id, err)
	}
	return nil
}
