package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/mount"
)

// startTime bounds a start: a shim that hangs must not hold the container for ever.
const startTime = 2 * time.Minute

// postStart is POST /containers/{id}/start.
func (c *containers) postStart(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if r.FormValue("checkpoint") != "" {
		return because(errdefs.ErrNotImplemented, "checkpoint is not supported")
	}
	j := c.journal(r, k.id)
	defer j.step("POST /containers/start")()
	// A start that began goes on when its client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), startTime)
	defer cancel()
	k.life.Lock()
	k.edit(func(r *record) { r.State.Stopped, r.State.RestartCount = false, 0 })
	err = c.start(ctx, k, j)
	k.life.Unlock()
	if err != nil {
		return c.afterFailedStart(ctx, k, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// afterFailedStart removes what asked to be removed at its end.
func (c *containers) afterFailedStart(ctx context.Context, k *ctr, err error) error {
	if k.snapshot().HostConfig.AutoRemove && !errdefs.IsNotModified(err) && k.live() == nil {
		return errors.Join(err, c.remove(ctx, k, removal{volumes: true}))
	}
	return err
}

// start makes the task of k and starts it, or leaves nothing behind but the error
// in k's state. k.life is held.
func (c *containers) start(ctx context.Context, k *ctr, j *journal) (err error) {
	if err := startable(k); err != nil {
		return err
	}
	if _, last, _ := k.now(); last != nil {
		if err := wait(ctx, last.settled); err != nil {
			return fmt.Errorf("wait for the end of the last task of %s: %w", k.id, err)
		}
	}
	r := k.begin()
	defer close(r.begun)
	defer errs.Undo(&err, func() error { c.failed(k, r, err); return nil })

	p, err := c.prepareStart(ctx, k, j)
	if err != nil {
		return err
	}
	defer func() {
		if err := p.subs.close(); err != nil {
			c.cfg.Log.Warn("subpaths of volumes are left", "container", k.id, "err", err)
		}
	}()
	defer errs.Undo(&err, func() error {
		return errors.Join(c.networks.down(ctx, k.id), c.unmountVolumes(ctx, k))
	})

	done := j.step("write config.json and record")
	rec := k.snapshot()
	if !k.isReady(rec, p) {
		spec, err := c.spec(rec, k.id, p.sandbox, p.rootfs, p.subs)
		if err != nil {
			return err
		}
		if err := c.persist(ctx, k, spec); err != nil {
			return err
		}
	}
	done()
	if err := c.createTask(ctx, k, r, rec, p.rootfs, j); err != nil {
		return err
	}
	defer errs.Undo(&err, func() error { return c.discardTask(k) })
	c.goroutine(func(ctx context.Context) { c.watch(ctx, k, r) })
	c.connectPending(k, j)

	done = j.step("tasks.Start")
	if _, err := c.ctrd.Tasks.Start(j.grpc(ctx), &tasksapi.StartRequest{ContainerID: k.id}, j.trailer()); err != nil {
		return explainStart(err)
	}
	done()
	c.started(k, r)
	return nil
}

// startable says why k cannot be started now.
func startable(k *ctr) error {
	rec := k.snapshot()
	switch {
	case rec.State.Paused:
		return conflict("cannot start a paused container, try unpause instead")
	case rec.State.Phase == running:
		return because(errdefs.ErrNotModified, "container %s is already running", k.id)
	case rec.State.Phase == removing:
		return conflict("container is marked for removal and cannot be started")
	case rec.State.Dead:
		return conflict("container is dead and cannot be started")
	}
	return nil
}

// begin makes the next life of k.
func (k *ctr) begin() *run {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 1
	if k.run != nil {
		n = k.run.number + 1
	}
	if k.restart != nil {
		k.restart.Stop()
		k.restart = nil
	}
	return &run{
		number: n, exited: make(chan struct{}), settled: make(chan struct{}), begun: make(chan struct{}),
	}
}

// prepared is what a start stands on.
type prepared struct {
	sandbox netSandbox
	rootfs  []mount.Mount
	subs    held
}

// prepareStart makes the network, while it finds the mounts and writes the files.
func (c *containers) prepareStart(ctx context.Context, k *ctr, j *journal) (_ prepared, err error) {
	var p prepared
	rec := k.snapshot()
	type network struct {
		sb  netSandbox
		err error
	}
	made := make(chan network, 1)
	go func() {
		defer j.step("make network sandbox")()
		sb, err := c.sandbox(ctx, k.id, rec)
		made <- network{sb, err}
	}()
	p.rootfs, p.subs, err = c.prepareRootfs(ctx, k, rec)
	n := <-made
	if n.err == nil {
		defer errs.Undo(&err, func() error { return c.networks.down(ctx, k.id) })
	}
	if err == nil {
		defer errs.Undo(&err, func() error {
			return errors.Join(p.subs.close(), c.unmountVolumes(ctx, k))
		})
	}
	if err := errors.Join(n.err, err); err != nil {
		return prepared{}, err
	}
	p.sandbox = n.sb
	if err := c.writeEtc(k.id, rec, n.sb); err != nil {
		return prepared{}, err
	}
	k.edit(func(r *record) {
		r.SandboxKey, r.Ports = n.sb.Path, n.sb.Ports
		if n.sb.Endpoints != nil {
			r.Endpoints = n.sb.Endpoints
		}
	})
	return p, nil
}

// prepareRootfs finds the mounts of the root, makes k's directories, and makes
// the volumes and bind sources ready.
func (c *containers) prepareRootfs(ctx context.Context, k *ctr, rec record) (mounts []mount.Mount, subs held, err error) {
	if err := os.MkdirAll(c.dir(k.id), 0o710); err != nil {
		return nil, nil, fmt.Errorf("make directory of %s: %w", k.id, err)
	}
	if mounts, err = c.rootfs(ctx, k); err != nil {
		return nil, nil, err
	}
	if subs, err = c.mountVolumes(ctx, k, rec); err != nil {
		return nil, nil, err
	}
	if err := c.holdShm(k.id, rec, subs); err != nil {
		return nil, nil, errors.Join(err, subs.close(), c.unmountVolumes(ctx, k))
	}
	return mounts, subs, nil
}

// dir is the directory of the container's files.
func (c *containers) dir(id string) string { return filepath.Join(c.cfg.Root, "containers", id) }

// createTask makes the task, with its network and streams, but does not run it.
func (c *containers) createTask(ctx context.Context, k *ctr, r *run, rec record, rootfs []mount.Mount, j *journal) error {
	io, err := c.stdio(ctx, k.id, rec)
	if err != nil {
		return err
	}
	if err := c.appArmor.ensure(c.appArmor.profile(rec.HostConfig)); err != nil {
		return err
	}
	options, err := runtimeOptions(rec, c.cfg.CgroupDriver) // which may be another at each start
	if err != nil {
		return err
	}
	_, label := c.seLinux.of(rec)
	req := &tasksapi.CreateTaskRequest{
		ContainerID: k.id, Rootfs: toAPI(labelled(rootfs, label)), Terminal: rec.Config.Tty, Options: options,
		Stdin: io.stdin, Stdout: io.stdout, Stderr: io.stderr,
	}
	done := j.step("tasks.Create")
	resp, err := c.ctrd.Tasks.Create(j.grpc(ctx), req, j.trailer())
	for end := time.Now().Add(leftoverTime); err != nil && leftover(err) && time.Now().Before(end); {
		// An engine before this one was killed in the middle of a start; what
		// containerd began for it comes up, or goes, behind its back.
		if err := c.deleteTask(ctx, k.id); err != nil {
			c.cfg.Log.Debug("task of a killed start", "container", k.id, "err", err)
		}
		time.Sleep(awaitAgain)
		resp, err = c.ctrd.Tasks.Create(j.grpc(ctx), req, j.trailer())
	}
	done()
	if err != nil {
		return explainStart(err)
	}
	r.pid = int(resp.Pid)
	if io.stdin == "" {
		return nil
	}
	// A foreign shim holds its fifo open itself until it is told; the logger does too.
	if _, err := c.ctrd.Tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: k.id, Stdin: true}); err != nil {
		return errors.Join(fmt.Errorf("close the shim's end of stdin: %w", err), c.discardTask(k))
	}
	return nil
}

// leftoverTime is how long a start waits for the remains of another one to go.
const leftoverTime = 5 * time.Second

// leftover says whether a task, or its bundle directory, is in the way; or whether
// the directory was taken away under a shim that was being started, by the end of
// the start before it (containerd 1.6).
func leftover(err error) bool {
	text := err.Error()
	return errdefs.IsAlreadyExists(err) || strings.Contains(text, "file exists") ||
		strings.Contains(text, "failed to start shim") && strings.Contains(text, "no such file or directory")
}

func toAPI(mounts []mount.Mount) []*types.Mount {
	var ms []*types.Mount
	for _, m := range mounts {
		ms = append(ms, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return ms
}

// discardTask takes a task that was not started away.
func (c *containers) discardTask(k *ctr) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.life), killTime)
	defer cancel()
	return c.deleteTask(ctx, k.id)
}

// started makes k running. The exit waits for it.
func (c *containers) started(k *ctr, r *run) {
	k.mu.Lock()
	r.started = time.Now()
	k.run = r
	k.rec.State = state{
		Phase: running, StartedAt: r.started, FinishedAt: k.rec.State.FinishedAt,
		RestartCount: k.rec.State.RestartCount,
	}
	k.rec.Health = freshHealth(k.rec.Config)
	k.wake()
	k.mu.Unlock()
	c.publish(k, eventsapi.ActionStart, nil)
	c.persistSoon(k)
	c.probe(k, r)
}

// failed keeps why a start failed, in the words and exit codes of docker run.
func (c *containers) failed(k *ctr, r *run, err error) {
	close(r.exited)
	close(r.settled)
	c.dropPending(k)
	k.edit(func(r *record) {
		if r.State.Phase == restarting {
			r.State.Phase = exited
		}
		r.State.Error, r.State.ExitCode = err.Error(), startExitCode(err)
		r.SandboxKey, r.Ports = "", nil
	})
	c.persistSoon(k)
}

// The exit codes of a container whose program could not be started.
const (
	exitNotStarted    = 128
	exitNotExecutable = 126
	exitNotFound      = 127
)

func startExitCode(err error) int {
	text := err.Error()
	switch {
	case strings.Contains(text, "executable file not found") || strings.Contains(text, "no such file or directory"):
		return exitNotFound
	case strings.Contains(text, "permission denied") || strings.Contains(text, "is a directory"):
		return exitNotExecutable
	}
	return exitNotStarted
}

// explainStart gives a runtime's refusal the kind that the API has for it: what
// the user's command or wishes are to blame for is a 400.
func explainStart(err error) error {
	text := strings.TrimSuffix(strings.TrimSuffix(err.Error(), ": unknown"), ": unknown")
	for _, blame := range []string{
		"executable file not found", "no such file or directory", "permission denied", "is a directory",
		"not a directory", "exec format error", "not executable",
	} {
		if strings.Contains(text, blame) {
			return invalid("%s", text)
		}
	}
	if errdefs.IsInvalidArgument(err) {
		return invalid("%s", text)
	}
	return errors.New(text)
}

// wait waits for done, or for the end of ctx.
func wait(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rootfs gives the mounts of k's snapshot.
func (c *containers) rootfs(ctx context.Context, k *ctr) ([]mount.Mount, error) {
	k.mu.Lock()
	ms := k.rootfs
	k.mu.Unlock()
	if ms != nil {
		return ms, nil
	}
	ms, err := c.snapshotMounts(ctx, k.id)
	if err != nil {
		return nil, fmt.Errorf("find the root file system of %s: %w", k.id, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rootfs = ms
	return ms, nil
}
