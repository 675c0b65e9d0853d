package shim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "shim-bin-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "containerd-shim-gantry-v2")
		cmd := exec.Command("go", "build", "-o", binary, "../cmd/containerd-shim-gantry-v2")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// daemon is a stranger in lifecycle's place: containerd's own ttrpc, its task
// client and its events service.
type daemon struct {
	t      testing.TB
	dir    string
	server *ttrpc.Server

	mu     sync.Mutex
	events []*types.Envelope
	refuse func() error // what an event is answered; nil takes it
}

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
	dir, err := os.MkdirTemp("", "shim-")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	d.listen()
	t.Cleanup(func() { d.server.Close() })
	return d
}

func (d *daemon) socket() string { return filepath.Join(d.dir, "c.sock") }

// listen serves events, as a daemon does that has just started.
func (d *daemon) listen() {
	d.t.Helper()
	os.Remove(d.socket() + ".ttrpc")
	l, err := net.Listen("unix", d.socket()+".ttrpc")
	if err != nil {
		d.t.Fatal(err)
	}
	d.server, err = ttrpc.NewServer()
	if err != nil {
		d.t.Fatal(err)
	}
	eventsapi.RegisterTTRPCEventsService(d.server, d)
	server := d.server
	go server.Serve(context.Background(), l)
}

// topics are the topics of the events so far.
func (d *daemon) topics() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []string
	for _, e := range d.events {
		all = append(all, strings.TrimPrefix(e.Topic, "/tasks/"))
	}
	return all
}

// wantTopics waits until the events so far are these.
func (d *daemon) wantTopics(want ...string) {
	d.t.Helper()
	got := ""
	for range 3000 {
		if got = strings.Join(d.topics(), " "); got == strings.Join(want, " ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.t.Fatalf("events are %q, want %q", got, want)
}

// task is one shim with one container.
type task struct {
	*daemon
	id     string
	bundle string
	client taskv3.TTRPCTaskService
	conn   *ttrpc.Client
	socket string
	rootfs []*types.Mount
}

// spec is a container that runs argv in a busybox.
func spec(argv ...string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"}
	return &specs.Spec{
		Version: "1.0.2",
		Root:    &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args:         argv,
			Cwd:          "/",
			Env:          []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace},
			},
		},
	}
}

// newTask makes a bundle and starts a shim for it.
func (d *daemon) newTask(id string, s *specs.Spec) *task {
	d.t.Helper()
	t := d.prepare(id, s)
	t.start()
	return t
}

// prepare makes a bundle.
func (d *daemon) prepare(id string, s *specs.Spec) *task {
	d.t.Helper()
	t := &task{daemon: d, id: id, bundle: filepath.Join(d.dir, "b", id)}
	lower := filepath.Join(d.dir, "lower")
	upper := filepath.Join(d.dir, "upper", id)
	work := filepath.Join(d.dir, "work", id)
	for _, dir := range []string{filepath.Join(t.bundle, "rootfs"), upper, work, filepath.Join(lower, "proc"), filepath.Join(lower, "dev")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	busybox(d.t, filepath.Join(lower, "bin"))
	t.rootfs = []*types.Mount{{
		Type: "overlay", Source: "overlay",
		Options: []string{"lowerdir=" + lower, "upperdir=" + upper, "workdir=" + work},
	}}
	if s.Linux.CgroupsPath == "" {
		s.Linux.CgroupsPath = "/" + filepath.Base(d.dir) + "/" + id
	}
	d.t.Cleanup(func() { removeCgroups(d.t, filepath.Base(d.dir)) })
	data, err := json.Marshal(s)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.bundle, "config.json"), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return t
}

// busybox fills bin with Debian's busybox-static.
func busybox(t testing.TB, bin string) {
	t.Helper()
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "sh")); err == nil {
		return
	}
	data, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("this test needs Debian's package busybox-static: %v", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"sh", "cat", "echo", "sleep", "true", "false", "yes", "head", "stty", "tty", "dd", "kill", "ps", "seq", "readlink"} {
		if err := os.Link(filepath.Join(bin, "busybox"), filepath.Join(bin, a)); err != nil {
			t.Fatal(err)
		}
	}
}

// start runs `start` in the old form: flags, environment, a plain address.
func (t *task) start() {
	t.t.Helper()
	out := t.command("start").output()
	t.socket = strings.TrimPrefix(out, "unix://")
	t.dial()
	t.t.Cleanup(t.cleanUp)
}

// command is one run of the binary as containerd 1.6 does it.
func (t *task) command(verb string) *command {
	cmd := exec.Command(binary, "-namespace", "test", "-address", t.daemon.socket(), "-publish-binary", "/bin/false", "-id", t.id, "-bundle", t.bundle, verb)
	cmd.Dir = t.bundle
	cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+t.daemon.socket()+".ttrpc")
	return &command{Cmd: cmd, t: t.t}
}

type command struct {
	*exec.Cmd
	t testing.TB
}

func (c *command) output() string {
	c.t.Helper()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		c.t.Fatalf("%v: %v\n%s", c.Args, err, errOut.String())
	}
	return out.String()
}

func (t *task) dial() {
	t.t.Helper()
	conn, err := net.Dial("unix", t.socket)
	if err != nil {
		t.t.Fatal(err)
	}
	t.conn = ttrpc.NewClient(conn)
	t.client = taskv3.NewTTRPCTaskClient(t.conn)
}

// cleanUp ends what a test that failed left running.
func (t *task) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := t.client.Connect(ctx, &taskv3.ConnectRequest{ID: t.id})
	if err == nil {
		t.client.Kill(ctx, &taskv3.KillRequest{ID: t.id, Signal: 9, All: true})
		t.client.Wait(ctx, &taskv3.WaitRequest{ID: t.id})
		t.client.Delete(ctx, &taskv3.DeleteRequest{ID: t.id})
		t.client.Shutdown(ctx, &taskv3.ShutdownRequest{ID: t.id})
		gone(t.t, int(c.ShimPid))
	}
	t.conn.Close()
	unix.Unmount(filepath.Join(t.bundle, "rootfs"), unix.MNT_DETACH)
}

// gone waits until pid has ended.
func gone(t testing.TB, pid int) {
	t.Helper()
	for range 3000 {
		if syscall.Kill(pid, 0) != nil {
			return
		}
		if data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(data), ") Z ") {
			return // the test's own init may be slow to reap
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func removeCgroups(t testing.TB, name string) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	for _, d := range append(dirs, "/sys/fs/cgroup/"+name) {
		subs, _ := filepath.Glob(d + "/*/")
		for _, s := range subs {
			if err := os.Remove(s); err == nil {
				t.Errorf("cgroup %s was left behind", s)
			}
		}
		os.Remove(d)
	}
}

// runtimeOptions are runc's options, which choose a runtime by its command line.
func runtimeOptions(t testing.TB, binary string) *anypb.Any {
	t.Helper()
	if binary == "" {
		return nil
	}
	return encoded(t, &options.Options{BinaryName: binary})
}

func encoded(t testing.TB, o *options.Options) *anypb.Any {
	t.Helper()
	b, err := proto.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: b}
}

// streams are the uris of a task.
type uris struct {
	stdin, stdout, stderr string
	tty                   bool
}

func (t *task) create(runtime string, u uris) uint32 {
	t.t.Helper()
	return t.createWith(runtimeOptions(t.t, runtime), u)
}

func (t *task) createWith(o *anypb.Any, u uris) uint32 {
	t.t.Helper()
	r, err := t.client.Create(t.context(), &taskv3.CreateTaskRequest{
		ID: t.id, Bundle: t.bundle, Rootfs: t.rootfs, Options: o,
		Stdin: u.stdin, Stdout: u.stdout, Stderr: u.stderr, Terminal: u.tty,
	})
	if err != nil {
		t.t.Fatalf("create: %v", err)
	}
	return r.Pid
}

func (t *task) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.t.Cleanup(cancel)
	return ctx
}

func (t *task) run(execID string) {
	t.t.Helper()
	if _, err := t.client.Start(t.context(), &taskv3.StartRequest{ID: t.id, ExecID: execID}); err != nil {
		t.t.Fatalf("start: %v", err)
	}
}

func (t *task) wait(execID string) uint32 {
	t.t.Helper()
	r, err := t.client.Wait(t.context(), &taskv3.WaitRequest{ID: t.id, ExecID: execID})
	if err != nil {
		t.t.Fatalf("wait: %v", err)
	}
	return r.ExitStatus
}

func (t *task) kill(execID string, sig uint32) {
	t.t.Helper()
	if _, err := t.client.Kill(t.context(), &taskv3.KillRequest{ID: t.id, ExecID: execID, Signal: sig}); err != nil {
		t.t.Fatalf("kill: %v", err)
	}
}

func (t *task) state(execID string) *taskv3.StateResponse {
	t.t.Helper()
	r, err := t.client.State(t.context(), &taskv3.StateRequest{ID: t.id, ExecID: execID})
	if err != nil {
		t.t.Fatalf("state: %v", err)
	}
	return r
}

func (t *task) stateError(execID string) error {
	_, err := t.client.State(t.context(), &taskv3.StateRequest{ID: t.id, ExecID: execID})
	return err
}

// process is an OCI process on the wire.
func process(t testing.TB, argv ...string) *anypb.Any {
	t.Helper()
	p := spec(argv...).Process
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Process", Value: data}
}

func (t *task) exec(id string, u uris, argv ...string) {
	t.t.Helper()
	_, err := t.client.Exec(t.context(), &taskv3.ExecProcessRequest{
		ID: t.id, ExecID: id, Spec: process(t.t, argv...),
		Stdin: u.stdin, Stdout: u.stdout, Stderr: u.stderr, Terminal: u.tty,
	})
	if err != nil {
		t.t.Fatalf("exec: %v", err)
	}
}

// pids are the container's processes, and the exec that each is.
func (t *task) pids() map[uint32]string {
	t.t.Helper()
	r, err := t.client.Pids(t.context(), &taskv3.PidsRequest{ID: t.id})
	if err != nil {
		t.t.Fatalf("pids: %v", err)
	}
	all := map[uint32]string{}
	for _, p := range r.Processes {
		var d options.ProcessDetails
		if p.Info != nil {
			if err := proto.Unmarshal(p.Info.Value, &d); err != nil {
				t.t.Error(err)
			}
		}
		all[p.Pid] = d.ExecID
	}
	return all
}

func (t *task) shimPid() int {
	t.t.Helper()
	r, err := t.client.Connect(t.context(), &taskv3.ConnectRequest{ID: t.id})
	if err != nil {
		t.t.Fatal(err)
	}
	return int(r.ShimPid)
}

// killShim kills the shim, and nothing but the shim.
func (t *task) killShim() {
	t.t.Helper()
	pid := t.shimPid()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.t.Fatal(err)
	}
	gone(t.t, pid)
}

// log makes the fifo by which the next shim says what it has to say, and starts
// that; what it said is read after it has ended.
func (t *task) log() func() string {
	t.t.Helper()
	path := filepath.Join(t.bundle, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.t.Fatal(err)
	}
	if _, err := t.client.Shutdown(t.context(), &taskv3.ShutdownRequest{}); err != nil {
		t.t.Fatal(err)
	}
	t.conn.Close()
	eventually(t.t, "the shim goes", func() bool { _, err := os.Stat(t.socket); return err != nil })
	t.start()
	done := make(chan string)
	go func() {
		b, _ := readAll(f)
		done <- string(b)
	}()
	return func() string {
		time.Sleep(50 * time.Millisecond)
		f.SetReadDeadline(time.Now())
		return <-done
	}
}

func (t *task) delete(execID string) *taskv3.DeleteResponse {
	t.t.Helper()
	r, err := t.client.Delete(t.context(), &taskv3.DeleteRequest{ID: t.id, ExecID: execID})
	if err != nil {
		t.t.Fatalf("delete: %v", err)
	}
	return r
}

// fifo makes a named pipe.
func (d *daemon) fifo(name string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// collect reads a fifo until its end.
func (d *daemon) collect(path string) func() string {
	d.t.Helper()
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		d.t.Fatal(err)
	}
	unix.SetNonblock(int(f.Fd()), false)
	done := make(chan string, 1)
	first := make(chan struct{})
	go func() {
		<-first
		b, _ := readAll(f)
		done <- string(b)
	}()
	return func() string {
		close(first)
		select {
		case s := <-done:
			return s
		case <-time.After(60 * time.Second):
			d.t.Errorf("%s has no end", path)
			return ""
		}
	}
}

func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	var b bytes.Buffer
	_, err := b.ReadFrom(f)
	return b.Bytes(), err
}

func (t *task) resize(rows, columns uint32) {
	t.t.Helper()
	if _, err := t.client.ResizePty(t.context(), &taskv3.ResizePtyRequest{ID: t.id, Height: rows, Width: columns}); err != nil {
		t.t.Fatalf("resize: %v", err)
	}
}
