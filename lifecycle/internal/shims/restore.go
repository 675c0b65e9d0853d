package shims

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	api "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
)

const (
	// restoreWait is how long one shim may take to answer a new daemon. One that
	// takes longer is kept: its container may well run.
	restoreWait = 3 * time.Second
	// restoreAtOnce is how many shims are asked at the same time.
	restoreAtOnce = 32
	// exitGrace is how long a shim has to repeat the exit that happened while no
	// daemon was there, before it is published here, and how long an exit takes at
	// most to those who listen.
	exitGrace = 2 * time.Second
)

// Restore finds the bundles of a predecessor and begins to ask their shims. It
// returns at once; whoever asks something of a task waits for the answer.
func (t *Table) Restore() error {
	var found []*Task
	dirs, err := filepath.Glob(filepath.Join(t.cfg.State, taskDir, "*", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		ns, id := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() || strings.HasPrefix(ns, ".") {
			continue
		}
		task := t.newTask(ns, strings.TrimPrefix(id, "."), restoring)
		if strings.HasPrefix(id, ".") {
			if err := task.bundle.removeHidden(); err != nil {
				t.cfg.Log.Error("remove bundle", "dir", dir, "err", err)
			}
			continue
		}
		task.sandbox = t.cfg.Record(ns, id).Sandbox
		t.tasks[key{ns, id}] = task
		found = append(found, task)
	}
	if err := t.restoreDead(); err != nil {
		return err
	}
	markJoined(found)
	t.removeWork()
	t.work.Go(func() { t.restoreAll(found) })
	return nil
}

// markJoined finds the tasks whose shim is a sandbox's: it listens where the
// sandbox's does.
func markJoined(found []*Task) {
	pods := map[string]bool{}
	for _, t := range found {
		if !t.sandbox {
			continue
		}
		if where, err := t.bundle.address(); err == nil {
			pods[where.Address] = true
		}
	}
	if len(pods) == 0 {
		return
	}
	for _, t := range found {
		if where, err := t.bundle.address(); !t.sandbox && err == nil {
			t.joined = pods[where.Address]
		}
	}
}

// removeHidden removes what a predecessor was removing when it died.
func (b bundle) removeHidden() error {
	b.dir = filepath.Join(filepath.Dir(b.dir), "."+b.id)
	if err := b.checkUnmounted(); err != nil {
		return err
	}
	return os.RemoveAll(b.dir)
}

// removeWork removes work directories of tasks that a reboot ended, and of those
// that a predecessor was burying when it died: their bundles are gone.
func (t *Table) removeWork() {
	dirs, err := filepath.Glob(filepath.Join(t.cfg.Root, taskDir, "*", "*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		ns, id := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if _, err := os.Lstat(t.bundle(ns, id).dir); errors.Is(err, os.ErrNotExist) {
			if err := os.RemoveAll(dir); err != nil {
				t.cfg.Log.Error("remove work directory", "dir", dir, "err", err)
			}
		}
	}
}

func (t *Table) restoreAll(found []*Task) {
	slots := make(chan struct{}, restoreAtOnce)
	for _, task := range found {
		slots <- struct{}{}
		t.work.Go(func() {
			task.restore()
			close(task.ready)
			<-slots
		})
	}
}

// restore asks the shim of a bundle what became of its task.
func (t *Task) restore() {
	log := t.table.cfg.Log.With("namespace", t.Namespace, "task", t.ID)
	ctx, cancel := context.WithTimeout(context.Background(), restoreWait)
	defer cancel()
	t.findBinary()
	where, err := t.bundle.address()
	if err != nil {
		log.Warn("task was half made, undoing it", "err", err)
		t.drop()
		return
	}
	if err := t.openLog(); err != nil {
		log.Warn("restore task", "err", err)
	}
	err = t.dial(ctx, where)
	switch {
	case t.bundle.isDeleted():
		t.drop() // a predecessor was about to
		return
	case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist):
		t.buryOrDrop()
		return
	case err != nil:
		log.Error("restore task", "err", err)
		t.live()
		return
	}
	t.ask(ctx)
}

func (t *Task) ask(ctx context.Context) {
	log := t.table.cfg.Log.With("namespace", t.Namespace, "task", t.ID)
	var st api.StateResponse
	var err error
	if t.sandbox {
		err = t.askSandbox(ctx)
	} else {
		err = t.call(ctx, "State", &api.StateRequest{ID: t.ID}, &st)
	}
	switch {
	case err == nil:
		t.live()
		if e := (Exit{Pid: st.Pid, Status: st.ExitStatus, At: st.ExitedAt}); st.Status == task.Status_STOPPED && t.bundle.isTold() {
			t.exited(e)
		} else if st.Status == task.Status_STOPPED {
			t.repeatExit(e)
		}
	case errdefs.IsNotFound(err):
		log.Warn("shim has no such task, ending it")
		t.drop()
	case errdefs.IsUnavailable(err):
		t.buryOrDrop()
	default:
		log.Error("restore task: its shim hangs", "err", err)
		t.live()
	}
}

// repeatExit publishes an exit that happened while no daemon was there, unless
// the shim does.
func (t *Task) repeatExit(e Exit) {
	t.afterGrace(func() {
		if t.exited(e) {
			t.table.publishExit(t, e)
			t.markToldLater()
		}
	})
}

// markToldLater has a successor know of the exit that was just published, if it
// comes when that has arrived. One that comes earlier publishes it again: twice is
// better than never.
func (t *Task) markToldLater() {
	t.afterGrace(func() {
		if err := t.bundle.write(toldFile, nil); err != nil && t.phase() == living {
			t.table.cfg.Log.Warn("exit may be told again", "task", t.ID, "err", err)
		}
	})
}

// afterGrace calls f later, unless the task or the daemon ends before.
func (t *Task) afterGrace(f func()) {
	t.table.mu.Lock()
	defer t.table.mu.Unlock()
	if t.table.closed {
		return
	}
	t.table.work.Go(func() {
		select {
		case <-time.After(exitGrace):
			f()
		case <-t.gone:
		case <-t.table.closing:
		}
	})
}

// buryOrDrop is for a task whose shim is dead. A shim that is known to write its
// first process down, and has not, made no task that could have ended: its Create was
// cut off.
func (t *Task) buryOrDrop() {
	_, err := os.Lstat(filepath.Join(t.bundle.dir, "init.pid"))
	writes := slices.Contains([]string{ownShim, "containerd-shim-runc-v2"}, filepath.Base(t.binary))
	if errors.Is(err, os.ErrNotExist) && writes && !t.sandbox {
		t.drop()
		return
	}
	t.bury()
}

// drop ends a shim that has no task and removes the bundle.
func (t *Task) drop() {
	t.enter(leaving)
	if t.binary != "" {
		t.undoStart()
	}
	t.letGo()
	if err := t.bundle.remove(); err != nil {
		t.table.cfg.Log.Error("undo task", "task", t.ID, "err", err)
	}
	t.table.leave(t)
}

// findBinary reads which shim binary the task was started with; containerd before
// 1.6 wrote it nowhere, but has the runtime in the container's record.
func (t *Task) findBinary() {
	if path, err := t.bundle.read("shim-binary-path"); err == nil && path != "" {
		t.binary = path
		return
	}
	if rt := t.table.cfg.Record(t.Namespace, t.ID).Runtime; rt != "" {
		t.binary, _ = t.table.resolve(rt)
	}
}

// address reads where the shim of the bundle listens.
func (b bundle) address() (*bootstrap.BootstrapResult, error) {
	for _, name := range []string{"bootstrap.json", "address"} {
		s, err := b.read(name)
		if err == nil && s != "" {
			return parseStart([]byte(s))
		}
	}
	return nil, fmt.Errorf("no address of a shim in %s", b.dir)
}
