package shims

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/lifecycle/internal/trace"
)

// startWait is how long a shim may take to start and listen.
const startWait = 30 * time.Second

// CreateOptions say how a task is made.
type CreateOptions struct {
	Runtime string // "io.containerd.runc.v2" or the path of a shim binary
	// Options of the shim, for its start.
	Options *anypb.Any
	Spec    []byte // config.json
	// Request is what the shim is asked; ID and Bundle are filled in here.
	Request *api.CreateTaskRequest
	// Rootfs gives the mounts of the root filesystem, when the shim runs.
	Rootfs func(context.Context) ([]*types.Mount, error)
	// Checkpoint makes a directory of CRIU's images that the task begins with; nil
	// where it begins at its beginning.
	Checkpoint func(dir string) error
	// Sandbox names the sandbox that the container is recorded in, "" for none.
	Sandbox string
	// Join is the shim that makes the task, where none is to be started.
	Join *Endpoint
}

// Create makes the bundle, starts the shim and has it create the task, or leaves
// nothing behind. It gives the pid of the task's first process.
func (t *Table) Create(ctx context.Context, ns, id string, o CreateOptions) (_ uint32, err error) {
	if o.Join == nil {
		if o.Join, err = t.endpointOf(ctx, ns, o.Sandbox); err != nil {
			return 0, err
		}
	}
	task, err := t.resolved(ns, id, o.Runtime)
	if err != nil {
		return 0, err
	}
	task.joined = o.Join != nil
	if err := t.enter(ctx, task); err != nil {
		return 0, err
	}
	var r api.CreateTaskResponse
	err = task.made(task.create(ctx, o, func() (err error) {
		if o.Checkpoint != nil {
			o.Request.Checkpoint = filepath.Join(task.bundle.work, "checkpoint")
			if err := o.Checkpoint(o.Request.Checkpoint); err != nil {
				return err
			}
		}
		if o.Request.Rootfs, err = o.Rootfs(ctx); err != nil {
			return err
		}
		defer trace.Step(ctx, "shim Create", "")()
		o.Request.ID, o.Request.Bundle = id, task.bundle.dir
		return task.finish(ctx, "Create", o.Request, &r)
	}))
	return r.Pid, err
}

// WorkDir is a directory on disk that lives as long as the task.
func (t *Task) WorkDir() string { return t.bundle.work }

// resolved is a task that is to be made, with its shim's binary.
func (t *Table) resolved(ns, id, runtime string) (*Task, error) {
	binary, err := t.resolve(runtime)
	if err != nil {
		return nil, err
	}
	task := t.newTask(ns, id, starting)
	task.binary = binary
	return task, nil
}

// made says that a task was made, or, by err, why it was not.
func (t *Task) made(err error) error {
	if err != nil {
		t.enter(leaving)
		t.table.leave(t)
		return err
	}
	if !t.live() {
		return fmt.Errorf("task %s: shim died: %w", t.ID, errdefs.ErrUnavailable)
	}
	return nil
}

// create makes the bundle and has a shim make in it what ask asks for.
func (t *Task) create(ctx context.Context, o CreateOptions, ask func() error) (err error) {
	end := trace.Step(ctx, "make bundle", t.bundle.dir)
	err = t.bundle.make(o.Spec)
	end()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.letGo()
			err = errors.Join(err, t.bundle.remove())
		}
	}()
	if err := t.openLog(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.undoStart()
		}
	}()
	if err := t.startShim(ctx, o); err != nil {
		return err
	}
	return ask()
}

// startShim starts the shim and writes down where it listens, for whoever
// restores the task.
func (t *Task) startShim(ctx context.Context, o CreateOptions) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	// Before the start: if we die during it, a successor knows whom to ask to
	// clean up.
	if err := t.bundle.write("shim-binary-path", []byte(t.binary)); err != nil {
		return err
	}
	end := trace.Step(ctx, "start shim", t.binary)
	where, err := t.startedShim(ctx, o)
	end()
	if err != nil {
		return err
	}
	defer trace.Step(ctx, "connect to shim", where.Address)()
	return t.dial(ctx, where)
}

// startedShim starts the shim by its own "start", or, if it is ours and for this
// task alone, without.
func (t *Task) startedShim(ctx context.Context, o CreateOptions) (*bootstrap.BootstrapResult, error) {
	ahead := t.table.takeAhead(key{t.Namespace, t.ID}, nil)
	if ahead != nil {
		defer ahead.end() // it is this task's by then, or nobody's
	}
	if o.Join != nil {
		where, err := o.Join.result()
		if err != nil {
			return nil, err
		}
		return where, t.bundle.writeAddress(where)
	}
	if filepath.Base(t.binary) == ownShim && !grouped(o.Spec) {
		return t.execShim(ctx, ahead)
	}
	where, err := t.table.start(ctx, t.binary, t.bundle, o.Options)
	if err != nil {
		return nil, err
	}
	return where, t.bundle.writeAddress(where)
}

// dial connects to the shim that listens at where.
func (t *Task) dial(ctx context.Context, where *bootstrap.BootstrapResult) error {
	var c *client
	connected := make(chan struct{})
	c, err := dial(ctx, t.Namespace, where, func() {
		<-connected
		t.lost(c)
	})
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.client = c
	t.mu.Unlock()
	close(connected)
	return nil
}

// undoStart ends a shim of which no task came, and has its binary take apart
// what it made. A shim whose caller went away goes on with what it was asked, and has
// a task then, with which it does not end.
func (t *Task) undoStart() {
	if t.joined {
		return // the shim is the sandbox's, and has undone what it made of the task
	}
	log := t.table.cfg.Log.With("namespace", t.Namespace, "task", t.ID)
	ctx, cancel := context.WithTimeout(context.Background(), cleanupWait)
	defer cancel()
	sctx, scancel := context.WithTimeout(ctx, shutdownWait)
	defer scancel()
	err := t.call(sctx, "Delete", &api.DeleteRequest{ID: t.ID}, &api.DeleteResponse{})
	if err == nil || errdefs.IsNotFound(err) {
		err = t.call(sctx, "Shutdown", &api.ShutdownRequest{ID: t.ID}, &emptypb.Empty{})
	}
	if err != nil && !errdefs.IsUnavailable(err) {
		log.Warn("shut shim down", "err", err)
	}
	if c, err := t.connection(); err == nil && len(t.bundle.inside()) > 0 { // else it is a pod's, and stays
		_ = c.conn.UserOnCloseWait(sctx) // one that takes longer is ended
	}
	if err := t.bundle.endStrays(); err != nil {
		log.Error("undo task", "err", err)
	}
	if _, err := t.table.cleanup(ctx, t.binary, t.bundle); err != nil {
		// A shim that came to nothing has, for most, nothing that could be cleaned up.
		log.Debug("clean up after task that was not created", "err", err)
	}
}

// finish is call that goes on when the client has gone away, for cleanupWait at most: a
// shim that is cut off in the middle leaves halves that nobody knows of.
func (t *Task) finish(ctx context.Context, method string, req, resp any) error {
	going, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(cleanupWait):
			cancel()
		case <-going.Done():
		}
	})
	defer stop()
	err := t.call(going, method, req, resp)
	if ctx.Err() != nil {
		return fmt.Errorf("client is gone: %w", context.Cause(ctx))
	}
	return err
}
