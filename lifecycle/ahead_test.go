package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
)

// record records a container whose shim is the program shim.
func (w *world) record(t *testing.T, shim, id, script string) {
	t.Helper()
	c := container(id, nil)
	c.Spec = w.spec(t, id, script)
	c.Runtime = &containersapi.Container_Runtime{Name: shim}
	ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
}

// awaitShim waits until there is one shim for id.
func (w *world) awaitShim(t *testing.T, id string) (pid int) {
	t.Helper()
	eventually(t, "one shim waits for "+id, func() error {
		pids := w.shims(t, id)
		if len(pids) != 1 {
			return fmt.Errorf("shims are %v", pids)
		}
		pid = pids[0]
		return nil
	})
	return pid
}

func (w *world) awaitNoShims(t *testing.T) {
	t.Helper()
	eventually(t, "no shim is left", func() error {
		if pids := w.shims(t, ""); len(pids) > 0 {
			return fmt.Errorf("shims are %v", pids)
		}
		return nil
	})
}

func TestATaskTakesTheShimThatWaitsForIt(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	shim := w.ourShim(t)
	w.record(t, shim, "one", "exit 3")
	waiting := w.awaitShim(t, "one")
	ok(w.createTask("one"))(t)
	if now := w.shim(t, "one"); now != waiting {
		t.Errorf("the shim is %d, but %d waited", now, waiting)
	}
	// It is in its bundle, by which a daemon finds the shims that have no address.
	bundle := filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "one")
	if cwd := ok(os.Readlink(fmt.Sprintf("/proc/%d/cwd", waiting)))(t); cwd != bundle {
		t.Errorf("the shim is in %s, want %s", cwd, bundle)
	}
	exits := w.exits(t)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "one"}))(t)
	wantExit(t, exits, "one 3")
	w.remove(t, "one")
}

func TestAShimThatWaitsEndsWithItsContainer(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	w.record(t, w.ourShim(t), "one", "")
	w.awaitShim(t, "one")
	ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "one"}))(t)
	w.awaitNoShims(t)
}

func TestAShimThatWaitsEndsWithTheDaemon(t *testing.T) {
	w := newWorld(t)
	shim := w.ourShim(t)
	cmd := w.startToKill(t)
	w.await(t)
	w.record(t, shim, "killed", "exit 0")
	w.awaitShim(t, "killed")
	cmd.Process.Kill()
	cmd.Wait()
	w.awaitNoShims(t)

	stop := w.startOurs(t)
	w.record(t, shim, "stopped", "exit 0")
	w.awaitShim(t, "stopped")
	stop()
	w.awaitNoShims(t)

	w.startOurs(t)
	for _, id := range []string{"killed", "stopped"} { // that their shims have gone is no loss
		ok(w.createTask(id))(t)
		ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: id}))(t)
		w.wait(t, id)
		w.remove(t, id)
	}
}

func TestAThousandContainersHaveNoThousandShims(t *testing.T) {
	const bound = 64
	w := newWorld(t)
	w.startOurs(t)
	shim := w.ourShim(t)
	for i := range 1000 {
		w.record(t, shim, fmt.Sprint("c", i), "")
		if i%100 == 0 {
			if n := len(w.shims(t, "")); n > bound {
				t.Fatalf("%d shims wait, want at most %d", n, bound)
			}
		}
	}
	w.awaitNoShims(t) // those that nobody wants do not wait for ever
}

func TestAnOldShimNeedNotKnowHowToWait(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	real := w.ourShim(t)
	old := filepath.Join(t.TempDir(), filepath.Base(real))
	script := "#!/bin/sh\ncase \" $* \" in *' -wait '*) exit 1;; esac\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(old, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.record(t, old, "one", "exit 4")
	ok(w.createTask("one"))(t)
	exits := w.exits(t)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "one"}))(t)
	wantExit(t, exits, "one 4")
	w.remove(t, "one")
}

func TestAPodsContainerHasNoShimOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	shim := w.ourShim(t)
	for _, id := range []string{"first", "second"} {
		c := container(id, nil)
		c.Spec = w.spec(t, id, "exec sleep 1000")
		c.Spec.Value = []byte(strings.Replace(string(c.Spec.Value), `"linux":`, `"annotations":{"io.containerd.runc.v2.group":"pod"},"linux":`, 1))
		c.Runtime = &containersapi.Container_Runtime{Name: shim}
		ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
		ok(w.createTask(id))(t)
		ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: id}))(t)
	}
	eventually(t, "the pod has one shim", func() error {
		if pids := w.shims(t, ""); len(pids) != 1 {
			return fmt.Errorf("shims are %v", pids)
		}
		return nil
	})
	for _, id := range []string{"second", "first"} {
		w.kill(t, id)
		w.wait(t, id)
		ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}))(t)
	}
	w.nothingLeft(t, "*")
}
