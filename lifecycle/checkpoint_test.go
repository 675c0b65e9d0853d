package lifecycle_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
)

const checkpointType = "application/vnd.containerd.container.criu.checkpoint.criu.tar"

// checkpoint writes a tar as content, as a client has it from a registry.
func (w *world) checkpoint(t *testing.T, mediaType string, headers ...tar.Header) *types.Descriptor {
	t.Helper()
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode, h.Size = 0o600, 0
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := out.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			out.Write([]byte("data"))
		}
	}
	out.Close()
	return w.blob(t, mediaType, b.Bytes())
}

func (w *world) blob(t *testing.T, mediaType string, data []byte) *types.Descriptor {
	t.Helper()
	dgst := ok(w.write(w.ctx, "checkpoint", data, map[string]string{"containerd.io/gc.root": "test"}))(t)
	return &types.Descriptor{MediaType: mediaType, Digest: dgst.String(), Size: int64(len(data))}
}

func (w *world) createFrom(d *types.Descriptor) error {
	_, err := w.tasks.Create(w.ctx, &tasksapi.CreateTaskRequest{
		ContainerID: "x", Checkpoint: d,
		Rootfs: []*types.Mount{{Type: "bind", Source: w.rootfs, Options: []string{"rbind", "rw"}}},
	})
	return err
}

func TestACheckpointThatIsNoneLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	for name, row := range map[string]struct {
		desc *types.Descriptor
		want codes.Code
	}{
		"another type":            {w.checkpoint(t, "application/vnd.oci.image.layer.v1.tar", file("a")), codes.InvalidArgument},
		"no tar":                  {w.blob(t, checkpointType, bytes.Repeat([]byte("no"), 600)), codes.InvalidArgument},
		"a file that leads out":   {w.checkpoint(t, checkpointType, file("../out")), codes.InvalidArgument},
		"a link":                  {w.checkpoint(t, checkpointType, tar.Header{Name: "parent", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), codes.InvalidArgument},
		"a file that comes twice": {w.checkpoint(t, checkpointType, file("a"), file("./a")), codes.InvalidArgument},
		"one that is not there": {
			&types.Descriptor{MediaType: checkpointType, Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
			codes.NotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := container("x", nil)
			c.Spec = w.spec(t, "x", "true")
			ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
			wantCode(t, row.want, w.createFrom(row.desc))
			_, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "x"})
			wantCode(t, codes.NotFound, err)
			ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "x"}))(t)
			w.nothingLeft(t, "x")
			if left := globbed(t, filepath.Join(w.dir, "*/*/*/out")); len(left) > 0 {
				t.Errorf("unpacked: %v", left)
			}
		})
	}
}

func TestATaskOfACheckpointIsRestoredByStart(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	c := container("x", nil)
	c.Spec = w.spec(t, "x", "true")
	ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
	dir := tar.Header{Name: "./sub/", Typeflag: tar.TypeDir}
	if err := w.createFrom(w.checkpoint(t, checkpointType, tar.Header{Name: "./inventory.img", Typeflag: tar.TypeReg}, dir)); err != nil {
		t.Fatal(err)
	}
	images := filepath.Join(w.root(), "io.containerd.runtime.v2.task", w.ns, "x", "checkpoint")
	if got := string(ok(os.ReadFile(filepath.Join(images, "inventory.img")))(t)); got != "data" {
		t.Errorf("the image holds %q", got)
	}
	if _, err := w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "x"}); err == nil {
		t.Error("what is no image is restored")
	}
	w.remove(t, "x")
}

func TestACheckpointOfWhatCannotHaveOne(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	_, err := w.tasks.Checkpoint(w.ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "none"})
	wantCode(t, codes.NotFound, err)
	w.run(t, "x", "while :; do :; done")
	_, err = w.tasks.Checkpoint(w.ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "x", Options: ok(anypb.New(&options.Options{}))(t)})
	wantCode(t, codes.InvalidArgument, err)
	w.kill(t, "x")
	w.wait(t, "x")
	if _, err = w.tasks.Checkpoint(w.ctx, &tasksapi.CheckpointTaskRequest{ContainerID: "x"}); err == nil {
		t.Error("a task that has ended is written")
	}
	if left := globbed(t, filepath.Join(w.root(), "io.containerd.runtime.v2.task", w.ns, "x", "checkpoint*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.remove(t, "x")
}
