package lifecycle_test

import (
	"errors"
	"fmt"
	"log/slog"
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
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A container whose labels say how it is to be is made so, by containerd's rules.
func TestContainersAreRestartedAsTheirLabelsSay(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.RestartInterval = 50 * time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
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
		prepare := &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: id, Labels: map[string]string{root: "x"}}
		dir := ok(w.snapshots.Prepare(w.ctx, prepare))(t).Mounts[0].Source
		if err := os.CopyFS(dir, os.DirFS(w.rootfs)); err != nil {
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
	ups := func() int {
		data, _ := os.ReadFile(log) // there from the first "up" on
		return strings.Count(string(data), "up\n")
	}
	eventually(t, "always says that it is up", func() error {
		if ups() != 1 {
			return errors.New("it does not")
		}
		return nil
	})
	w.kill(t, "always")
	eventually(t, "always runs anew", func() error {
		if p := awaitStatus("always", task.Status_RUNNING); p.Pid == first.Pid {
			return fmt.Errorf("it is still %d", p.Pid)
		}
		if n := ups(); n != 2 {
			return fmt.Errorf("it was up %d times", n)
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
	eventually(t, "always is stopped and deleted", func() error {
		if r, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "always"}); err == nil {
			return fmt.Errorf("it is %v", r.Process.Status)
		}
		return nil
	})
	// What has stopped by itself is left as it is.
	eventually(t, "again is deleted", func() error {
		_, err := w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "again"})
		if status.Code(err) == codes.NotFound {
			return nil
		}
		return fmt.Errorf("delete says %v", err)
	})
	w.nothingLeft(t, "always")
	w.nothingLeft(t, "again")
	label("failing", "status", "")
	w.remove(t, "failing")
	stop()
}
