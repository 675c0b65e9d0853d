package shims

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/lifecycle/internal/exchange"
)

// Config says where tasks are kept and what shims are told.
type Config struct {
	Root, State string   // the daemon's directories; tasks are below them
	Address     string   // of the daemon's gRPC socket; ttrpc is this + ".ttrpc"
	Version     string   // of the daemon, for shims that ask
	ShimDirs    []string // searched before PATH
	Debug       bool
	Events      *exchange.Exchange
	// Record tells what is on record of a container or sandbox.
	Record func(ns, id string) Record
	Log    *slog.Logger
}

// Record is what the restore of a bundle wants to know beyond it.
type Record struct {
	Runtime string // of the container or sandbox; "" where there is neither
	Sandbox bool   // it is a sandbox
}

// Table is all tasks of the daemon.
type Table struct {
	cfg    Config
	self   string  // this program; shims are told who publishes their events
	poller *poller // of the shims' logs, and of their ends

	boots sync.Map // paths of shim binaries that want BootstrapParams

	mu     sync.Mutex
	tasks  map[key]*Task
	ahead  map[key]*aheadShim // started, and waiting for their task
	closed bool

	work    sync.WaitGroup // goroutines of the table and its tasks
	closing chan struct{}  // closed by Close
}

type key struct{ ns, id string }

// New makes an empty table. Restore fills it.
func New(cfg Config) (*Table, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	return &Table{cfg: cfg, self: self, poller: p, tasks: map[key]*Task{}, ahead: map[key]*aheadShim{}, closing: make(chan struct{})}, nil
}

// Task gives a task that was created. One that is being restored is waited for.
func (t *Table) Task(ctx context.Context, ns, id string) (*Task, error) {
	task, err := t.find(ctx, ns, id)
	if err == nil && task.sandbox {
		return nil, notFound(id)
	}
	return task, err
}

// find is Task for sandboxes too.
func (t *Table) find(ctx context.Context, ns, id string) (*Task, error) {
	t.mu.Lock()
	task := t.tasks[key{ns, id}]
	t.mu.Unlock()
	if task == nil || task.phase() == starting {
		return nil, notFound(id)
	}
	return task, task.await(ctx)
}

func notFound(id string) error { return fmt.Errorf("task %s: %w", id, errdefs.ErrNotFound) }

// Tasks gives all tasks of a namespace, also those that are being restored: what is
// asked of one waits for that.
func (t *Table) Tasks(ns string) (out []*Task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, task := range t.tasks {
		if p := task.phase(); k.ns == ns && !task.sandbox && (p == restoring || p == living || p == dead) {
			out = append(out, task)
		}
	}
	return out
}

// enter puts a new task into the table in phase p, when one of the same name that
// is leaving has left.
func (t *Table) enter(ctx context.Context, task *Task) error {
	k := key{task.Namespace, task.ID}
	for {
		t.mu.Lock()
		if t.closed {
			t.mu.Unlock()
			return fmt.Errorf("task %s: daemon is closing: %w", task.ID, errdefs.ErrUnavailable)
		}
		old := t.tasks[k]
		if old == nil || old.phase() == dead {
			t.tasks[k] = task
			t.mu.Unlock()
			return task.bundle.removeEpitaph()
		}
		t.mu.Unlock()
		if old.phase() != leaving {
			return fmt.Errorf("task %s: %w", task.ID, errdefs.ErrAlreadyExists)
		}
		select {
		case <-old.gone:
		case <-ctx.Done():
			return fmt.Errorf("task %s is being deleted: %w", task.ID, context.Cause(ctx))
		}
	}
}

// leave takes a task out of the table; its bundle is gone.
func (t *Table) leave(task *Task) {
	t.mu.Lock()
	if k := (key{task.Namespace, task.ID}); t.tasks[k] == task {
		delete(t.tasks, k)
	}
	t.mu.Unlock()
	close(task.gone)
}

// Forget drops what is remembered of a task whose shim died, and the shim that waits
// for one; the container is gone.
func (t *Table) Forget(ns, id string) {
	t.dropAhead(key{ns, id})
	t.mu.Lock()
	defer t.mu.Unlock()
	if task := t.tasks[key{ns, id}]; task != nil && task.phase() == dead {
		delete(t.tasks, key{ns, id})
		if err := task.bundle.removeEpitaph(); err != nil {
			t.cfg.Log.Error("forget task", "namespace", ns, "task", id, "err", err)
		}
	}
}

// Forward passes an event of a shim on. The exit of a task is passed on once,
// also if the shim was thought dead, or repeats itself.
func (t *Table) Forward(e *types.Envelope) error {
	if e.GetTopic() == "/tasks/exit" {
		if v, err := typeurl.UnmarshalAny(e.Event); err == nil {
			if exit, ok := v.(*events.TaskExit); ok && exit.ID == exit.ContainerID && !t.noteExit(e.Namespace, exit) {
				return nil
			}
		}
	}
	return t.cfg.Events.Forward(e)
}

// noteExit says whether this is the first that is heard of a task's exit.
func (t *Table) noteExit(ns string, exit *events.TaskExit) bool {
	t.mu.Lock()
	task := t.tasks[key{ns, exit.ContainerID}]
	t.mu.Unlock()
	if task == nil {
		return true
	}
	news := task.exited(Exit{Pid: exit.Pid, Status: exit.ExitStatus, At: exit.ExitedAt})
	if news {
		task.markToldLater()
	}
	return news
}

// Close lets go of all shims and waits for the table's goroutines. Shims and
// containers run on.
func (t *Table) Close() {
	t.mu.Lock()
	t.closed = true
	close(t.closing)
	var all []*Task
	for _, task := range t.tasks {
		all = append(all, task)
	}
	t.mu.Unlock()
	t.endAhead()
	for _, task := range all {
		if task.phase() != leaving { // else it still has to shut its shim down, and lets go then
			task.letGo()
		}
	}
	t.work.Wait()
	t.poller.close()
}

// Exit is how a task's first process ended.
type Exit struct {
	Pid    uint32
	Status uint32
	At     *timestamppb.Timestamp
}

func (t *Table) publishExit(task *Task, e Exit) {
	err := t.cfg.Events.Publish(task.Namespace, "/tasks/exit", &events.TaskExit{
		ContainerID: task.ID, ID: task.ID, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: e.At,
	})
	if err != nil {
		t.cfg.Log.Error("publish exit", "task", task.ID, "err", err)
	}
}

func (t *Table) publishDelete(task *Task, e Exit) {
	err := t.cfg.Events.Publish(task.Namespace, "/tasks/delete", &events.TaskDelete{
		ContainerID: task.ID, Pid: e.Pid, ExitStatus: e.Status, ExitedAt: e.At,
	})
	if err != nil {
		t.cfg.Log.Error("publish delete", "task", task.ID, "err", err)
	}
}
