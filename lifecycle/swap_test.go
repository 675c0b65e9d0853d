package lifecycle_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A host changes from containerd to lifecycle and back, on the same directories
// and the same socket, while tasks run.
func TestContainerdIsSwappedWhileTasksRun(t *testing.T) {
	for _, way := range []struct {
		name          string
		first, second func(daemon, testing.TB) func()
	}{
		{"from containerd to lifecycle and back", daemon.startTheirs, daemon.startOurs},
		{"from lifecycle to containerd and back", daemon.startOurs, daemon.startTheirs},
	} {
		t.Run(way.name, func(t *testing.T) {
			w := newWorld(t)
			stop := way.first(w.daemon, t)
			w.fill(t)
			ticks := filepath.Join(w.rootfs, "tmp/ticks")
			w.run(t, "ticks", "while :; do echo x >> /tmp/ticks; sleep 0.02; done")
			w.run(t, "exits", "while [ ! -e /tmp/exit ]; do sleep 0.02; done; exit 5")
			pid := w.get(t, "ticks").Pid
			before := w.dump(t)
			stop()
			ok(os.Create(filepath.Join(w.rootfs, "tmp/exit")))(t).Close()

			stop = way.second(w.daemon, t)
			if after := w.dump(t); after != before {
				t.Errorf("what it had:\n%s\nwhat it has:\n%s", before, after)
			}
			if p := w.get(t, "ticks"); p.Status != task.Status_RUNNING || p.Pid != pid {
				t.Errorf("ticks: %v", p)
			}
			eventually(t, "the exit is found", func() error {
				if p := w.get(t, "exits"); p.Status != task.Status_STOPPED || p.ExitStatus != 5 {
					return fmt.Errorf("exits: %v", p)
				}
				return nil
			})
			w.exec(t, "ticks", "exit 7", 7)
			w.run(t, "new", "exec sleep 1000")
			w.remove(t, "exits")
			w.refill(t)
			before = w.dump(t)
			stop()

			way.first(w.daemon, t)
			if after := w.dump(t); after != before {
				t.Errorf("what it had:\n%s\nwhat it has:\n%s", before, after)
			}
			w.exec(t, "new", "exit 8", 8)
			size := ok(os.Stat(ticks))(t).Size()
			eventually(t, "it ticks", func() error {
				if now := ok(os.Stat(ticks))(t).Size(); now == size {
					return fmt.Errorf("still %d", now)
				}
				return nil
			})
			for _, id := range []string{"ticks", "new"} {
				w.kill(t, id)
				if r := w.wait(t, id); r.ExitStatus != 137 {
					t.Errorf("%s ends with %v", id, r)
				}
				w.remove(t, id)
			}
		})
	}
}

// exec runs a script in a task.
func (w *world) exec(t testing.TB, id, script string, want uint32) {
	t.Helper()
	ask := &tasksapi.ExecProcessRequest{ContainerID: id, ExecID: "x", Spec: process(t, script)}
	ok(w.tasks.Exec(w.ctx, ask))(t)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: id, ExecID: "x"}))(t)
	if r := ok(w.tasks.Wait(w.ctx, &tasksapi.WaitRequest{ContainerID: id, ExecID: "x"}))(t); r.ExitStatus != want {
		t.Errorf("exec ends with %v", r)
	}
	ok(w.tasks.DeleteProcess(w.ctx, &tasksapi.DeleteProcessRequest{ContainerID: id, ExecID: "x"}))(t)
}

// fill makes some of everything that is kept on disk.
func (w *world) fill(t testing.TB) {
	t.Helper()
	ok(w.namespaces.Create(w.ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: w.ns, Labels: map[string]string{"n": "1"}}}))(t)
	ok(w.leases.Create(w.ctx, &leasesapi.CreateRequest{ID: "l", Labels: map[string]string{"a": "1", "containerd.io/gc.expire": "2099-01-01T00:00:00Z"}}))(t)
	held := in(w.ns, "containerd-lease", "l")
	ok(w.write(held, "leased", []byte("leased"), nil))(t)
	dgst := ok(w.write(w.ctx, "1", []byte("manifest"), map[string]string{"k": "v", root: "x"}))(t)
	half := ok(w.content.Write(held))(t)
	if err := half.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Ref: "half", Data: []byte("ha"), Total: 4}); err != nil {
		t.Fatal(err)
	}
	ok(half.Recv())(t)
	half.CloseSend()
	for err := error(nil); !errors.Is(err, io.EOF); _, err = half.Recv() {
		if err != nil {
			t.Fatal(err)
		}
	}
	img := &imagesapi.Image{Name: "docker.io/library/x:1", Labels: map[string]string{"i": "1"}, Target: target("manifest")}
	img.Target.Digest = dgst.String()
	ok(w.images.Create(w.ctx, &imagesapi.CreateImageRequest{Image: img}))(t)
	w.layer(t, "base", "")
	w.layer(t, "top", "base")
	ok(w.snapshots.Prepare(w.ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "rw", Parent: "top", Labels: map[string]string{root: "x"}}))(t)
	ok(w.snapshots.View(w.ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "ro", Parent: "top", Labels: map[string]string{root: "x"}}))(t)
	c := container("c", map[string]string{"l": "1"})
	c.Snapshotter, c.SnapshotKey = "overlayfs", "rw"
	c.Extensions = map[string]*anypb.Any{"e": {TypeUrl: "u", Value: []byte{0, 1, 2}}}
	c.Runtime = &containersapi.Container_Runtime{Name: "io.containerd.runc.v2", Options: &anypb.Any{TypeUrl: "containerd.runc.v1.Options"}}
	ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
}

// layer commits a snapshot.
func (w *world) layer(t testing.TB, name, parent string) {
	t.Helper()
	labels := map[string]string{root: "x"}
	ok(w.snapshots.Prepare(w.ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: name + "-", Parent: parent, Labels: labels}))(t)
	ok(w.snapshots.Commit(w.ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: name, Key: name + "-", Labels: labels}))(t)
}

// refill changes some of what fill made.
func (w *world) refill(t testing.TB) {
	t.Helper()
	ok(w.images.Update(w.ctx, &imagesapi.UpdateImageRequest{Image: &imagesapi.Image{Name: "docker.io/library/x:1", Labels: map[string]string{"i": "2"}}, UpdateMask: mask("labels.i")}))(t)
	ok(w.containers.Update(w.ctx, &containersapi.UpdateContainerRequest{
		Container: &containersapi.Container{ID: "c", Extensions: map[string]*anypb.Any{"f": {TypeUrl: "u"}}}, UpdateMask: mask("extensions.f"),
	}))(t)
	ok(w.snapshots.Remove(w.ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "ro"}))(t)
	w.layer(t, "more", "top")
	ok(w.write(in(w.ns, "containerd-lease", "l"), "half", []byte("half"), nil))(t)
	ok(w.leases.Create(w.ctx, &leasesapi.CreateRequest{ID: "m"}))(t)
	ok(w.leases.Delete(w.ctx, &leasesapi.DeleteRequest{ID: "m", Sync: true}))(t)
}

// dump is everything that the daemon says it has in the world's namespace.
func (w *world) dump(t testing.TB) string {
	t.Helper()
	var all []string
	add := func(m proto.Message) {
		// prototext spaces at random, so that nobody compares it.
		all = append(all, strings.Join(strings.Fields(prototext.MarshalOptions{}.Format(m)), " "))
	}
	add(ok(w.namespaces.Get(w.ctx, &namespacesapi.GetNamespaceRequest{Name: w.ns}))(t))
	for _, c := range ok(w.containers.List(w.ctx, &containersapi.ListContainersRequest{}))(t).Containers {
		add(c)
	}
	for _, i := range ok(w.images.List(w.ctx, &imagesapi.ListImagesRequest{}))(t).Images {
		add(i)
	}
	for _, l := range ok(w.leases.List(w.ctx, &leasesapi.ListRequest{}))(t).Leases {
		add(l)
		for _, r := range ok(w.leases.ListResources(w.ctx, &leasesapi.ListResourcesRequest{ID: l.ID}))(t).Resources {
			add(r)
		}
	}
	for _, st := range ok(w.content.ListStatuses(w.ctx, &contentapi.ListStatusesRequest{}))(t).Statuses {
		all = append(all, fmt.Sprintf("ingest %s: %d of %d", st.Ref, st.Offset, st.Total))
	}
	for _, dgst := range ok(w.blobs(w.ctx))(t) {
		add(ok(w.content.Info(w.ctx, &contentapi.InfoRequest{Digest: dgst}))(t))
		if text := w.read(t, w.ctx, dgst, 0, 0); digest.FromString(text).String() != dgst {
			t.Errorf("blob %s is %q", dgst, text)
		}
	}
	for _, key := range ok(w.snapshotKeys(w.ctx))(t) {
		add(ok(w.snapshots.Stat(w.ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: key}))(t))
		if m, err := w.snapshots.Mounts(w.ctx, &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: key}); err == nil {
			add(m)
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}
