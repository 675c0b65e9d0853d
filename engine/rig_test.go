package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// The tests of whole lives run the engine as a process of its own, which is this
// program again, so that it can be killed; below it stands a stock containerd. All
// of it is in a network and a mount namespace of the test's own.
const (
	insideVar = "GANTRY_TEST_INSIDE"
	engineVar = "GANTRY_TEST_ENGINE" // Config in JSON
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(engineVar) != "":
		if err := serveEngine(os.Getenv(engineVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case os.Geteuid() == 0 && os.Getenv(insideVar) == "":
		os.Exit(inside())
	default:
		os.Exit(m.Run())
	}
}

func inside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveEngine(config string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	l, err := net.Listen("unix", filepath.Join(cfg.State, "e.sock"))
	if err != nil {
		return err
	}
	e, err := New(ctx, cfg)
	if err != nil {
		return err
	}
	if err := e.Serve(ctx, l); err != nil {
		return err
	}
	return e.Close()
}

// rig is an engine on a stock containerd.
type rig struct {
	t      *testing.T
	dir    string
	cfg    Config
	engine *exec.Cmd
	http   *http.Client
	ctrd   *ctrd.Client
	layers int // snapshots of the image alone
}

// newRig starts both, with the image "box" made from the host's static busybox.
func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed; run 'make deps'", name)
		}
	}
	must(t, "ip", "link", "set", "lo", "up")
	dir, err := os.MkdirTemp("/run", "ge") // short: a socket's path has at most 107 bytes
	check(t, err)
	t.Cleanup(func() {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		check(t, err)
		if strings.Contains(string(mounts), dir) {
			t.Errorf("left mounted below %s:\n%s", dir, mounts)
			return // RemoveAll would eat what is mounted
		}
		check(t, os.RemoveAll(dir))
	})
	r := &rig{t: t, dir: dir, cfg: Config{
		Root: dir + "/r", State: dir + "/s", ContainerdAddress: dir + "/c.sock",
		Runtime: "io.containerd.runc.v2", ShimBinary: shimBinary(t), Bridge: "gtt0", BridgeSubnet: "10.201.250.0/24",
	}}
	for _, d := range []string{r.cfg.Root, r.cfg.State} {
		check(t, os.MkdirAll(d, 0o711))
	}
	r.startContainerd()
	r.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket())
	}}}
	r.ctrd, err = ctrd.Dial(r.cfg.ContainerdAddress, "moby")
	check(t, err)
	t.Cleanup(func() { r.ctrd.Close() })
	r.start()
	t.Cleanup(r.end)
	r.call("POST", "/images/create?fromSrc=-&repo=box&tag=latest&changes=ENV%20PATH=/bin", boxTar(t), 200, nil)
	r.layers = len(r.snapshots())
	return r
}

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// shimBinary builds the logger.
func shimBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "containerd-shim-gantry-v2")
	if dir := os.Getenv("GANTRY_BIN"); dir != "" {
		return filepath.Join(dir, "containerd-shim-gantry-v2")
	}
	must(t, "go", "build", "-o", path, "../cmd/containerd-shim-gantry-v2")
	return path
}

// boxTar is the root file system of the image.
func boxTar(t *testing.T) *bytes.Buffer {
	t.Helper()
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is not installed; run 'make deps': %v", err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body []byte) {
		h.Size = int64(len(body))
		check(t, w.WriteHeader(&h))
		_, err := w.Write(body)
		check(t, err)
	}
	add(tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, name := range []string{"sh", "sleep", "cat", "echo", "ls", "touch", "rm", "mkdir", "test", "true", "kill", "usleep"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeLink, Linkname: "bin/busybox"}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\n"))
	add(tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 12}, nil)
	add(tar.Header{Name: "data/file", Mode: 0o644}, []byte("of the image\n"))
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	check(t, w.Close())
	return &b
}

func (r *rig) startContainerd() {
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
		r.dir+"/cr", r.dir+"/cs", r.cfg.ContainerdAddress, r.cfg.ContainerdAddress+".ttrpc")
	check(r.t, os.WriteFile(r.dir+"/c.toml", []byte(config), 0o600))
	cmd := r.spawn("containerd", exec.Command("containerd", "-c", r.dir+"/c.toml"))
	r.t.Cleanup(func() {
		check(r.t, cmd.Process.Signal(unix.SIGTERM))
		cmd.Wait()
		r.endShims()
	})
	r.eventually(func() error {
		c, err := net.Dial("unix", r.cfg.ContainerdAddress)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func (r *rig) spawn(name string, cmd *exec.Cmd) *exec.Cmd {
	r.t.Helper()
	log, err := os.OpenFile(filepath.Join(r.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(r.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	check(r.t, cmd.Start())
	r.t.Cleanup(func() {
		if r.t.Failed() {
			text, _ := os.ReadFile(log.Name())
			r.t.Logf("%s:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	return cmd
}

// endShims ends the shims that containerd 1.6 has lost: of a create that its client
// cut off, by being killed, it forgets the shim.
func (r *rig) endShims() {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	check(r.t, err)
	for _, file := range files {
		words, _ := os.ReadFile(file) // of a process that may be gone
		if !strings.Contains(string(words), "\x00-address\x00"+r.cfg.ContainerdAddress+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		check(r.t, err)
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			r.t.Errorf("end shim %d: %v", pid, err)
		}
	}
}

func (r *rig) socket() string { return filepath.Join(r.cfg.State, "e.sock") }

// start starts the engine, also again after a kill.
func (r *rig) start() {
	r.t.Helper()
	config, err := json.Marshal(r.cfg)
	check(r.t, err)
	os.Remove(r.socket())
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), engineVar+"="+string(config))
	r.engine = r.spawn("engine", cmd)
	r.eventually(func() error {
		resp, err := r.http.Get("http://engine/_ping")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
}

// kill is kill -9 of the engine.
func (r *rig) kill() {
	check(r.t, r.engine.Process.Kill())
	r.engine.Wait()
	r.http.CloseIdleConnections()
}

// end removes what the test left and ends the engine.
func (r *rig) end() {
	for _, s := range r.list() {
		// The others are taken away all the same.
		if code, data, err := r.try("DELETE", "/containers/"+s.ID+"?force=1&v=1", nil); err != nil || code != 204 {
			r.t.Errorf("remove %s: %d %s, %v", s.Names, code, data, err)
		}
	}
	r.nothingLeft()
	check(r.t, r.engine.Process.Signal(unix.SIGTERM))
	if err := r.engine.Wait(); err != nil {
		r.t.Errorf("engine: %v", err)
	}
	// Prepared namespaces end with the engine, and the bridge with the namespace.
}

// nothingLeft checks that no part of a container is left when there is none.
func (r *rig) nothingLeft() {
	r.t.Helper()
	r.eventually(func() error {
		if left := r.containers(); left > 0 {
			return fmt.Errorf("%d containerd containers are left", left)
		}
		if snaps := r.snapshots(); len(snaps) > r.layers {
			return fmt.Errorf("snapshots are left: %v", snaps)
		}
		tasks, err := r.ctrd.Tasks.List(context.Background(), &tasksapi.ListTasksRequest{})
		if err != nil || len(tasks.Tasks) > 0 {
			return fmt.Errorf("tasks are left: %v, %w", tasks, err)
		}
		volumes, err := os.ReadDir(filepath.Join(r.cfg.Root, "volumes"))
		if err != nil {
			return err
		}
		for _, v := range volumes {
			if len(v.Name()) == 64 {
				return fmt.Errorf("the anonymous volume %s is left", v.Name())
			}
		}
		for _, dir := range []string{"r/containers", "s/a", "s/fifo", "s/roots", "s/networks/netns", "s/networks/sandboxes"} {
			names, err := os.ReadDir(filepath.Join(r.dir, dir))
			if err == nil && len(names) > 0 {
				return fmt.Errorf("%s has %v", dir, names)
			}
		}
		return nil
	})
}

func (r *rig) containers() int {
	resp, err := r.ctrd.Containers.List(context.Background(), &containersapi.ListContainersRequest{})
	check(r.t, err)
	return len(resp.Containers)
}

func (r *rig) snapshots() (keys []string) {
	s, err := r.ctrd.Snapshots.List(context.Background(), &snapshotsapi.ListSnapshotsRequest{Snapshotter: "overlayfs"})
	check(r.t, err)
	for {
		resp, err := s.Recv()
		if err == io.EOF {
			return keys
		}
		check(r.t, err)
		for _, i := range resp.Info {
			keys = append(keys, i.Name)
		}
	}
}

func (r *rig) eventually(f func() error) {
	r.t.Helper()
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	r.t.Fatalf("not in time: %v", err)
}

// try is one call; body is JSON, or a reader of something else.
func (r *rig) try(method, path string, body any) (int, []byte, error) {
	var in io.Reader
	kind := "application/x-tar"
	switch b := body.(type) {
	case nil:
	case io.Reader:
		in = b
	default:
		data, err := json.Marshal(b)
		check(r.t, err)
		in, kind = bytes.NewReader(data), "application/json"
	}
	req, err := http.NewRequest(method, "http://engine/v1.47"+path, in)
	check(r.t, err)
	req.Header.Set("Content-Type", kind)
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, data, err
}

// call makes a call that answers with status, and decodes its body into out.
func (r *rig) call(method, path string, body any, status int, out any) []byte {
	r.t.Helper()
	code, data, err := r.try(method, path, body)
	check(r.t, err)
	if code != status {
		r.t.Fatalf("%s %s: status %d, want %d: %s", method, path, code, status, data)
	}
	if out != nil {
		check(r.t, json.Unmarshal(data, out))
	}
	return data
}

// create makes a container of the image that runs a line of shell.
func (r *rig) create(name, line string, host *container.HostConfig, edit ...func(*container.Config)) string {
	r.t.Helper()
	cfg := &container.Config{Image: "box", Cmd: []string{"sh", "-c", line}}
	for _, f := range edit {
		f(cfg)
	}
	var made container.CreateResponse
	r.call("POST", "/containers/create?name="+name, container.CreateRequest{Config: cfg, HostConfig: host}, 201, &made)
	return made.ID
}

func (r *rig) run(name, line string, host *container.HostConfig, edit ...func(*container.Config)) string {
	r.t.Helper()
	id := r.create(name, line, host, edit...)
	r.call("POST", "/containers/"+id+"/start", nil, 204, nil)
	return id
}

func (r *rig) inspect(id string) container.InspectResponse {
	r.t.Helper()
	var in container.InspectResponse
	r.call("GET", "/containers/"+id+"/json", nil, 200, &in)
	return in
}

// wait waits until a container does not run, and gives its exit code.
func (r *rig) wait(id string) int {
	r.t.Helper()
	var w container.WaitResponse
	r.call("POST", "/containers/"+id+"/wait", nil, 200, &w)
	return int(w.StatusCode)
}

func (r *rig) list() (all []container.Summary) {
	r.t.Helper()
	r.call("GET", "/containers/json?all=1", nil, 200, &all)
	return all
}

// log is what a container wrote, without the frames' headers.
func (r *rig) log(id string) string {
	r.t.Helper()
	data := r.call("GET", "/containers/"+id+"/logs?stdout=1&stderr=1", nil, 200, nil)
	var text strings.Builder
	for len(data) >= 8 {
		n := 8 + int(data[4])<<24 + int(data[5])<<16 + int(data[6])<<8 + int(data[7])
		text.Write(data[8:n])
		data = data[n:]
	}
	return text.String()
}
