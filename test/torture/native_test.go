package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/test/rig"
)

// ours is the containerd namespace of the native clients; the engine's is moby.
const ours = "torture"

// native is a client of lifecycle.
type native struct {
	*world
	n     int
	rand  *rand.Rand
	made  int
	facts map[string]*mind // of "KIND NAME"; KIND is lease, blob, container or task

	containers containersapi.ContainersClient
	content    contentapi.ContentClient
	diff       diffapi.DiffClient
	images     imagesapi.ImagesClient
	leases     leasesapi.LeasesClient
	snapshots  snapshotsapi.SnapshotsClient
	pods       sandboxapi.StoreClient
	sandboxes  sandboxapi.ControllerClient
	tasks      tasksapi.TasksClient
	transfer   transferapi.TransferClient
}

func newNative(w *world, n int) *native {
	// A daemon that was killed is back soon.
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}
	conn, err := grpc.NewClient(
		"unix:"+w.daemon.ContainerdAddress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(soon), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), grpc.WithUnaryInterceptor(w.timed),
	)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return &native{
		world: w, n: n, rand: w.rand(1000 + n), facts: map[string]*mind{},
		containers: containersapi.NewContainersClient(conn), content: contentapi.NewContentClient(conn), diff: diffapi.NewDiffClient(conn),
		images: imagesapi.NewImagesClient(conn), leases: leasesapi.NewLeasesClient(conn), snapshots: snapshotsapi.NewSnapshotsClient(conn),
		pods: sandboxapi.NewStoreClient(conn), sandboxes: sandboxapi.NewControllerClient(conn),
		tasks: tasksapi.NewTasksClient(conn), transfer: transferapi.NewTransferClient(conn),
	}
}

// timed fails the test when an answer takes too long, and counts answers.
func (w *world) timed(ctx context.Context, method string, req, resp any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := call(ctx, method, req, resp, conn, opts...)
	switch {
	case ctx.Err() != nil:
		w.t.Errorf("%s: no answer in %v", method, patience)
	case status.Code(err) != codes.Unavailable:
		w.answers.Add(1)
	}
	return err
}

// in is a request in namespace ns, with further pairs of metadata.
func in(ns string, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), append([]string{"containerd-namespace", ns}, pairs...)...)
}

// again asks until there is an answer; only for requests that may be repeated.
func again[T any](ask func() (T, error)) (v T, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if v, err = ask(); status.Code(err) != codes.Unavailable {
			return v, err
		}
	}
	return v, err
}

// unpackBase makes the snapshot "base", busybox, and the image that keeps it.
func (c *native) unpackBase() {
	layer, desc := c.layer()
	ctx := in(ours, "containerd-lease", "base")
	_, err := c.leases.Create(in(ours), &leasesapi.CreateRequest{ID: "base"})
	if err == nil {
		err = c.write(ctx, "base", layer, nil)
	}
	if err == nil {
		var r *snapshotsapi.PrepareSnapshotResponse
		if r, err = c.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "base-"}); err == nil {
			_, err = c.diff.Apply(ctx, &diffapi.ApplyRequest{Diff: desc, Mounts: r.Mounts})
		}
	}
	if err == nil {
		_, err = c.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "base", Key: "base-"})
	}
	if err == nil {
		_, err = c.images.Create(ctx, &imagesapi.CreateImageRequest{Image: &imagesapi.Image{
			Name: "base", Target: desc, Labels: map[string]string{"containerd.io/gc.ref.snapshot.overlayfs": "base"},
		}})
	}
	if err == nil {
		_, err = c.leases.Delete(in(ours), &leasesapi.DeleteRequest{ID: "base"})
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// layer reads the one layer of the busybox image.
func (c *native) layer() ([]byte, *types.Descriptor) {
	dir := rig.Busybox(c.t)
	read := func(d digest.Digest, v any) []byte {
		data, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", d.Encoded()))
		if err == nil && v != nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		return data
	}
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	var index ocispec.Index
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &index); err != nil {
		c.t.Fatal(err)
	}
	read(index.Manifests[0].Digest, &manifest)
	l := manifest.Layers[0]
	return read(l.Digest, nil), &types.Descriptor{MediaType: l.MediaType, Digest: l.Digest.String(), Size: l.Size}
}

// write writes a blob in pieces.
func (c *native) write(ctx context.Context, ref string, data []byte, labels map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.content.Write(ctx)
	if err != nil {
		return err
	}
	total, whole := int64(len(data)), digest.FromBytes(data).String()
	send := func(r *contentapi.WriteContentRequest) error {
		r.Ref, r.Total, r.Expected = ref, total, whole
		if err := s.Send(r); err != nil && !errors.Is(err, io.EOF) { // else Recv has the reason
			return err
		}
		_, err := s.Recv()
		return err
	}
	for piece := range chunks(data, 16<<10) {
		if err := send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Offset: piece.at, Data: piece.data}); err != nil {
			return err
		}
	}
	if err := send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Offset: total, Labels: labels}); err != nil {
		return err
	}
	c.answers.Add(1)
	return s.CloseSend()
}

type chunk struct {
	at   int64
	data []byte
}

func chunks(data []byte, size int) func(func(chunk) bool) {
	return func(yield func(chunk) bool) {
		for at := 0; at < len(data); at += size {
			if !yield(chunk{int64(at), data[at:min(at+size, len(data))]}) {
				return
			}
		}
	}
}

// work makes containers and tasks, and takes some of them apart, until ctx ends.
func (c *native) work(ctx context.Context) {
	for ctx.Err() == nil {
		c.made++
		name := fmt.Sprintf("n%d-%d", c.n, c.made)
		if c.makeContainer(name) && c.rand.IntN(4) != 0 {
			c.runTask(name)
		}
		if c.rand.IntN(8) != 0 {
			c.takeApart(name)
		}
	}
}

// told notes what became of a thing, and says whether the client goes on.
func (c *native) told(err error, becomes, kind, name string) bool {
	m := c.fact(kind, name)
	switch status.Code(err) {
	case codes.OK:
		m.is(becomes)
		return true
	case codes.Unavailable: // killed under the call
		m.also(becomes)
	case codes.NotFound:
		if m.may["gone"] {
			m.is("gone") // what was cut off had been done
			return false
		}
		fallthrough
	default:
		c.t.Errorf("%s %s, which may be %s, was to be %s: %v", kind, name, m, becomes, err)
		m.also(becomes)
	}
	return false
}

func (c *native) fact(kind, name string) *mind {
	m := c.facts[kind+" "+name]
	if m == nil {
		m = newMind("gone")
		c.facts[kind+" "+name] = m
	}
	return m
}

// blob is what the client writes for a container.
func blob(name string) []byte {
	return bytes.Repeat([]byte(name+"\n"), 1000+len(name)*1000)
}

func (c *native) makeContainer(name string) bool {
	_, err := c.leases.Create(in(ours), &leasesapi.CreateRequest{ID: name})
	if !c.told(err, "there", "lease", name) {
		return false
	}
	held := in(ours, "containerd-lease", name)
	err = c.write(held, name, blob(name), nil)
	if !c.told(err, "there", "blob", name) {
		return false
	}
	_, err = c.snapshots.Prepare(held, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: name, Parent: "base"})
	if !c.told(err, "there", "snapshot", name) {
		return false
	}
	_, err = c.containers.Create(in(ours), &containersapi.CreateContainerRequest{Container: c.container(name)})
	if !c.told(err, "there", "container", name) {
		return false
	}
	_, err = c.leases.Delete(in(ours), &leasesapi.DeleteRequest{ID: name, Sync: c.rand.IntN(2) == 0})
	return c.told(err, "gone", "lease", name)
}

// container runs until it is killed, or ends with a code of its name's.
func (c *native) container(name string) *containersapi.Container {
	s := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"sh", "-c", "[ $CODE = 0 ] && exec sleep 1000; sleep 0.2; exit $CODE"},
			Env:  []string{"PATH=/bin", fmt.Sprintf("CODE=%d", ends(name))}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{},
		},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			CgroupsPath: "/" + ours + "/" + name,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}},
		},
	}
	data, err := json.Marshal(s)
	if err != nil {
		c.t.Error(err)
	}
	return &containersapi.Container{
		ID: name, Snapshotter: "overlayfs", SnapshotKey: name, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.gantry.v2"},
		Spec:   &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: data},
		Labels: map[string]string{"containerd.io/gc.ref.content.blob": digest.FromBytes(blob(name)).String()},
	}
}

// ends is the code with which the program of a container ends; 0 is never.
func ends(name string) int {
	if n := int(name[len(name)-1] - '0'); n%2 == 1 {
		return 40 + n
	}
	return 0
}

func exited(status int) string { return fmt.Sprintf("exited %d", status) }

func (c *native) runTask(name string) {
	m := c.fact("task", name)
	mounts, err := again(func() (*snapshotsapi.MountsResponse, error) {
		return c.snapshots.Mounts(in(ours), &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: name})
	})
	if err != nil {
		c.t.Errorf("mounts of %s: %v", name, err)
		return
	}
	_, err = c.tasks.Create(in(ours), &tasksapi.CreateTaskRequest{ContainerID: name, Rootfs: mounts.Mounts})
	if !c.told(err, "created", "task", name) {
		return
	}
	if code := ends(name); code != 0 {
		m.mayEnd(exited(code))
	}
	if _, err = c.tasks.Start(in(ours), &tasksapi.StartRequest{ContainerID: name}); !c.told(err, "running", "task", name) {
		return
	}
	if c.rand.IntN(2) == 0 {
		c.exec(name)
	}
	if ends(name) == 0 {
		if c.rand.IntN(3) == 0 {
			return // it runs on
		}
		m.mayEnd(exited(137))
		if _, err := c.tasks.Kill(in(ours), &tasksapi.KillRequest{ContainerID: name, Signal: 9}); err != nil {
			if status.Code(err) != codes.Unavailable {
				c.t.Errorf("kill task %s: %v", name, err)
			}
			return
		}
	}
	// Whoever asks, and how often, and whomever: the exit is the same.
	for range 2 {
		r, err := again(func() (*tasksapi.WaitResponse, error) {
			return c.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: name})
		})
		if err != nil {
			c.t.Errorf("wait for task %s, which may be %s: %v", name, m, err)
			return
		}
		if err := m.sees(exited(int(r.ExitStatus))); err != nil {
			c.t.Errorf("task %s %v", name, err)
		}
	}
	m.ends = map[string]bool{}
}

func (c *native) exec(name string) {
	_, err := c.tasks.Exec(in(ours), &tasksapi.ExecProcessRequest{ContainerID: name, ExecID: "e", Spec: process("exit 33")})
	if err == nil {
		_, err = c.tasks.Start(in(ours), &tasksapi.StartRequest{ContainerID: name, ExecID: "e"})
	}
	if err != nil {
		if status.Code(err) != codes.Unavailable && ends(name) == 0 {
			c.t.Errorf("exec in %s: %v", name, err)
		}
		return
	}
	r, err := again(func() (*tasksapi.WaitResponse, error) {
		return c.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: name, ExecID: "e"})
	})
	if ends(name) == 0 && (err != nil || r.ExitStatus != 33) {
		c.t.Errorf("wait for exec in %s: %v %v", name, r, err)
	}
}

// process is a shell that runs script.
func process(script string) *anypb.Any {
	data, err := json.Marshal(specs.Process{Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/"})
	if err != nil {
		panic(err) // strings alone
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: data}
}

func (c *native) takeApart(name string) {
	m := c.fact("task", name)
	if !m.certain("gone") {
		c.endTask(name)
	}
	if c.fact("container", name).may["there"] {
		_, err := c.containers.Delete(in(ours), &containersapi.DeleteContainerRequest{ID: name})
		c.told(err, "gone", "container", name)
	}
	// From here on the collector may come to them.
	c.fact("blob", name).also("gone")
	c.fact("snapshot", name).also("gone")
}

// endTask kills and deletes a task, which has the exit that it was told to have.
func (c *native) endTask(name string) {
	m := c.fact("task", name)
	fine := func(what string, err error) bool {
		if code := status.Code(err); code != codes.OK && code != codes.NotFound && code != codes.FailedPrecondition && code != codes.Unavailable {
			c.t.Errorf("%s task %s, which may be %s: %v", what, name, m, err)
		}
		return err == nil
	}
	_, err := again(func() (*emptypb.Empty, error) { // what was not killed may never end
		return c.tasks.Kill(in(ours), &tasksapi.KillRequest{ContainerID: name, Signal: 9})
	})
	if m.may["running"] || m.may["created"] {
		m.mayEnd(exited(137))
	}
	fine("kill", err)
	r, err := again(func() (*tasksapi.WaitResponse, error) {
		return c.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: name})
	})
	if fine("wait for", err) && !m.may["created"] {
		if err := m.sees(exited(int(r.ExitStatus))); err != nil {
			c.t.Errorf("task %s %v", name, err)
		}
	}
	was := m.String()
	d, err := c.tasks.Delete(in(ours), &tasksapi.DeleteTaskRequest{ContainerID: name})
	if err == nil && r != nil && d.ExitStatus != r.ExitStatus {
		c.t.Errorf("task %s, which may be %s, was deleted with exit %d; wait said %d", name, was, d.ExitStatus, r.ExitStatus)
	}
	m.ends = map[string]bool{}
	switch status.Code(err) {
	case codes.OK, codes.NotFound:
		m.is("gone")
	default:
		fine("delete", err)
		m.also("gone")
	}
}

// testify compares what the client was told with what there is.
func (c *native) testify() {
	for key, m := range c.facts {
		kind, name, _ := strings.Cut(key, " ")
		state, err := c.look(kind, name)
		if err == nil {
			err = m.sees(state)
		}
		if err != nil {
			c.t.Errorf("%s: %v", key, err)
		}
	}
}

func (c *native) look(kind, name string) (state string, err error) {
	ctx := in(ours)
	switch kind {
	case "lease":
		_, err = c.leases.ListResources(ctx, &leasesapi.ListResourcesRequest{ID: name})
	case "blob":
		err = c.verify(digest.FromBytes(blob(name)))
	case "snapshot":
		_, err = c.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: name})
	case "container":
		_, err = c.containers.Get(ctx, &containersapi.GetContainerRequest{ID: name})
	case "task":
		var r *tasksapi.GetResponse
		r, err = c.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: name})
		if err == nil {
			if r.Process.Status == task.Status_STOPPED {
				return exited(int(r.Process.ExitStatus)), nil
			}
			return strings.ToLower(r.Process.Status.String()), nil
		}
	}
	if status.Code(err) == codes.NotFound {
		return "gone", nil
	}
	return "there", err
}

// verify reads a blob and says whether it is what it is called.
func (c *native) verify(d digest.Digest) error {
	s, err := c.content.Read(in(ours), &contentapi.ReadContentRequest{Digest: d.String()})
	if err != nil {
		return err
	}
	v := d.Verifier()
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		v.Write(r.Data)
	}
	if !v.Verified() {
		return fmt.Errorf("blob %s is not what it is called", d)
	}
	return nil
}

// clear deletes all that the client may have made.
func (c *native) clear() {
	for key := range c.facts {
		kind, name, _ := strings.Cut(key, " ")
		var err error
		switch kind {
		case "container":
			if s, _ := c.look("task", name); s != "gone" {
				c.endTask(name)
			}
			_, err = c.containers.Delete(in(ours), &containersapi.DeleteContainerRequest{ID: name})
		case "lease":
			_, err = c.leases.Delete(in(ours), &leasesapi.DeleteRequest{ID: name})
		}
		if code := status.Code(err); code != codes.OK && code != codes.NotFound {
			c.t.Errorf("clear %s: %v", key, err)
		}
	}
}
