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
}

func (b bundle) epitaph() string { return filepath.Join(filepath.Dir(b.dir), epitaphPrefix+b.id) }

func (b bundle) writeEpitaph(e Exit) error {
	data, err := json.Marshal(epitaph{e.Pid, e.Status, e.At.AsTime()})
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
		t.tasks[key{ns, id}] = task
	}
	return nil
}
