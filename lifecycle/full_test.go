package lifecycle_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/lifecycle"
)

// A full disk is said to be one, and what was answered before is there after.
func TestAFullDiskIsSaid(t *testing.T) {
	d := newDaemon(t)
	if err := os.Mkdir(d.root(), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", d.root(), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
	}
	defer func() {
		if err := unix.Unmount(d.root(), 0); err != nil {
			t.Error(err)
		}
	}()
	weight := filepath.Join(d.root(), ballast)
	if err := os.WriteFile(weight, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := d.startOurs(t)
	defer stop() // before the unmount
	a, ctx := d.dial(t), in("ns")
	create := func(n int) error {
		c := container(fmt.Sprintf("c%d", n), nil)
		c.Spec = &anypb.Any{Value: make([]byte, 200<<10)}
		_, err := a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
		return err
	}
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		err = create(n)
	}
	wantCode(t, codes.ResourceExhausted, err)
	_, err = a.write(ctx, "big", make([]byte, 4<<20), nil)
	wantCode(t, codes.ResourceExhausted, err)
	if list := ok(a.containers.List(ctx, &containersapi.ListContainersRequest{}))(t); len(list.Containers) != n-1 {
		t.Errorf("%d containers are there, want %d", len(list.Containers), n-1)
	}
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	wantCode(t, codes.OK, create(n))
	stop()

	stop = d.startOurs(t)
	defer stop()
	a = d.dial(t)
	if list := ok(a.containers.List(ctx, &containersapi.ListContainersRequest{}))(t); len(list.Containers) != n {
		t.Errorf("%d containers are there, want %d", len(list.Containers), n)
	}
}

// stores are what is written, store by store, each as one thing that is there or
// not; NAME makes things of one try differ from those of the next.
var stores = []struct {
	name string
	// write makes the thing; it needs room.
	write func(t *testing.T, w *world, name string) error
	// left says what of a write that failed is there.
	left func(t *testing.T, w *world, name string) []string
}{
	{"a container", func(_ *testing.T, w *world, name string) error {
		c := container(name, nil)
		c.Spec = &anypb.Any{Value: make([]byte, 3<<20)}
		_, err := w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c})
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.containers.Get(w.ctx, &containersapi.GetContainerRequest{ID: name})
		return ifThere(t, err, "container")
	}},
	{"an image", func(_ *testing.T, w *world, name string) error {
		_, err := w.images.Create(w.ctx, &imagesapi.CreateImageRequest{Image: &imagesapi.Image{Name: name, Target: layerBlob(nil), Labels: manyLabels()}})
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.images.Get(w.ctx, &imagesapi.GetImageRequest{Name: name})
		return ifThere(t, err, "image")
	}},
	{"the labels of a container", func(_ *testing.T, w *world, name string) error {
		c := container("made", manyLabels())
		_, err := w.containers.Update(w.ctx, &containersapi.UpdateContainerRequest{Container: c, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}})
		return err
	}, func(t *testing.T, w *world, name string) (left []string) {
		for label := range ok(w.containers.Get(w.ctx, &containersapi.GetContainerRequest{ID: "made"}))(t).Container.Labels {
			left = append(left, label)
		}
		return left
	}},
	{"a blob", func(_ *testing.T, w *world, name string) error {
		_, err := w.write(w.ctx, name, make([]byte, 4<<20), nil)
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.content.Info(w.ctx, &contentapi.InfoRequest{Digest: digest.FromBytes(make([]byte, 4<<20)).String()})
		return ifThere(t, err, "blob")
	}},
	{"the files of a layer", func(t *testing.T, w *world, name string) error {
		r, err := w.snapshots.Prepare(w.ctx, &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: name, Labels: map[string]string{"containerd.io/gc.root": "yes"},
		})
		if err != nil {
			return err
		}
		_, err = w.diff.Apply(w.ctx, &diffapi.ApplyRequest{Diff: layerBlob(t), Mounts: r.Mounts})
		// Whoever unpacks takes a snapshot that came to nothing away: there is room for that.
		if err != nil {
			ok(w.snapshots.Remove(w.ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: name}))(t)
		}
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.snapshots.Stat(w.ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: name})
		return ifThere(t, err, "snapshot")
	}},
	{"the diff of a snapshot", func(t *testing.T, w *world, name string) error {
		m := ok(w.snapshots.Mounts(w.ctx, &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: "changed"}))(t)
		_, err := w.diff.Diff(w.ctx, &diffapi.DiffRequest{Right: m.Mounts, Ref: name, MediaType: "application/vnd.oci.image.layer.v1.tar"})
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.content.Status(w.ctx, &contentapi.StatusRequest{Ref: name})
		return ifThere(t, err, "ingest")
	}},
	{"a task", func(_ *testing.T, w *world, name string) error {
		_, err := w.createTask("made")
		return err
	}, func(t *testing.T, w *world, name string) []string {
		_, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "made"})
		return append(ifThere(t, err, "task"), globbed(t, filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "*"))...)
	}},
}

// manyLabels do not fit into what a database of nearly nothing has free.
func manyLabels() map[string]string {
	labels := map[string]string{}
	for i := range 900 { // each at the limit of its size
		labels[fmt.Sprintf("l%03d", i)] = strings.Repeat("x", 4000)
	}
	return labels
}

// inDatabase says of a store that its file is open, and cannot become read-only.
func inDatabase(store string) bool {
	return store == "a container" || store == "an image" || store == "the labels of a container"
}

func ifThere(t *testing.T, err error, what string) []string {
	t.Helper()
	if err == nil {
		return []string{what}
	}
	wantCode(t, codes.NotFound, err)
	return nil
}

// layerTar is a layer of one file that does not compress.
var layerTar = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(data))})
	w.Write(data)
	w.Close()
	return b.Bytes()
})

func layerBlob(*testing.T) *types.Descriptor {
	data := layerTar()
	return &types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest.FromBytes(data).String(), Size: int64(len(data))}
}

// prepared has what the stores need: a layer in the content store, a snapshot with
// a big file, and the record of a container.
func (w *world) prepared(t *testing.T) {
	t.Helper()
	root := map[string]string{"containerd.io/gc.root": "yes"}
	ok(w.write(w.ctx, "layer", layerTar(), root))(t)
	r := ok(w.snapshots.Prepare(w.ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "changed", Labels: root}))(t)
	ok(w.diff.Apply(w.ctx, &diffapi.ApplyRequest{Diff: layerBlob(t), Mounts: r.Mounts}))(t)
	c := container("made", nil)
	c.Spec = w.spec(t, "made", "exec sleep 1000")
	ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
}

// done takes away what a write that succeeded made.
func (w *world) done(t *testing.T) {
	w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "made"})
	w.nothingLeft(t, "made")
}

// In each store a write that finds no room says so, leaves nothing, and succeeds
// when there is room; and a full disk can be emptied by deleting.
func TestEveryStoreSaysThatTheDiskIsFull(t *testing.T) {
	for _, s := range stores {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t)
			tmpfs(t, w.root(), "size=24m")
			tmpfs(t, w.state(), "size=64k")
			stop := w.startOurs(t)
			defer stop() // before the unmount
			w.prepared(t)
			refill := func() {
				fill(t, w.root())
				fill(t, w.state())
			}
			refill()
			err := s.write(t, w, "one")
			wantCode(t, codes.ResourceExhausted, err)
			if err != nil && !strings.Contains(err.Error(), "no space left on device") {
				t.Errorf("the error does not say why: %v", err)
			}
			if left := s.left(t, w, "one"); len(left) > 0 {
				t.Errorf("left of it: %v", left)
			}
			stop()
			w.startOurs(t)
			if left := s.left(t, w, "one"); len(left) > 0 {
				t.Errorf("left of it after a restart: %v", left)
			}
			// What is deleted makes room.
			ok(w.snapshots.Remove(w.ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "changed"}))(t)
			empty(t, w.root())
			empty(t, w.state())
			if s.name != "the diff of a snapshot" { // which is gone now
				wantCode(t, codes.OK, s.write(t, w, "two"))
			}
			w.done(t)
		})
	}
}

// tmpfs mounts one on dir for the test.
func tmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
}

const ballast = "ballast"

// fill leaves no room in dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, ballast))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, ballast)); err != nil {
		t.Fatal(err)
	}
}

// The same where a file system was made read-only under the daemon; the database
// cannot be, while it is open.
func TestEveryStoreSaysThatItIsReadOnly(t *testing.T) {
	for _, s := range stores {
		if inDatabase(s.name) {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t)
			stop := w.startOurs(t)
			w.prepared(t)
			var thaw []func()
			for _, dir := range []string{
				filepath.Join(w.root(), "io.containerd.content.v1.content"),
				filepath.Join(w.root(), "io.containerd.snapshotter.v1.overlayfs/snapshots"),
				filepath.Join(w.state(), "io.containerd.runtime.v2.task"),
			} {
				thaw = append(thaw, readOnly(t, dir))
			}
			err := s.write(t, w, "one")
			wantCode(t, codes.FailedPrecondition, err)
			if err != nil && !strings.Contains(err.Error(), "read-only file system") {
				t.Errorf("the error does not say why: %v", err)
			}
			if left := s.left(t, w, "one"); len(left) > 0 {
				t.Errorf("left of it: %v", left)
			}
			for _, f := range thaw {
				f()
			}
			wantCode(t, codes.OK, s.write(t, w, "two"))
			w.done(t)
			stop()
		})
	}
}

// readOnly makes dir read-only until it is called.
func readOnly(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	if err != nil {
		t.Fatalf("make %s read-only (needs CAP_SYS_ADMIN): %v", dir, err)
	}
	thaw = sync.OnceFunc(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	return thaw
}

// A daemon whose root cannot be written does not start, and says what it could not.
func TestAReadOnlyRootIsSaid(t *testing.T) {
	d := newDaemon(t)
	if err := os.Mkdir(d.root(), 0o711); err != nil {
		t.Fatal(err)
	}
	defer readOnly(t, d.root())()
	l, err := lifecycle.New(t.Context(), d.config())
	if err == nil {
		l.Close()
		t.Fatal("it started")
	}
	if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), d.root()) {
		t.Errorf("the error does not say what and where: %v", err)
	}
}
