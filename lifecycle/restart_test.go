package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
)

// A container whose labels say how it is to be is made so, by containerd's rules.
func TestContainersAreRestartedAsTheirLabelsSay(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.RestartInterval = 50 * time.Millisecond
	stop := w.startConfigured(t, cfg)
	if r := ok(w.introspection.Plugins(w.ctx, &introspectionapi.PluginsRequest{Filters: []string{"type==io.containerd.monitor.container.v1"}}))(t); len(r.Plugins) != 1 || !contains(r.Plugins[0].Capabilities, "on-failure") {
		t.Errorf("plugins: %v", r.Plugins)
	}
	log := filepath.Join(w.dir, "log")
	label := func(id string, pairs ...string) {
		t.Helper()
		c := container(id, map[string]string{})
		var paths []string
		for i := 0; i < len(pairs); i += 2 {
			key := "containerd.io/restart." + pairs[i]
			c.Labels[key] = pairs[i+1]
			paths = append(paths, "labels."+key)
		}
		ok(w.containers.Update(w.ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: mask(paths...)}))(t)
	}
	count := func(id string) string {
		return ok(w.containers.Get(w.ctx, &containersapi.GetContainerRequest{ID: id}))(t).Container.Labels["containerd.io/restart.count"]
	}
	record := func(id, script string, pairs ...string) {
		t.Helper()
		root := ok(w.snapshots.Prepare(w.ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: id}))(t).Mounts[0].Source
		if err := os.CopyFS(root, os.DirFS(w.rootfs)); err != nil {
			t.Fatal(err)
		}
		c := container(id, nil)
		c.Spec, c.Snapshotter, c.SnapshotKey = w.spec(t, id, script), "overlayfs", id
		ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
		label(id, pairs...)
	}
	awaitStatus := func(id string, want task.Status) (p *task.Process) {
		t.Helper()
		eventually(t, id+" is "+want.String(), func() error {
			r, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: id})
			if err == nil && r.Process.Status != want {
				err = fmt.Errorf("it is %v", r.Process.Status)
			}
			p = r.GetProcess()
			return err
		})
		return p
	}

	record("always", "echo up; exec sleep 1000", "status", "running", "loguri", "file://"+log)
	first := awaitStatus("always", task.Status_RUNNING)
	w.kill(t, "always")
	eventually(t, "always runs anew", func() error {
		if p := awaitStatus("always", task.Status_RUNNING); p.Pid == first.Pid {
			return fmt.Errorf("it is still %d", p.Pid)
		}
		if data, err := os.ReadFile(log); strings.Count(string(data), "up\n") != 2 {
			return fmt.Errorf("the log has %q, %v", data, err)
		}
		return nil
	})
	if n := count("always"); n != "2" {
		t.Errorf("restart count %q, want 2", n)
	}

	ok(w.tasks.Pause(w.ctx, &tasksapi.PauseTaskRequest{ContainerID: "always"}))(t)
	record("never", "exit 1", "status", "running", "policy", "no")
	record("again", "exit 1", "status", "running", "policy", "always")
	record("failing", "exit 3", "policy", "on-failure:2")
	ok(w.createTask("failing"))(t)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "failing"}))(t)
	label("failing", "status", "running")
	eventually(t, "failing was given up after two restarts, again goes on", func() error {
		if n := count("failing"); n != "2" {
			return fmt.Errorf("failing was restarted %q times", n)
		}
		if n, _ := strconv.Atoi(count("again")); n < 4 {
			return fmt.Errorf("again was restarted %d times", n)
		}
		return nil
	})
	awaitStatus("failing", task.Status_STOPPED)
	if n := count("failing"); n != "2" {
		t.Errorf("failing was restarted %s times, want 2", n)
	}
	if n := count("never"); n != "" {
		t.Errorf("never was restarted %s times", n)
	}
	if p := w.get(t, "always"); p.Status != task.Status_PAUSED {
		t.Errorf("always was paused and is %v", p.Status)
	}
	ok(w.tasks.Resume(w.ctx, &tasksapi.ResumeTaskRequest{ContainerID: "always"}))(t)

	// What was stopped on purpose runs again when the daemon does, if it is to run always.
	label("again", "status", "stopped")
	label("always", "explicitly-stopped", "true")
	w.kill(t, "always")
	awaitStatus("always", task.Status_STOPPED)
	stop()
	stop = w.startConfigured(t, cfg)
	awaitStatus("always", task.Status_RUNNING)
	label("always", "status", "stopped")
	for _, id := range []string{"always", "again"} {
		eventually(t, id+" is stopped and deleted", func() error {
			if r, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: id}); err == nil {
				return fmt.Errorf("it is %v", r.Process.Status)
			}
			return nil
		})
		w.nothingLeft(t, id)
	}
	label("failing", "status", "")
	w.remove(t, "failing")
	stop()
}
