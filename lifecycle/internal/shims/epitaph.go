package shims

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// The exit of a task whose shim died is told until the task is deleted. Its bundle
// is gone by then, so that it is written beside it, where the next daemon finds it,
// in a file that no identifier can name and containerd passes over.
const epitaphPrefix = ".exit+"

type epitaph struct {
	Pid    uint32
	Status uint32
	At     time.Time
	Told   bool // it was published, and long enough ago to be with all who listen
}

func (b bundle) epitaph() string { return filepath.Join(filepath.Dir(b.dir), epitaphPrefix+b.id) }

func (b bundle) writeEpitaph(e Exit, told bool) error {
	data, err := json.Marshal(epitaph{e.Pid, e.Status, e.At.AsTime(), told})
	if err != nil {
		return err
	}
	// If we die half way the bundle is still there, and with it the exit.
	if err := os.WriteFile(b.epitaph(), data, 0o600); err != nil {
		return fmt.Errorf("keep exit of %s: %w", b.id, err)
	}
	return nil
}

func (b bundle) removeEpitaph() error {
	if err := os.Remove(b.epitaph()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget exit of %s: %w", b.id, err)
	}
	return nil
}

// restoreDead finds the exits that a predecessor told of tasks whose shims died.
func (t *Table) restoreDead() error {
	files, err := filepath.Glob(filepath.Join(t.cfg.State, taskDir, "*", epitaphPrefix+"*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		ns, id := filepath.Base(filepath.Dir(file)), strings.TrimPrefix(filepath.Base(file), epitaphPrefix)
		var e epitaph
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &e)
		}
		rec := t.cfg.Record(ns, id)
		if err != nil || rec.Runtime == "" || t.tasks[key{ns, id}] != nil {
			// Nobody is left to ask, or the task was buried but for its bundle: it is
			// restored, and buried again.
			if err := os.Remove(file); err != nil {
				t.cfg.Log.Error("forget exit", "file", file, "err", err)
			}
			continue
		}
		task := t.newTask(ns, id, dead)
		task.sandbox, task.buried = rec.Sandbox, true
		task.exit = &Exit{Pid: e.Pid, Status: e.Status, At: timestamppb.New(e.At)}
		close(task.gone)
		t.mu.Lock()
		t.tasks[key{ns, id}] = task
		t.mu.Unlock()
		if !e.Told && !rec.Sandbox {
			task.tellLater(*task.exit)
		}
	}
	return nil
}

// tellLater publishes the exit of a dead task when those who are to hear of it have
// had time to come back, unless the task is deleted before.
func (t *Task) tellLater(e Exit) {
	t.whileDead(func() {
		t.table.publishExit(t, e)
		t.toldDead(e)
	})
}

// toldDead has a successor know of the exit of a dead task that was just published,
// as markToldLater does of one whose shim lives.
func (t *Task) toldDead(e Exit) {
	t.whileDead(func() {
		t.table.mu.Lock() // or it would be written after Forget has removed it
		defer t.table.mu.Unlock()
		if t.table.tasks[key{t.Namespace, t.ID}] != t {
			return
		}
		if err := t.bundle.writeEpitaph(e, true); err != nil {
			t.table.cfg.Log.Warn("exit may be told again", "task", t.ID, "err", err)
		}
	})
}

// whileDead calls f after a while, if the dead task is not forgotten by then.
func (t *Task) whileDead(f func()) {
	t.table.work.Go(func() {
		select {
		case <-time.After(exitGrace):
		case <-t.table.closing:
			return
		}
		t.table.mu.Lock()
		known := t.table.tasks[key{t.Namespace, t.ID}] == t
		t.table.mu.Unlock()
		if known {
			f()
		}
	})
}
