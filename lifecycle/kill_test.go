package lifecycle_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// serveIn names a directory in which this program is the daemon, not its test: a
// daemon that is to be killed needs a process.
const serveIn = "LIFECYCLE_TEST_SERVE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveIn); dir != "" {
		d := daemon{dir: dir, address: filepath.Join(dir, "c.sock")}
		if err := d.serve(context.Background(), d.config()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// startToKill starts a daemon of ours in a process of its own.
func (d daemon) startToKill(t testing.TB) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serveIn+"="+d.dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// A daemon that is killed at random, again and again, while clients work, comes
// back with everything that it said it had, and in the end with nothing else.
func TestAKilledDaemonComesBackWhole(t *testing.T) {
	const clients, lives, life = 3, 25, 300 * time.Millisecond
	w := newWorld(t)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	var work sync.WaitGroup
	var all []*witness
	for i := range clients {
		c := &witness{world: w, t: t, id: i, rand: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i))), facts: map[string]fact{}}
		all = append(all, c)
		work.Go(func() { c.work(ctx) })
	}
	for range lives {
		cmd := w.startToKill(t)
		time.Sleep(rand.N(life))
		cmd.Process.Kill()
		cmd.Wait()
	}
	cancel()
	work.Wait()

	w.startOurs(t)
	for _, c := range all {
		c.testify()
		c.clear()
	}
	ok(w.leases.Create(w.ctx, &leasesapi.CreateRequest{ID: "collect"}))(t)
	ok(w.leases.Delete(w.ctx, &leasesapi.DeleteRequest{ID: "collect", Sync: true}))(t)
	for _, c := range all {
		c.rmCgroups()
	}
	w.nothingLeft(t, "*")
	for _, pattern := range []string{
		"io.containerd.content.v1.content/blobs/*/*", "io.containerd.content.v1.content/ingest/*",
		"io.containerd.snapshotter.v1.overlayfs/snapshots/*",
	} {
		if left := globbed(t, filepath.Join(w.root(), pattern)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// fact is what a client knows of a thing.
type fact int

const (
	maybe fact = iota // the daemon died before it answered
	there
	gone
)

// witness is a client that remembers what it was told.
type witness struct {
	*world
	t     *testing.T
	id    int
	rand  *rand.Rand
	facts map[string]fact // "KIND NAME"
	done  int
}

// work makes things, and takes some of them apart, until ctx ends.
func (c *witness) work(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("w%d-%d", c.id, n)
		if c.makeImage(ctx, name) && c.makeContainer(ctx, name) && c.rand.IntN(2) == 0 {
			c.runTask(ctx, name)
		}
		if c.rand.IntN(2) == 0 {
			c.takeApart(ctx, name)
		}
	}
}

// told notes what became of a thing, and says whether the client goes on.
func (c *witness) told(err error, becomes fact, kind, name string) bool {
	key := kind + " " + name
	switch status.Code(err) {
	case codes.OK:
		c.facts[key] = becomes
		c.done++
		return true
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded: // killed under the call, or the end
		c.facts[key] = maybe
	default:
		// What was cut off may have been done.
		if !(becomes == gone && status.Code(err) == codes.NotFound && c.facts[key] == maybe) {
			c.t.Errorf("%s: %v", key, err)
		}
		c.facts[key] = maybe
	}
	return false
}

func (c *witness) makeImage(ctx context.Context, name string) bool {
	_, err := c.leases.Create(ctx, &leasesapi.CreateRequest{ID: name})
	if !c.told(err, there, "lease", name) {
		return false
	}
	held := in(c.ns, "containerd-lease", name)
	dgst, err := c.write(held, name, []byte(name), nil)
	if !c.told(err, there, "blob", dgst.String()) {
		return false
	}
	_, err = c.snapshots.Prepare(held, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: name + "-"})
	if !c.told(err, there, "snapshot", name+"-") {
		return false
	}
	_, err = c.snapshots.Commit(held, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: name, Key: name + "-"})
	if !c.told(err, there, "snapshot", name) {
		c.facts["snapshot "+name+"-"] = maybe
		return false
	}
	c.facts["snapshot "+name+"-"] = gone
	img := &imagesapi.Image{Name: name, Labels: map[string]string{"containerd.io/gc.ref.snapshot.overlayfs": name}, Target: target(name)}
	_, err = c.images.Create(ctx, &imagesapi.CreateImageRequest{Image: img})
	if !c.told(err, there, "image", name) {
		return false
	}
	_, err = c.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: name})
	return c.told(err, gone, "lease", name)
}

func (c *witness) makeContainer(ctx context.Context, name string) bool {
	ctr := container(name, nil)
	ctr.Spec = c.spec(c.t, name, "exec sleep 1000")
	ctr.Snapshotter, ctr.SnapshotKey = "overlayfs", name
	_, err := c.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: ctr})
	return c.told(err, there, "container", name)
}

func (c *witness) runTask(ctx context.Context, name string) bool {
	c.facts["task "+name] = maybe
	_, err := c.createTask(name)
	if !c.told(err, there, "task", name) {
		return false
	}
	if _, err = c.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: name}); err != nil {
		c.told(err, there, "start", name)
		return false
	}
	c.facts["running "+name] = there
	return true
}

func (c *witness) takeApart(ctx context.Context, name string) {
	c.facts["snapshot "+name] = maybe
	if _, ok := c.facts["container "+name]; ok {
		_, err := c.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: name})
		c.told(err, gone, "container", name)
	}
	if _, ok := c.facts["image "+name]; ok {
		c.facts["blob "+target(name).Digest] = maybe // from here on the collector may come to it
		_, err := c.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: name})
		c.told(err, gone, "image", name)
	}
}

// testify compares what the client was told with what there is.
func (c *witness) testify() {
	if c.done < 20 {
		c.t.Errorf("client %d came to %d answers, which says little", c.id, c.done)
	}
	for key, f := range c.facts {
		kind, name, _ := strings.Cut(key, " ")
		if f == maybe || kind == "start" {
			continue
		}
		is, err := c.look(kind, name)
		if err != nil {
			c.t.Errorf("%s: %v", key, err)
		} else if want := f == there; is != want {
			c.t.Errorf("%s: is it there? %v; should it be? %v", key, is, want)
		}
	}
}

func (c *witness) look(kind, name string) (is bool, err error) {
	switch kind {
	case "lease":
		_, err = c.leases.ListResources(c.ctx, &leasesapi.ListResourcesRequest{ID: name})
	case "blob":
		c.read(c.t, c.ctx, name, 0, 0)
		_, err = c.content.Info(c.ctx, &contentapi.InfoRequest{Digest: name})
	case "snapshot":
		_, err = c.snapshots.Stat(c.ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: name})
	case "image":
		_, err = c.images.Get(c.ctx, &imagesapi.GetImageRequest{Name: name})
	case "container":
		_, err = c.containers.Get(c.ctx, &containersapi.GetContainerRequest{ID: name})
	case "task", "running":
		var r *tasksapi.GetResponse
		r, err = c.tasks.Get(c.ctx, &tasksapi.GetRequest{ContainerID: name})
		if err == nil && kind == "running" && r.Process.Status != task.Status_RUNNING {
			return false, nil
		}
	}
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	return err == nil, err
}

// clear deletes all that the client may have made.
func (c *witness) clear() {
	fine := func(key string, err error) {
		if code := status.Code(err); code != codes.OK && code != codes.NotFound {
			c.t.Errorf("clear %s: %v", key, err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.facts)) {
		kind, name, _ := strings.Cut(key, " ")
		var err error
		switch kind {
		case "task":
			if is, _ := c.look("task", name); is {
				c.tasks.Kill(c.ctx, &tasksapi.KillRequest{ContainerID: name, Signal: 9})
				c.wait(c.t, name)
				_, err = c.tasks.Delete(c.ctx, &tasksapi.DeleteTaskRequest{ContainerID: name})
			}
		case "container":
			_, err = c.containers.Delete(c.ctx, &containersapi.DeleteContainerRequest{ID: name})
		case "image":
			_, err = c.images.Delete(c.ctx, &imagesapi.DeleteImageRequest{Name: name})
		case "lease":
			_, err = c.leases.Delete(c.ctx, &leasesapi.DeleteRequest{ID: name})
		}
		fine(key, err)
	}
	for _, st := range ok(c.content.ListStatuses(c.ctx, &contentapi.ListStatusesRequest{}))(c.t).Statuses {
		_, err := c.content.Abort(c.ctx, &contentapi.AbortRequest{Ref: st.Ref})
		fine("ingest "+st.Ref, err)
	}
}

// rmCgroups removes the cgroups of tasks whose creation was cut off. The stock shim
// kills its runc when the daemon that asked for a task is gone, and a runc that is
// killed before it has written its state leaves cgroups that nobody can find.
func (c *witness) rmCgroups() {
	for key, f := range c.facts {
		if name, ok := strings.CutPrefix(key, "task "); ok && f == maybe {
			for _, dir := range globbed(c.t, filepath.Join("/sys/fs/cgroup/*", c.ns, name)) {
				if err := os.Remove(dir); err != nil {
					c.t.Error(err)
				}
			}
		}
	}
}
