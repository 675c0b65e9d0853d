package shims

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/api/journey"
)

// Deadlines of what is asked of a shim, or its binary, without a client waiting.
const (
	shutdownWait = 3 * time.Second
	cleanupWait  = 10 * time.Second
)

// phase is where a task is in the table; it only goes forward.
type phase uint8

const (
	starting  phase = iota // the shim is being started, for Create
	restoring              // the shim of a predecessor is being asked
	living                 // the shim serves it
	dead                   // the shim died; only the exit is remembered
	leaving                // deleted; the bundle is being removed
)

// Task is one task and the connection to its shim.
type Task struct {
	Namespace string
	ID        string

	table   *Table
	bundle  bundle
	binary  string        // of the shim
	sandbox bool          // it is no task, but the sandbox of some
	joined  bool          // its shim is a sandbox's
	ready   chan struct{} // closed when it is no longer restoring
	gone    chan struct{} // closed when its bundle has gone

	mu     sync.Mutex
	in     phase
	client *client
	closed bool   // the connection closed, though not by us
	ending bool   // the shim was asked to end: that it closes is no death
	buried bool   // its shim's death was noticed
	log    *watch // of the shim's log fifo
	exit   *Exit
}

func (t *Table) newTask(ns, id string, in phase) *Task {
	task := &Task{
		Namespace: ns, ID: id, table: t, bundle: t.bundle(ns, id), in: in,
		ready: make(chan struct{}), gone: make(chan struct{}),
	}
	if in != restoring {
		close(task.ready)
	}
	return task
}

func (t *Task) phase() phase {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.in
}

// enter moves the task on to a later phase, and says whether it did.
func (t *Task) enter(p phase) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in >= p {
		return false
	}
	t.in = p
	return true
}

// Bundle is the directory of the task.
func (t *Task) Bundle() string { return t.bundle.dir }

// exited notes the exit of the task's first process, and says whether it is news.
func (t *Task) exited(e Exit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.exit != nil {
		return false
	}
	t.exit = &e
	return true
}

// Exit gives the exit of a task whose shim died, with ok false while it lives.
func (t *Task) Exit() (e Exit, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.in != dead || t.exit == nil {
		return Exit{}, false
	}
	return *t.exit, true
}

// await waits while the task is being restored. One that is not there is NotFound.
func (t *Task) await(ctx context.Context) error {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return fmt.Errorf("restore task %s: %w", t.ID, context.Cause(ctx))
	}
	if t.phase() == leaving {
		return notFound(t.ID)
	}
	return nil
}

// Call asks the task's shim. Its errors have the kinds of the shim's answer;
// Unavailable is a shim that is gone.
func (t *Task) Call(ctx context.Context, method string, req, resp any) error {
	if err := t.await(ctx); err != nil {
		return err
	}
	return t.call(ctx, method, req, resp)
}

// call is Call by those who restore, create and end the task.
func (t *Task) call(ctx context.Context, method string, req, resp any) error {
	c, err := t.connection()
	if err != nil {
		return err
	}
	return c.call(ctx, method, req, resp)
}

func (t *Task) connection() (*client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.client == nil {
		return nil, fmt.Errorf("task %s: shim is gone: %w", t.ID, errdefs.ErrUnavailable)
	}
	return t.client, nil
}

// State asks for the state of a process, the task's first where exec is empty.
func (t *Task) State(ctx context.Context, exec string) (*api.StateResponse, error) {
	var r api.StateResponse
	err := t.Call(ctx, "State", &api.StateRequest{ID: t.ID, ExecID: exec}, &r)
	if err == nil {
		return &r, nil
	}
	e, err := t.exitInstead(ctx, err)
	if err != nil {
		return nil, err
	}
	return &api.StateResponse{
		ID: t.ID, Bundle: t.bundle.dir, Pid: e.Pid, Status: task.Status_STOPPED,
		ExitStatus: e.Status, ExitedAt: e.At, ExecID: exec,
	}, nil
}

// exitInstead gives the exit of a task where err says that its shim is gone, when
// it has been cleaned up after.
func (t *Task) exitInstead(ctx context.Context, err error) (Exit, error) {
	if !errdefs.IsUnavailable(err) {
		return Exit{}, err
	}
	select {
	case <-t.gone:
	case <-ctx.Done():
		return Exit{}, err
	}
	if e, ok := t.Exit(); ok {
		return e, nil
	}
	return Exit{}, err
}

// Buried waits until a task whose shim is gone has been cleaned up after, and says
// whether it was.
func (t *Task) Buried(ctx context.Context) bool {
	_, err := t.exitInstead(ctx, errdefs.ErrUnavailable)
	return err == nil
}

// Wait waits for the exit of a process, the task's first where exec is empty. If
// the shim dies meanwhile, so has the process.
func (t *Task) Wait(ctx context.Context, exec string) (Exit, error) {
	var r api.WaitResponse
	err := t.Call(ctx, "Wait", &api.WaitRequest{ID: t.ID, ExecID: exec}, &r)
	if err == nil {
		return Exit{Status: r.ExitStatus, At: r.ExitedAt}, nil
	}
	return t.exitInstead(ctx, err)
}

// Delete deletes the task in its shim and gives its exit. The rest, the shim
// itself and the bundle, goes afterwards; a new task of the same name waits for it.
func (t *Task) Delete(ctx context.Context) (*api.DeleteResponse, error) {
	var r api.DeleteResponse
	err := t.Call(ctx, "Delete", &api.DeleteRequest{ID: t.ID}, &r)
	switch {
	case errdefs.IsUnavailable(err):
		e, err := t.exitInstead(ctx, err)
		if err != nil {
			return nil, err
		}
		t.table.Forget(t.Namespace, t.ID)
		t.table.publishDelete(t, e)
		return &api.DeleteResponse{Pid: e.Pid, ExitStatus: e.Status, ExitedAt: e.At}, nil
	case errdefs.IsNotFound(err):
		// The shim has no such task: it is only the bundle that is left.
		r.ExitStatus, r.ExitedAt = 255, timestamppb.Now()
	case err != nil:
		return nil, err
	}
	if t.enter(leaving) {
		t.table.work.Go(t.retire)
	}
	return &r, nil
}

// retire has the shim exit, if nothing else runs in it, and removes the bundle.
func (t *Task) retire() {
	defer t.table.leave(t)
	if err := t.bundle.markDeleted(); err != nil {
		t.table.cfg.Log.Error("delete task", "task", t.ID, "err", err)
	}
	if !t.joined && !t.sandbox {
		t.shutdown()
	}
	t.letGo()
	if err := t.bundle.remove(); err != nil {
		t.table.cfg.Log.Error("delete task", "task", t.ID, "err", err)
	}
}

func (t *Task) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownWait)
	defer cancel()
	err := t.call(ctx, "Shutdown", &api.ShutdownRequest{ID: t.ID}, &emptypb.Empty{})
	switch {
	case errdefs.IsUnavailable(err):
		// Ours answers before it exits, others may not: it was killed, and its socket is left.
		if filepath.Base(t.binary) == ownShim {
			t.cleanUp()
		}
	case err != nil:
		t.table.cfg.Log.Warn("shut shim down", "task", t.ID, "err", err)
	}
}

// letGo closes what the task holds open. The shim runs on.
func (t *Task) letGo() {
	t.mu.Lock()
	c, log := t.client, t.log
	t.client, t.log = nil, nil
	t.mu.Unlock()
	if c != nil {
		c.conn.Close()
	}
	log.end()
}

// live says that the shim serves the task from now on, and whether it still does.
func (t *Task) live() bool {
	t.enter(living)
	t.mu.Lock()
	closed := t.closed
	t.buried = t.buried || closed
	t.mu.Unlock()
	if closed {
		t.buryLater()
	}
	return !closed
}

// lost is called when the connection to the shim closed.
func (t *Task) lost(c *client) {
	t.mu.Lock()
	t.closed = t.closed || t.client == c // else we closed it
	bury := t.client == c && t.in == living && !t.ending
	t.buried = t.buried || bury
	t.mu.Unlock()
	if bury {
		t.buryLater()
	}
}

func (t *Task) buryLater() {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	if !t.table.closed {
		t.table.work.Go(t.bury)
	}
}

// bury cleans up after a shim that died with its task, and publishes the exit if
// the shim did not live to do it.
func (t *Task) bury() {
	log := t.table.cfg.Log.With("namespace", t.Namespace, "task", t.ID)
	log.Warn("shim died, cleaning up after it")
	t.mu.Lock()
	t.buried = true
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), cleanupWait)
	defer cancel()
	e := Exit{Status: 128 + uint32(syscall.SIGKILL), At: timestamppb.Now()}
	r, err := t.table.cleanup(ctx, t.binary, t.bundle)
	if err != nil {
		log.Error("clean up after dead shim", "err", err)
	} else if r.ExitedAt.IsValid() && !r.ExitedAt.AsTime().IsZero() {
		e = Exit{Pid: r.Pid, Status: r.ExitStatus, At: r.ExitedAt}
	}
	t.letGo()
	restored := t.phase() == restoring
	told := t.bundle.isTold()
	news := t.exited(e)
	if err := errors.Join(t.bundle.writeEpitaph(*t.exit, told), t.bundle.remove()); err != nil {
		log.Error("clean up after dead shim", "err", err)
	}
	t.enter(dead)
	switch {
	case told || t.sandbox:
	case news && restored:
		t.tellLater(e) // who is to hear of it has yet to come back too
	case news:
		t.table.publishExit(t, e)
		t.toldDead(e)
	default:
		t.toldDead(*t.exit)
	}
	close(t.gone)
}

// Journey is the steps of the shim and its runtime so far.
func (t *Task) Journey() []journey.Span {
	name := filepath.Join(t.bundle.dir, journey.File)
	data, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	var spans []journey.Span
	if json.Unmarshal(data, &spans) != nil {
		return nil
	}
	return spans
}
