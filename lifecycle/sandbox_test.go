package lifecycle_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	shimapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
)

// pods is a client of the sandbox services.
type pods struct {
	*world
	store      sandboxapi.StoreClient
	controller sandboxapi.ControllerClient
	shim       string // our shim, the only one with a sandbox service
}

func newPods(t *testing.T) *pods {
	w := newWorld(t)
	return &pods{world: w, store: sandboxapi.NewStoreClient(w), controller: sandboxapi.NewControllerClient(w), shim: w.ourShim(t)}
}

// ourShim builds our shim.
func (w *world) ourShim(t *testing.T) string {
	t.Helper()
	shim := filepath.Join(w.dir, "containerd-shim-gantry-v2")
	cmd := exec.Command("go", "build", "-o", shim, "../cmd/containerd-shim-gantry-v2")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the shim: %v: %s", err, out)
	}
	return shim
}

// create records a sandbox and starts its shim.
func (p *pods) create(t *testing.T, id string) {
	t.Helper()
	sb := &types.Sandbox{SandboxID: id, Sandboxer: "shim", Runtime: &types.Sandbox_Runtime{Name: p.shim}, Spec: p.spec(t, id, "exec sleep 1000")}
	ok(p.store.Create(p.ctx, &sandboxapi.StoreCreateRequest{Sandbox: sb}))(t)
	ok(p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{
		SandboxID: id, Sandboxer: "shim", Sandbox: sb,
		Rootfs: []*types.Mount{{Type: "bind", Source: p.rootfs, Options: []string{"rbind", "rw"}}},
	}))(t)
}

func (p *pods) status(t *testing.T, id string) *sandboxapi.ControllerStatusResponse {
	t.Helper()
	return ok(p.controller.Status(p.ctx, &sandboxapi.ControllerStatusRequest{SandboxID: id, Sandboxer: "shim"}))(t)
}

// member runs a container in the shim at address, or, without, in that of the
// sandbox that it is recorded in.
func (p *pods) member(t *testing.T, id, sandbox, address string) {
	t.Helper()
	c := container(id, nil)
	c.Spec, c.Sandbox = p.spec(t, id, "exec sleep 1000"), sandbox
	c.Runtime = &containersapi.Container_Runtime{Name: p.shim}
	ok(p.containers.Create(p.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
	ok(p.tasks.Create(p.ctx, &tasksapi.CreateTaskRequest{
		ContainerID: id, TaskApiAddress: address,
		Rootfs: []*types.Mount{{Type: "bind", Source: p.rootfs, Options: []string{"rbind", "rw"}}},
	}))(t)
	ok(p.tasks.Start(p.ctx, &tasksapi.StartRequest{ContainerID: id}))(t)
}

func (p *pods) end(t *testing.T, id string) {
	t.Helper()
	p.kill(t, id)
	if r := p.wait(t, id); r.ExitStatus != 137 {
		t.Errorf("%s ended with %d", id, r.ExitStatus)
	}
	ok(p.tasks.Delete(p.ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}))(t)
	ok(p.containers.Delete(p.ctx, &containersapi.DeleteContainerRequest{ID: id}))(t)
}

func TestASandboxHasItsContainersAndOutlivesTheDaemon(t *testing.T) {
	p := newPods(t)
	stop := p.startOurs(t)
	p.create(t, "pod")
	started := ok(p.controller.Start(p.ctx, &sandboxapi.ControllerStartRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	if st := p.status(t, "pod"); st.State != "SANDBOX_READY" || st.Pid == 0 || st.Pid != started.Pid || st.Address != started.Address {
		t.Errorf("status %v, started %v", st, started)
	}
	if !strings.HasPrefix(started.Address, "ttrpc+unix://") || started.Version != 3 {
		t.Errorf("endpoint %s, version %d", started.Address, started.Version)
	}
	p.member(t, "by-record", "pod", "")
	p.member(t, "by-address", "", started.Address)
	eventually(t, "the shim that was started ahead is gone", func() error {
		if n := len(p.shims(t, "")); n != 1 {
			return fmt.Errorf("%d shims; the pod has one", n)
		}
		return nil
	})
	if list := ok(p.tasks.List(p.ctx, &tasksapi.ListTasksRequest{}))(t); len(list.Tasks) != 2 {
		t.Errorf("tasks %v; a sandbox is none", list.Tasks)
	}

	stop()
	stop = p.startOurs(t)
	defer stop()
	for _, id := range []string{"by-record", "by-address"} {
		if st := p.get(t, id); st.Status != task.Status_RUNNING {
			t.Errorf("%s is %v after a restart", id, st.Status)
		}
	}
	p.end(t, "by-record")
	if st := p.status(t, "pod"); st.State != "SANDBOX_READY" || st.Pid != started.Pid {
		t.Errorf("status after a restart and the end of a container: %v", st)
	}
	_, err := p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod", Sandboxer: "shim"})
	wantCode(t, codes.FailedPrecondition, err)
	p.end(t, "by-address")
	ok(p.controller.Stop(p.ctx, &sandboxapi.ControllerStopRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	if r := ok(p.controller.Wait(p.ctx, &sandboxapi.ControllerWaitRequest{SandboxID: "pod", Sandboxer: "shim"}))(t); r.ExitStatus != 137 {
		t.Errorf("the sandbox ended with %d", r.ExitStatus)
	}
	ok(p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	ok(p.store.Delete(p.ctx, &sandboxapi.StoreDeleteRequest{SandboxID: "pod"}))(t)
	p.nothingLeft(t, "*")
}

func TestASandboxWhoseShimDiedHasEnded(t *testing.T) {
	p := newPods(t)
	defer p.startOurs(t)()
	p.create(t, "pod")
	ok(p.controller.Start(p.ctx, &sandboxapi.ControllerStartRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	p.member(t, "one", "pod", "")
	syscall.Kill(p.shim1(t), syscall.SIGKILL)
	if r := ok(p.controller.Wait(p.ctx, &sandboxapi.ControllerWaitRequest{SandboxID: "pod", Sandboxer: "shim"}))(t); r.ExitStatus != 137 {
		t.Errorf("the sandbox ended with %d", r.ExitStatus)
	}
	if r := p.wait(t, "one"); r.ExitStatus != 137 {
		t.Errorf("its container ended with %d", r.ExitStatus)
	}
	if st := p.status(t, "pod"); st.State != "" || !st.ExitedAt.IsValid() {
		t.Errorf("status %v", st)
	}
	ok(p.controller.Stop(p.ctx, &sandboxapi.ControllerStopRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	ok(p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "pod", Sandboxer: "shim"}))(t)
	ok(p.tasks.Delete(p.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "one"}))(t)
	ok(p.containers.Delete(p.ctx, &containersapi.DeleteContainerRequest{ID: "one"}))(t)
	p.nothingLeft(t, "*")
}

// shim1 is the one shim that there is.
func (p *pods) shim1(t *testing.T) int {
	t.Helper()
	pids := p.shims(t, "")
	if len(pids) != 1 {
		t.Fatalf("shims: %v", pids)
	}
	return pids[0]
}

func TestSandboxRecordsAndControllersAreChecked(t *testing.T) {
	p := newPods(t)
	defer p.startOurs(t)()
	sb := &types.Sandbox{SandboxID: "s", Sandboxer: "shim", Runtime: &types.Sandbox_Runtime{Name: "no.such.v1"}, Labels: map[string]string{"a": "1"}}
	made := ok(p.store.Create(p.ctx, &sandboxapi.StoreCreateRequest{Sandbox: sb}))(t).Sandbox
	if !made.CreatedAt.IsValid() || made.Labels["a"] != "1" {
		t.Errorf("created: %v", made)
	}
	_, err := p.store.Create(p.ctx, &sandboxapi.StoreCreateRequest{Sandbox: sb})
	wantCode(t, codes.AlreadyExists, err)
	_, err = p.store.Create(p.ctx, &sandboxapi.StoreCreateRequest{Sandbox: &types.Sandbox{SandboxID: "t"}})
	wantCode(t, codes.InvalidArgument, err)
	up := ok(p.store.Update(p.ctx, &sandboxapi.StoreUpdateRequest{
		Sandbox: &types.Sandbox{SandboxID: "s", Labels: map[string]string{"b": "2"}}, Fields: []string{"labels.b"},
	}))(t).Sandbox
	if up.Labels["a"] != "1" || up.Labels["b"] != "2" || up.Runtime.Name != "no.such.v1" {
		t.Errorf("updated: %v", up)
	}
	_, err = p.store.Update(p.ctx, &sandboxapi.StoreUpdateRequest{Sandbox: &types.Sandbox{SandboxID: "s"}, Fields: []string{"nothing"}})
	wantCode(t, codes.InvalidArgument, err)
	if l := ok(p.store.List(p.ctx, &sandboxapi.StoreListRequest{Filters: []string{"labels.b==2"}}))(t); len(l.List) != 1 {
		t.Errorf("list: %v", l)
	}
	if l := ok(p.store.List(p.ctx, &sandboxapi.StoreListRequest{Filters: []string{"id==other"}}))(t); len(l.List) != 0 {
		t.Errorf("list: %v", l)
	}
	_, err = p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{SandboxID: "s", Sandboxer: "shim"})
	wantCode(t, codes.NotFound, err) // its shim binary
	_, err = p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{SandboxID: "s"})
	wantCode(t, codes.InvalidArgument, err)
	_, err = p.controller.Create(p.ctx, &sandboxapi.ControllerCreateRequest{SandboxID: "s", Sandboxer: "other"})
	wantCode(t, codes.NotFound, err)
	_, err = p.controller.Start(p.ctx, &sandboxapi.ControllerStartRequest{SandboxID: "s", Sandboxer: "shim"})
	wantCode(t, codes.NotFound, err)
	ok(p.store.Delete(p.ctx, &sandboxapi.StoreDeleteRequest{SandboxID: "s"}))(t)
	_, err = p.store.Get(p.ctx, &sandboxapi.StoreGetRequest{SandboxID: "s"})
	wantCode(t, codes.NotFound, err)
}

// updatable is the shim of a sandbox that knows what ours does not.
type updatable struct {
	shimapi.TTRPCSandboxService
	updates chan *shimapi.UpdateSandboxRequest
}

func (u updatable) CreateSandbox(context.Context, *shimapi.CreateSandboxRequest) (*shimapi.CreateSandboxResponse, error) {
	return &shimapi.CreateSandboxResponse{}, nil
}

func (u updatable) UpdateSandbox(_ context.Context, r *shimapi.UpdateSandboxRequest) (*shimapi.UpdateSandboxResponse, error) {
	u.updates <- r
	return &shimapi.UpdateSandboxResponse{}, nil
}

func (u updatable) ShutdownSandbox(context.Context, *shimapi.ShutdownSandboxRequest) (*shimapi.ShutdownSandboxResponse, error) {
	return &shimapi.ShutdownSandboxResponse{}, nil
}

// serve gives the program of a shim that is served here.
func (u updatable) serve(t *testing.T, dir string) (program string) {
	t.Helper()
	socket := filepath.Join(dir, "u.sock")
	l := ok(net.Listen("unix", socket))(t)
	server := ok(ttrpc.NewServer())(t)
	shimapi.RegisterTTRPCSandboxService(server, u)
	go server.Serve(context.Background(), l)
	t.Cleanup(func() { server.Close() })
	program = filepath.Join(dir, "containerd-shim-updatable-v1")
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *start) printf unix://%s ;; esac\n", socket)
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}

func TestAnUpdateOfASandboxReachesItsShim(t *testing.T) {
	p := newPods(t)
	defer p.startOurs(t)()
	update := func(id string, sb *types.Sandbox) error {
		_, err := p.controller.Update(p.ctx, &sandboxapi.ControllerUpdateRequest{SandboxID: id, Sandboxer: "shim", Sandbox: sb, Fields: []string{"labels.a"}})
		return err
	}
	p.create(t, "ours")
	wantCode(t, codes.Unimplemented, update("ours", &types.Sandbox{SandboxID: "ours"}))
	wantCode(t, codes.InvalidArgument, update("ours", nil))
	wantCode(t, codes.NotFound, update("none", &types.Sandbox{SandboxID: "none"}))
	ok(p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "ours", Sandboxer: "shim"}))(t)

	u := updatable{updates: make(chan *shimapi.UpdateSandboxRequest, 1)}
	p.shim = u.serve(t, p.dir)
	p.create(t, "theirs")
	if err := update("theirs", &types.Sandbox{SandboxID: "theirs", Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	if r := <-u.updates; r.SandboxID != "theirs" || r.Sandbox.Labels["a"] != "b" || !slices.Equal(r.Fields, []string{"labels.a"}) {
		t.Errorf("the shim was told %v", r)
	}
	ok(p.controller.Shutdown(p.ctx, &sandboxapi.ControllerShutdownRequest{SandboxID: "theirs", Sandboxer: "shim"}))(t)
	p.nothingLeft(t, "*")
}
