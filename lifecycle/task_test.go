package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	ttrpcapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/lifecycle"
)

// The tasks of these tests run busybox from a directory of the host, in the stock
// shim and runc. Their namespace is the directory's name, so that no two tests
// share a cgroup.

// world is a daemon and where the tasks of one test get their root directory.
type world struct {
	daemon
	*api
	ns     string
	ctx    context.Context
	rootfs string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	peer(t, "containerd-shim-runc-v2")
	peer(t, "runc")
	d := newDaemon(t)
	rootfs := filepath.Join(d.dir, "rootfs")
	for _, dir := range []string{"bin", "proc", "dev", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rootfs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox := ok(os.ReadFile(peer(t, "busybox")))(t)
	if err := os.WriteFile(filepath.Join(rootfs, "bin/sh"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{daemon: d, api: d.dial(t), ns: filepath.Base(d.dir), rootfs: rootfs}
	w.ctx = in(w.ns)
	t.Cleanup(func() { w.noShims(t) })
	return w
}

func (w *world) startOurs(t testing.TB) (stop func()) {
	t.Helper()
	return w.startConfigured(t, w.config())
}

// startConfigured also waits until the client has noticed that the daemon before is
// gone: a call that it makes earlier would be lost.
func (w *world) startConfigured(t testing.TB, cfg lifecycle.Config) (stop func()) {
	t.Helper()
	stop = w.daemon.startConfigured(t, cfg)
	eventually(t, "the client is connected again", func() error {
		_, err := w.version.Version(w.ctx, &emptypb.Empty{})
		return err
	})
	return stop
}

// noShims fails when shims of the test's daemon are left, and ends them and what
// runs in their cgroups.
func (w *world) noShims(t testing.TB) {
	for _, pid := range w.shims(t, "") {
		t.Errorf("shim %d is left", pid)
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, name := range globbed(t, filepath.Join("/sys/fs/cgroup/pids", w.ns, "*/cgroup.procs")) {
		data, _ := os.ReadFile(name)
		for pid := range strings.FieldsSeq(string(data)) {
			t.Errorf("process %s is left in %s", pid, name)
			syscall.Kill(ok(strconv.Atoi(pid))(t), syscall.SIGKILL)
		}
	}
}

// shims finds the processes of the shims of a task, or of all.
func (w *world) shims(t testing.TB, id string) (pids []int) {
	t.Helper()
	names := globbed(t, "/proc/[0-9]*/cmdline")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(data), "\x00")
		if !strings.Contains(args[0], "containerd-shim") || !contains(args, w.address) || id != "" && !contains(args, id) {
			continue
		}
		pid := ok(strconv.Atoi(filepath.Base(filepath.Dir(name))))(t)
		pids = append(pids, pid)
	}
	return pids
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// shim is the one shim of a task.
func (w *world) shim(t testing.TB, id string) int {
	t.Helper()
	pids := w.shims(t, id)
	if len(pids) != 1 {
		t.Fatalf("shims of %s are %v", id, pids)
	}
	return pids[0]
}

// spec runs a shell script.
func (w *world) spec(t testing.TB, id, script string) *anypb.Any {
	t.Helper()
	s := specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: []string{"/bin/sh", "-c", script}, Env: []string{"PATH=/bin"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}, // runc makes devices there
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + w.ns + "/" + id,
			Namespaces:  []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}},
		},
	}
	data := ok(json.Marshal(s))(t)
	return &anypb.Any{TypeUrl: spec.TypeUrl, Value: data}
}

// process is the spec of an exec that runs a script.
func process(t testing.TB, script string) *anypb.Any {
	t.Helper()
	p := specs.Process{Args: []string{"/bin/sh", "-c", script}, Cwd: "/", Env: []string{"PATH=/bin"}}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: ok(json.Marshal(p))(t)}
}

// create records a container and creates its task.
func (w *world) create(t testing.TB, id, script string) {
	t.Helper()
	c := container(id, nil)
	c.Spec = w.spec(t, id, script)
	ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
	ok(w.createTask(id))(t)
}

func (w *world) createTask(id string) (*tasksapi.CreateTaskResponse, error) {
	return w.tasks.Create(w.ctx, &tasksapi.CreateTaskRequest{
		ContainerID: id,
		Rootfs:      []*types.Mount{{Type: "bind", Source: w.rootfs, Options: []string{"rbind", "rw"}}},
	})
}

// run creates and starts.
func (w *world) run(t testing.TB, id, script string) {
	t.Helper()
	w.create(t, id, script)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: id}))(t)
}

func (w *world) get(t testing.TB, id string) *task.Process {
	t.Helper()
	return ok(w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: id}))(t).Process
}

func (w *world) wait(t testing.TB, id string) *tasksapi.WaitResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 60*time.Second)
	defer cancel()
	return ok(w.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id}))(t)
}

func (w *world) kill(t testing.TB, id string) {
	t.Helper()
	ok(w.tasks.Kill(w.ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL)}))(t)
}

// remove deletes the task and the container, and checks that nothing is left.
func (w *world) remove(t testing.TB, id string) *tasksapi.DeleteResponse {
	t.Helper()
	r := ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}))(t)
	ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: id}))(t)
	w.nothingLeft(t, id)
	return r
}

// nothingLeft waits until neither shim, bundle, mount nor cgroup of a task is left;
// "*" is all tasks.
func (w *world) nothingLeft(t testing.TB, id string) {
	t.Helper()
	eventually(t, "nothing of "+id+" is left", func() error {
		for _, pattern := range []string{
			filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "*"+id),
			filepath.Join(w.root(), "io.containerd.runtime.v2.task", w.ns, id),
			filepath.Join("/sys/fs/cgroup/*", w.ns, id, "cgroup.procs"),
		} {
			if left := globbed(t, pattern); len(left) > 0 {
				return fmt.Errorf("left: %v", left)
			}
		}
		if pids := w.shims(t, strings.TrimPrefix(id, "*")); len(pids) > 0 {
			return fmt.Errorf("shims: %v", pids)
		}
		return nil
	})
	// The parent of the cgroups is the test's.
	for _, dir := range globbed(t, filepath.Join("/sys/fs/cgroup/*", w.ns)) {
		os.Remove(dir)
	}
}

// exits collects the exits that are published, "ID STATUS" each, of first
// processes as "ID STATUS" and of execs as "ID/EXEC STATUS".
func (w *world) exits(t testing.TB) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := ok(w.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{`topic=="/tasks/exit"`}}))(t)
	ok(s.Header())(t) // from here on nothing is missed
	out := make(chan string, 100)
	go func() {
		defer close(out)
		for {
			e, err := s.Recv()
			if err != nil {
				return
			}
			if v, err := typeurl.UnmarshalAny(e.Event); err == nil {
				x := v.(*events.TaskExit)
				name := x.ContainerID
				if x.ID != x.ContainerID {
					name += "/" + x.ID
				}
				out <- fmt.Sprintf("%s %d", name, x.ExitStatus)
			}
		}
	}()
	return out
}

func wantExit(t testing.TB, exits <-chan string, want string) {
	t.Helper()
	select {
	case got := <-exits:
		if got != want {
			t.Errorf("exit %q, want %q", got, want)
		}
	case <-time.After(60 * time.Second):
		t.Errorf("no exit %q was published", want)
	}
}

// wantNoOther fails when an exit is published within a time that is not the one
// allowed, which may be published once.
func wantNoOther(t testing.TB, exits <-chan string, allowed string, within time.Duration) {
	t.Helper()
	for end := time.After(within); ; {
		select {
		case got := <-exits:
			if got != allowed {
				t.Errorf("exit %q was published", got)
			}
			allowed = ""
		case <-end:
			return
		}
	}
}

// running says whether a process is there and no zombie.
func running(pid uint32) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(data), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

func TestATaskLivesItsLife(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	exits := w.exits(t)
	w.create(t, "a", "exec sleep 1000")
	if p := w.get(t, "a"); p.Status != task.Status_CREATED || p.Pid == 0 {
		t.Errorf("created: %v", p)
	}
	_, err := w.createTask("a")
	wantCode(t, codes.AlreadyExists, err)
	_, err = w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "none"})
	wantCode(t, codes.NotFound, err)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "a"}))(t)
	if p := w.get(t, "a"); p.Status != task.Status_RUNNING {
		t.Errorf("started: %v", p)
	}
	if _, err = w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"}); err == nil {
		t.Fatal("a running task was deleted")
	}

	ask := &tasksapi.ExecProcessRequest{ContainerID: "a", ExecID: "e", Spec: process(t, "exit 7")}
	ok(w.tasks.Exec(w.ctx, ask))(t)
	_, err = w.tasks.Exec(w.ctx, ask)
	wantCode(t, codes.AlreadyExists, err)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "a", ExecID: "e"}))(t)
	r := ok(w.tasks.Wait(w.ctx, &tasksapi.WaitRequest{ContainerID: "a", ExecID: "e"}))(t)
	if r.ExitStatus != 7 || r.ExitedAt == nil {
		t.Errorf("exec ends with %v", r)
	}
	ok(w.tasks.DeleteProcess(w.ctx, &tasksapi.DeleteProcessRequest{ContainerID: "a", ExecID: "e"}))(t)
	_, err = w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "a", ExecID: "e"})
	wantCode(t, codes.NotFound, err)
	wantExit(t, exits, "a/e 7")

	ok(w.tasks.Pause(w.ctx, &tasksapi.PauseTaskRequest{ContainerID: "a"}))(t)
	if p := w.get(t, "a"); p.Status != task.Status_PAUSED {
		t.Errorf("paused: %v", p)
	}
	ok(w.tasks.Resume(w.ctx, &tasksapi.ResumeTaskRequest{ContainerID: "a"}))(t)
	m := ok(w.tasks.Metrics(w.ctx, &tasksapi.MetricsRequest{Filters: []string{"id==a"}}))(t)
	if len(m.Metrics) != 1 || m.Metrics[0].Data == nil {
		t.Errorf("metrics: %v", m.Metrics)
	}
	if p := ok(w.tasks.ListPids(w.ctx, &tasksapi.ListPidsRequest{ContainerID: "a"}))(t); len(p.Processes) != 1 {
		t.Errorf("pids: %v", p.Processes)
	}
	w.kill(t, "a")
	if r := w.wait(t, "a"); r.ExitStatus != 137 {
		t.Errorf("wait: %v", r)
	}
	wantExit(t, exits, "a 137")
	if r := w.remove(t, "a"); r.ExitStatus != 137 || r.Pid == 0 {
		t.Errorf("delete: %v", r)
	}
	_, err = w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "a"})
	wantCode(t, codes.NotFound, err)
}

func TestATaskCanBeCreatedAgainAtOnce(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	w.run(t, "a", "exit 3")
	for range 3 {
		if r := w.wait(t, "a"); r.ExitStatus != 3 {
			t.Errorf("wait: %v", r)
		}
		ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"}))(t)
		ok(w.createTask("a"))(t)
		ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "a"}))(t)
	}
	w.wait(t, "a")
	w.remove(t, "a")
}

func TestACreateThatFailsLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	for name, change := range map[string]func(*containersapi.Container){
		"a spec that runc refuses": func(c *containersapi.Container) {
			c.Spec = w.spec(t, "x", "")
			c.Spec.Value = []byte(`{"ociVersion":"1.0.2"}`)
		},
		"a runtime that is no name": func(c *containersapi.Container) { c.Runtime = &containersapi.Container_Runtime{Name: "runc"} },
		"a shim that is not there": func(c *containersapi.Container) {
			c.Runtime = &containersapi.Container_Runtime{Name: "io.containerd.nosuch.v9"}
		},
		"a shim that fails":        func(c *containersapi.Container) { c.Runtime = &containersapi.Container_Runtime{Name: "/bin/false"} },
		"a shim that says nothing": func(c *containersapi.Container) { c.Runtime = &containersapi.Container_Runtime{Name: "/bin/true"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := container("x", nil)
			c.Spec = w.spec(t, "x", "true")
			change(c)
			ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
			if _, err := w.createTask("x"); err == nil {
				t.Error("no error")
			} else if msg := err.Error(); strings.Contains(msg, "\n") {
				t.Errorf("more than one line: %q", msg)
			}
			_, err := w.tasks.Get(w.ctx, &tasksapi.GetRequest{ContainerID: "x"})
			wantCode(t, codes.NotFound, err)
			ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "x"}))(t)
			w.nothingLeft(t, "x")
		})
	}
}

func TestTasksAreFoundAgain(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	w.run(t, "runs", "exec sleep 1000")
	w.run(t, "exits", "sleep 0.3; exit 9")
	w.create(t, "waits", "exit 4")
	stop()
	time.Sleep(time.Second)
	w.startOurs(t)
	exits := w.exits(t)
	if p := w.get(t, "runs"); p.Status != task.Status_RUNNING {
		t.Errorf("runs: %v", p)
	}
	eventually(t, "the exit is known", func() error { // it may still be to come
		if p := w.get(t, "exits"); p.Status != task.Status_STOPPED || p.ExitStatus != 9 {
			return fmt.Errorf("exits: %v", p)
		}
		return nil
	})
	// The shim repeats the exit as soon as we listen, which may be before the test.
	wantNoOther(t, exits, "exits 9", 2500*time.Millisecond)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "waits"}))(t)
	wantExit(t, exits, "waits 4")
	w.kill(t, "runs")
	wantExit(t, exits, "runs 137")
	for _, id := range []string{"runs", "exits", "waits"} {
		w.wait(t, id)
		w.remove(t, id)
	}
}

// swallow takes events where a daemon should, and forgets them: it is the daemon
// that dies with them.
type swallow chan string

func (s swallow) Forward(_ context.Context, r *ttrpcapi.ForwardRequest) (*emptypb.Empty, error) {
	s <- r.Envelope.Topic
	return &emptypb.Empty{}, nil
}

func TestAnExitThatDiedWithItsDaemonIsToldAgain(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	w.run(t, "a", "sleep 0.3; exit 9")
	stop()
	os.Remove(w.address + ".ttrpc")
	l := ok(net.Listen("unix", w.address+".ttrpc"))(t)
	server := ok(ttrpc.NewServer())(t)
	lost := make(swallow, 10)
	ttrpcapi.RegisterTTRPCEventsService(server, lost)
	go server.Serve(context.Background(), l)
	for topic := ""; topic != "/tasks/exit"; {
		select {
		case topic = <-lost:
		case <-time.After(60 * time.Second):
			t.Fatal("the shim tells no exit")
		}
	}
	server.Close()
	w.startOurs(t)
	exits := w.exits(t)
	wantExit(t, exits, "a 9")
	wantNoOther(t, exits, "", 300*time.Millisecond)
	w.remove(t, "a")
}

// The shim has written down how its container ended, and is killed before anybody
// took the event.
func TestAnExitThatDiedWithItsShimIsTold(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	shim := w.ourShim(t)
	w.record(t, shim, "a", "exit 9")
	ok(w.createTask("a"))(t)
	stop()
	pid := w.shim(t, "a")
	address := ok(os.ReadFile(filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "a", "address")))(t)
	c := ok(net.Dial("unix", strings.TrimPrefix(string(address), "unix://")))(t)
	defer c.Close()
	tasks := taskapi.NewTTRPCTaskClient(ttrpc.NewClient(c))
	ok(tasks.Start(w.ctx, &taskapi.StartRequest{ID: "a"}))(t)
	ok(tasks.Wait(w.ctx, &taskapi.WaitRequest{ID: "a"}))(t)
	syscall.Kill(pid, syscall.SIGKILL)
	stop = w.startOurs(t)
	wantExit(t, w.exits(t), "a 9")
	told := filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, ".exit+a")
	eventually(t, "that the exit was told is written down", func() error {
		if data := ok(os.ReadFile(told))(t); !strings.Contains(string(data), `"Told":true`) {
			return fmt.Errorf("%s", data)
		}
		return nil
	})
	stop()
	w.startOurs(t)
	wantNoOther(t, w.exits(t), "", 4*time.Second)
	if r := w.remove(t, "a"); r.ExitStatus != 9 {
		t.Errorf("delete: %v", r)
	}
}

func TestADeadShimsTaskEndsOnce(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	exits := w.exits(t)
	w.run(t, "now", "exec sleep 1000")
	w.run(t, "later", "exec sleep 1000")
	pid := w.get(t, "now").Pid

	waited := make(chan uint32, 1)
	go func() {
		r, _ := w.tasks.Wait(w.ctx, &tasksapi.WaitRequest{ContainerID: "now"})
		waited <- r.GetExitStatus()
	}()
	time.Sleep(50 * time.Millisecond)
	syscall.Kill(w.shim(t, "now"), syscall.SIGKILL)
	wantExit(t, exits, "now 137")
	if status := <-waited; status != 137 {
		t.Errorf("wait gives %d", status)
	}
	if p := w.get(t, "now"); p.Status != task.Status_STOPPED || p.ExitStatus != 137 {
		t.Errorf("now: %v", p)
	}
	if running(pid) {
		t.Error("its process runs on")
	}

	stop() // and one dies while nobody looks
	syscall.Kill(w.shim(t, "later"), syscall.SIGKILL)
	// As if the daemon had been killed while it buried the first.
	if err := os.Mkdir(filepath.Join(w.root(), "io.containerd.runtime.v2.task", w.ns, "now"), 0o711); err != nil {
		t.Fatal(err)
	}
	w.startOurs(t)
	exits = w.exits(t)
	if p := w.get(t, "later"); p.Status != task.Status_STOPPED || p.ExitStatus != 137 {
		t.Errorf("later: %v", p)
	}
	wantNoOther(t, exits, "later 137", 100*time.Millisecond)
	if p := w.get(t, "now"); p.Status != task.Status_STOPPED || p.ExitStatus != 137 {
		t.Errorf("what was told is forgotten by the next daemon: %v", p)
	}
	if r := w.remove(t, "later"); r.ExitStatus != 137 {
		t.Errorf("delete: %v", r)
	}
	ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "now"}))(t)
	w.nothingLeft(t, "now")
}

func TestAShimThatHangsHoldsUpNobodyElse(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	w.run(t, "hangs", "exec sleep 1000")
	w.run(t, "runs", "exec sleep 1000")
	stop()
	shim := w.shim(t, "hangs")
	syscall.Kill(shim, syscall.SIGSTOP)
	defer syscall.Kill(shim, syscall.SIGCONT)

	begin := time.Now()
	w.startOurs(t)
	if p := w.get(t, "runs"); p.Status != task.Status_RUNNING {
		t.Errorf("runs: %v", p)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("start and get took %v", took)
	}
	list := ok(w.tasks.List(w.ctx, &tasksapi.ListTasksRequest{}))(t)
	states := map[string]task.Status{}
	for _, p := range list.Tasks {
		states[p.ID] = p.Status
	}
	if states["hangs"] != task.Status_UNKNOWN || states["runs"] != task.Status_RUNNING {
		t.Errorf("states: %v", states)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("start, get and list took %v", took)
	}
	syscall.Kill(shim, syscall.SIGCONT)
	eventually(t, "hangs runs again", func() error {
		if p := w.get(t, "hangs"); p.Status != task.Status_RUNNING {
			return fmt.Errorf("state %v", p.Status)
		}
		return nil
	})
	for _, id := range []string{"hangs", "runs"} {
		w.kill(t, id)
		w.wait(t, id)
		w.remove(t, id)
	}
}

func TestAHalfMadeTaskIsUndone(t *testing.T) {
	w := newWorld(t)
	task := filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns)
	work := filepath.Join(w.root(), "io.containerd.runtime.v2.task", w.ns)
	for _, dir := range []string{task + "/noshim/rootfs", work + "/noshim", task + "/.deleted/rootfs", work + "/rebooted", task + "/empty"} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	shim := peer(t, "containerd-shim-runc-v2")
	if err := os.WriteFile(task+"/noshim/shim-binary-path", []byte(shim), 0o600); err != nil {
		t.Fatal(err)
	}
	mount := exec.Command("mount", "--bind", w.rootfs, task+"/noshim/rootfs")
	if out, err := mount.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.startOurs(t)
	for _, id := range []string{"noshim", "deleted", "rebooted", "empty"} {
		w.nothingLeft(t, id)
	}
	if _, err := os.Stat(filepath.Join(w.rootfs, "bin/sh")); err != nil {
		t.Errorf("the image was eaten: %v", err)
	}
}

func TestTheShimsLogReachesOurs(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	w.create(t, "a", "true")
	f := ok(os.OpenFile(filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "a", "log"), os.O_WRONLY, 0))(t)
	defer f.Close()
	// Nobody may be blocked by a log that is not read: 1 MiB is 16 pipes full.
	done := make(chan error, 1)
	go func() { _, err := io.WriteString(f, strings.Repeat("level=info msg=x\n", 1<<16)); done <- err }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(60 * time.Second):
		t.Error("the log is not read")
	}
	ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"}))(t)
	ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "a"}))(t)
	w.nothingLeft(t, "a")
}

// A shim is killed when its task has been deleted, before it was told to exit.
func TestAShimThatDiesAfterItsTaskLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	shim := w.ourShim(t)
	w.record(t, shim, "a", "exit 0")
	ok(w.createTask("a"))(t)
	ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "a"}))(t)
	w.wait(t, "a")
	// The daemon marks the bundle before it goes on to the shim, and waits there for a
	// reader of the mark.
	bundle := filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "a")
	socket := strings.TrimPrefix(string(ok(os.ReadFile(filepath.Join(bundle, "address")))(t)), "unix://")
	mark := filepath.Join(bundle, "deleted")
	if err := syscall.Mkfifo(mark, 0o600); err != nil {
		t.Fatal(err)
	}
	ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "a"}))(t)
	pid := w.shim(t, "a")
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "the shim is dead", func() error {
		if running(uint32(pid)) {
			return errors.New("it is not")
		}
		return nil
	})
	reader := ok(os.Open(mark))(t)
	defer reader.Close()
	w.nothingLeft(t, "a")
	if _, err := os.Lstat(socket); err == nil {
		t.Errorf("left: %s", socket)
	}
	ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "a"}))(t)
}

// A client may go away at any moment of a Create. What its shim made until then, or
// makes after, is taken apart.
func TestACreateThatIsCancelledLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.startOurs(t)
	for delay, done := time.Duration(0), false; !done; delay += 10 * time.Millisecond {
		id := fmt.Sprintf("after-%d", delay/time.Millisecond)
		c := container(id, nil)
		c.Spec = w.spec(t, id, "exec sleep 1000")
		ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
		ctx, cancel := context.WithTimeout(w.ctx, delay)
		_, err := w.tasks.Create(ctx, &tasksapi.CreateTaskRequest{
			ContainerID: id, Rootfs: []*types.Mount{{Type: "bind", Source: w.rootfs, Options: []string{"rbind", "rw"}}},
		})
		cancel()
		if done = err == nil; done {
			w.remove(t, id)
		}
		eventually(t, "nothing is left of a Create that ended "+delay.String()+" after its begin", func() error {
			if pids := w.shims(t, id); len(pids) > 0 {
				return fmt.Errorf("shims %v are left", pids)
			}
			if left := globbed(t, filepath.Join("/sys/fs/cgroup/*", w.ns, id)); len(left) > 0 {
				return fmt.Errorf("%v are left", left)
			}
			if left := globbed(t, filepath.Join(w.state(), "io.containerd.runtime.v2.task", w.ns, "*")); len(left) > 0 {
				return fmt.Errorf("%v are left", left)
			}
			return nil
		})
	}
}
