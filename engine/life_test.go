package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"
	"golang.org/x/net/websocket"
)

func TestAClientThatAttachesBeforeTheStartGetsEverything(t *testing.T) {
	r := newRig(t)
	id := r.create("aa", "cat; echo end >&2; exit 3", &container.HostConfig{AutoRemove: true}, func(c *container.Config) {
		c.OpenStdin, c.StdinOnce = true, true
	})
	conn, err := net.Dial("unix", r.socket())
	check(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v1.47/containers/%s/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n", id)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	check(t, err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("attach: %s", resp.Status)
	}
	// The head of the answer comes once the wait has begun, its body at the end.
	wait, err := r.http.Post("http://engine/v1.47/containers/"+id+"/wait?condition=removed", "", nil)
	check(t, err)
	defer wait.Body.Close()
	r.call("POST", "/containers/"+id+"/start", nil, 204, nil)
	_, err = io.WriteString(conn, "typed\n")
	check(t, err)
	check(t, conn.(*net.UnixConn).CloseWrite())
	out, err := io.ReadAll(in)
	check(t, err)
	// The streams are two pipes: in which order they are read is nobody's promise.
	typed, end := "\x01\x00\x00\x00\x00\x00\x00\x06typed\n", "\x02\x00\x00\x00\x00\x00\x00\x04end\n"
	if got := string(out); got != typed+end && got != end+typed {
		t.Errorf("attached client read %q, want %q and %q", got, typed, end)
	}
	var removed container.WaitResponse
	if err := json.NewDecoder(wait.Body).Decode(&removed); err != nil || removed.StatusCode != 3 {
		t.Errorf("exit code %d, %v, want 3", removed.StatusCode, err)
	}
	if all := r.list(); len(all) != 0 {
		t.Errorf("%d containers are left", len(all))
	}
}

func TestWhatIsWrongIsSaidAndNothingIsMade(t *testing.T) {
	r := newRig(t)
	r.run("taken", "sleep 1000", &container.HostConfig{NetworkMode: "none"})
	before := len(r.snapshots())
	req := func(edit func(*container.Config, *container.HostConfig)) container.CreateRequest {
		cfg, host := &container.Config{Image: "box", Cmd: []string{"true"}}, &container.HostConfig{}
		edit(cfg, host)
		return container.CreateRequest{Config: cfg, HostConfig: host}
	}
	for _, c := range []struct {
		name, as string
		req      any
		status   int
		says     string
	}{
		{"no such image", "xx", req(func(c *container.Config, _ *container.HostConfig) { c.Image = "nosuch:1" }), 404, "No such image: nosuch:1"},
		{"a name in use", "taken", req(func(*container.Config, *container.HostConfig) {}), 409, "already in use"},
		{"a name of one letter", "x", req(func(*container.Config, *container.HostConfig) {}), 400, "Invalid container name"},
		{"no config", "xx", struct{}{}, 400, "config cannot be empty"},
		{"no JSON", "xx", strings.NewReader("{"), 400, "invalid JSON"},
		{"a relative working directory", "xx", req(func(c *container.Config, _ *container.HostConfig) { c.WorkingDir = "rel" }), 400, "absolute path"},
		{"an unknown signal", "xx", req(func(c *container.Config, _ *container.HostConfig) { c.StopSignal = "FOO" }), 400, "invalid signal: FOO"},
		{"too little memory", "xx", req(func(_ *container.Config, h *container.HostConfig) { h.Memory = 1 << 20 }), 400, "Minimum memory limit"},
		{"removal and restart", "xx", req(func(_ *container.Config, h *container.HostConfig) {
			h.AutoRemove, h.RestartPolicy.Name = true, "always"
		}), 409, "AutoRemove"},
		{"a mount without source", "xx", req(func(_ *container.Config, h *container.HostConfig) {
			h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/no/such", Target: "/x"}}
		}), 400, "bind source path does not exist"},
		{"a relative mount point", "xx", req(func(_ *container.Config, h *container.HostConfig) { h.Binds = []string{"/tmp:x"} }), 400, "must be absolute"},
		{"an unknown log driver", "xx", req(func(_ *container.Config, h *container.HostConfig) { h.LogConfig.Type = "nosuch" }), 400, "nosuch"},
		{"an unknown runtime", "xx", req(func(_ *container.Config, h *container.HostConfig) { h.Runtime = "nosuch" }), 400, "nosuch"},
		{"a host port that is none", "xx", req(func(_ *container.Config, h *container.HostConfig) {
			h.PortBindings = dockernet.PortMap{dockernet.MustParsePort("80"): {{HostPort: "http"}}}
		}), 400, "invalid port specification"},
		{"volumes of nobody", "xx", req(func(_ *container.Config, h *container.HostConfig) { h.VolumesFrom = []string{"nosuch"} }), 400, "No such container"},
		{"a health check too often", "xx", req(func(c *container.Config, _ *container.HostConfig) {
			c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Microsecond}
		}), 400, "Interval"},
	} {
		code, data, err := r.try("POST", "/containers/create?name="+c.as, c.req)
		check(t, err)
		if code != c.status || !strings.Contains(string(data), c.says) || bytes.Count(data, []byte("\n")) > 1 {
			t.Errorf("%s: %d %s; want %d, %q", c.name, code, data, c.status, c.says)
		}
	}
	if n := len(r.list()); n != 1 {
		t.Errorf("%d containers, want 1", n)
	}
	if n := r.containers(); n != 1 {
		t.Errorf("%d containerd containers, want 1", n)
	}
	if snaps := r.snapshots(); len(snaps) != before {
		t.Errorf("snapshots %v, %d before", snaps, before)
	}
	for _, c := range []struct {
		name, line string
		cmd        []string
		code       int
	}{
		{"a program that is not there", "", []string{"nosuch"}, 127},
		{"a program that is a directory", "", []string{"/tmp"}, 126},
		{"a file that is no program", "", []string{"/etc/passwd"}, 126},
	} {
		id := r.create("", "", nil, func(cfg *container.Config) { cfg.Cmd = c.cmd })
		if code, data, err := r.try("POST", "/containers/"+id+"/start", nil); err != nil || code != 400 {
			t.Errorf("%s: %d %s, %v", c.name, code, data, err)
		}
		if in := r.inspect(id); in.State.ExitCode != c.code || in.State.Status != "created" || in.State.Error == "" {
			t.Errorf("%s: %+v", c.name, in.State)
		}
	}
}

func TestTheEngineIsKilledAndEverythingGoesOn(t *testing.T) {
	r := newRig(t)
	r.run("writes", "i=0; while :; do echo $i; i=$((i+1)); usleep 2000; done", nil)
	exits := r.run("exits", "sleep 1; echo bye; exit 7", nil)
	gone := r.run("gone", "sleep 1", &container.HostConfig{AutoRemove: true})
	again := r.run("again", "sleep 1; exit 3", &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}})
	checked := r.run("checked", "sleep 1000", nil, func(c *container.Config) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "test -e /tmp/well"}, Interval: 200 * time.Millisecond, Retries: 2}
	})
	never := r.create("never", "true", nil)
	r.eventually(func() error {
		if h := r.inspect(checked).State.Health; h == nil || h.Status != container.Unhealthy {
			return fmt.Errorf("health %+v", h)
		}
		return nil
	})
	pid := r.inspect("writes").State.Pid

	r.kill()
	time.Sleep(1500 * time.Millisecond)
	r.start()

	if in := r.inspect("writes"); !in.State.Running || in.State.Pid != pid {
		t.Errorf("writes: %+v, pid %d before", in.State, pid)
	}
	if code := r.wait(exits); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if log := r.log(exits); log != "bye\n" {
		t.Errorf("log of what exited meanwhile: %q", log)
	}
	if in := r.inspect(exits); in.NetworkSettings.SandboxKey != "" {
		t.Errorf("what exited has the network %s", in.NetworkSettings.SandboxKey)
	}
	if in := r.inspect(never); in.State.Status != "created" {
		t.Errorf("what was never started is %s", in.State.Status)
	}
	r.eventually(func() error {
		if code, _, _ := r.try("GET", "/containers/"+gone+"/json", nil); code != 404 {
			return fmt.Errorf("what was to be removed answers %d", code)
		}
		if in := r.inspect(again); in.RestartCount < 2 {
			return fmt.Errorf("restarted %d times", in.RestartCount)
		}
		return nil
	})
	exec := r.exec(checked, "touch", "/tmp/well")
	if exec != 0 {
		t.Errorf("exec: exit code %d", exec)
	}
	r.eventually(func() error {
		if h := r.inspect(checked).State.Health; h.Status != container.Healthy {
			return fmt.Errorf("health %+v", h)
		}
		return nil
	})
	r.call("POST", "/containers/writes/kill", nil, 204, nil)
	if code := r.wait("writes"); code != 137 {
		t.Errorf("killed: exit code %d", code)
	}
	for i, line := range strings.Split(strings.TrimSpace(r.log("writes")), "\n") {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d of the log is %q", i, line)
		}
	}
}

// exec runs a command in a container, and gives its exit code.
func (r *rig) exec(id string, cmd ...string) int {
	r.t.Helper()
	var made container.ExecCreateResponse
	r.call("POST", "/containers/"+id+"/exec", container.ExecCreateRequest{Cmd: cmd}, 201, &made)
	r.call("POST", "/exec/"+made.ID+"/start", container.ExecStartRequest{Detach: true}, 200, nil)
	var in container.ExecInspectResponse
	r.eventually(func() error {
		r.call("GET", "/exec/"+made.ID+"/json", nil, 200, &in)
		if in.Running || in.ExitCode == nil {
			return fmt.Errorf("exec runs")
		}
		return nil
	})
	return *in.ExitCode
}

func TestTheEngineIsKilledAtAnyMoment(t *testing.T) {
	r := newRig(t)
	for round := range 6 {
		stop := make(chan struct{})
		var workers sync.WaitGroup
		for w := range 4 {
			workers.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("c%d-%d-%d", round, w, i)
					cfg := &container.Config{Image: "box", Cmd: []string{"sh", "-c", "sleep 0.1"}}
					host := &container.HostConfig{AutoRemove: w%2 == 0, Mounts: []mount.Mount{{Type: mount.TypeVolume, Target: "/data"}}}
					r.try("POST", "/containers/create?name="+name, container.CreateRequest{Config: cfg, HostConfig: host})
					r.try("POST", "/containers/"+name+"/start", nil)
				}
			})
		}
		time.Sleep(200*time.Millisecond + rand.N(300*time.Millisecond))
		r.kill()
		close(stop)
		workers.Wait()
		r.start()
		// Each is whole: it can be looked at, and comes to rest or is gone.
		r.eventually(func() error {
			for _, s := range r.list() {
				if s.State != container.StateCreated && s.State != container.StateExited {
					return fmt.Errorf("%s is %s", s.Names, s.State)
				}
			}
			return nil
		})
		for _, s := range r.list() {
			code, data, err := r.try("GET", "/containers/"+s.ID+"/json", nil)
			if code == 404 {
				continue // with --rm, what does not run goes when the engine comes
			}
			if err != nil || code != 200 {
				t.Errorf("inspect %s: %d %s, %v", s.Names, code, data, err)
			}
			if s.State == container.StateCreated {
				code, data, err := r.try("POST", "/containers/"+s.ID+"/start", nil)
				if err != nil || code != 204 && code != 404 && code != 409 {
					t.Errorf("start %s: %d %s, %v", s.Names, code, data, err)
				}
			}
			if code, data, err := r.try("DELETE", "/containers/"+s.ID+"?force=1&v=1", nil); err != nil || code != 204 && code != 404 && code != 409 {
				t.Errorf("remove %s: %d %s, %v", s.Names, code, data, err)
			}
		}
		r.nothingLeft()
	}
}

func TestFilesGoInAndOutOfAContainerThatRunsOrNot(t *testing.T) {
	r := newRig(t)
	id := r.run("aa", "sleep 1000", &container.HostConfig{NetworkMode: "none"})
	for _, running := range []bool{true, false} {
		if !running {
			r.call("POST", "/containers/aa/stop?t=0", nil, 204, nil)
		}
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		check(t, w.WriteHeader(&tar.Header{Name: "f", Mode: 0o640, Uid: 7, Size: 3}))
		_, err := w.Write([]byte("in\n"))
		check(t, err)
		check(t, w.Close())
		r.call("PUT", "/containers/aa/archive?path=/tmp", &b, 200, nil)
		tr := tar.NewReader(bytes.NewReader(r.call("GET", "/containers/aa/archive?path=/tmp/f", nil, 200, nil)))
		h, err := tr.Next()
		check(t, err)
		body, err := io.ReadAll(tr)
		if h.Name != "f" || h.Uid != 7 || h.Mode != 0o640 || string(body) != "in\n" || err != nil {
			t.Errorf("running %v: %+v %q %v", running, h, body, err)
		}
		r.call("GET", "/containers/aa/archive?path=/nosuch", nil, 404, nil)
		r.call("GET", "/containers/aa/archive", nil, 400, nil)
		r.call("PUT", "/containers/aa/archive?path=/etc/passwd", bytes.NewReader(nil), 400, nil)
		r.call("PUT", "/containers/aa/archive?path=/tmp", strings.NewReader("no tar, and long enough to be one"), 400, nil)
		exported := tar.NewReader(bytes.NewReader(r.call("GET", "/containers/aa/export", nil, 200, nil)))
		found := false
		for {
			h, err := exported.Next()
			if err == io.EOF {
				break
			}
			check(t, err)
			found = found || h.Name == "tmp/f"
			if strings.HasPrefix(h.Name, "proc/1") {
				t.Errorf("export has what is mounted: %s", h.Name)
			}
		}
		if !found {
			t.Error("export lacks tmp/f")
		}
		var changes []container.FilesystemChange
		r.call("GET", "/containers/aa/changes", nil, 200, &changes)
		if want := []container.FilesystemChange{{Kind: 0, Path: "/tmp"}, {Kind: 1, Path: "/tmp/f"}}; fmt.Sprint(changes) != fmt.Sprint(want) {
			t.Errorf("changes %v, want %v", changes, want)
		}
	}
	var made container.CommitResponse
	r.call("POST", "/commit?container="+id+"&repo=made&tag=1&changes=ENV%20a=b", nil, 201, &made)
	r.layers = len(r.snapshots()) - 1 // one more layer; the container's own goes
	r.run("bb", "echo $a; cat /tmp/f", nil, func(c *container.Config) { c.Image = "made:1" })
	if code := r.wait("bb"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if log := r.log("bb"); log != "b\nin\n" {
		t.Errorf("the image made says %q", log)
	}
}

func TestANewVolumeGetsWhatTheImageHasThere(t *testing.T) {
	r := newRig(t)
	vol := func(name string, o *mount.VolumeOptions) *container.HostConfig {
		return &container.HostConfig{NetworkMode: "none", Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: name, Target: "/data", VolumeOptions: o}}}
	}
	for _, c := range []struct{ name, line, want string }{
		{"first", "ls -n / | grep data | cut -c 1-10; cat /data/file; echo of the volume >/data/file; mkdir /data/sub; echo s >/data/sub/f", "drwxr-x---\nof the image\n"},
		{"second", "cat /data/file", "of the volume\n"},
	} {
		r.run(c.name, "busybox "+strings.ReplaceAll(strings.ReplaceAll(c.line, "| grep", "| busybox grep"), "| cut", "| busybox cut"), vol("vv", nil))
		r.wait(c.name)
		if log := r.log(c.name); log != c.want {
			t.Errorf("%s: %q, want %q", c.name, log, c.want)
		}
	}
	r.run("third", "ls /data", vol("empty", &mount.VolumeOptions{NoCopy: true}))
	r.wait("third")
	if log := r.log("third"); log != "" {
		t.Errorf("nocopy: %q", log)
	}
	r.run("fourth", "cat /data/f", vol("vv", &mount.VolumeOptions{Subpath: "sub"}))
	r.wait("fourth")
	if log := r.log("fourth"); log != "s\n" {
		t.Errorf("subpath: %q", log)
	}
	// A link in a volume is a container's word.
	r.run("fifth", "busybox ln -s /etc /data/way", vol("vv", nil))
	r.wait("fifth")
	id := r.create("sixth", "ls /data", vol("vv", &mount.VolumeOptions{Subpath: "way"}))
	if code, data, err := r.try("POST", "/containers/"+id+"/start", nil); err != nil || code != 400 {
		t.Errorf("a subpath that leads out: %d %s, %v", code, data, err)
	}
}

func TestNetworksComeAndGoWithTheirContainers(t *testing.T) {
	r := newRig(t)
	r.call("POST", "/networks/create", dockernet.CreateRequest{Name: "nn", IPAM: &dockernet.IPAM{Config: []dockernet.IPAMConfig{{Subnet: netip.MustParsePrefix("10.201.251.0/24")}}}}, 201, nil)
	r.call("POST", "/networks/create", dockernet.CreateRequest{Name: "nn"}, 409, nil)
	aa := r.run("aa", "sleep 1000", &container.HostConfig{NetworkMode: "nn", PortBindings: dockernet.PortMap{dockernet.MustParsePort("80"): {{HostPort: "8080"}}}})
	if ep := r.inspect(aa).NetworkSettings.Networks["nn"]; ep == nil || ep.IPAddress.String() != "10.201.251.2" {
		t.Errorf("endpoint %+v", ep)
	}
	r.run("bb", "busybox ping -c 1 -W 2 aa", &container.HostConfig{NetworkMode: "nn"})
	if code := r.wait("bb"); code != 0 {
		t.Errorf("ping by name: exit code %d: %s", code, r.log("bb"))
	}
	cc := r.create("cc", "true", &container.HostConfig{PortBindings: dockernet.PortMap{dockernet.MustParsePort("80"): {{HostPort: "8080"}}}})
	if code, data, _ := r.try("POST", "/containers/"+cc+"/start", nil); code != 500 || !strings.Contains(string(data), "Bind for 0.0.0.0:8080 failed: port is already allocated") {
		t.Errorf("a port in use: %d %s", code, data)
	}
	r.call("DELETE", "/networks/nn", nil, 403, nil)
	r.call("POST", "/networks/bridge/connect", dockernet.ConnectRequest{Container: "aa"}, 200, nil)
	if n := len(r.inspect(aa).NetworkSettings.Networks); n != 2 {
		t.Errorf("%d networks, want 2", n)
	}
	r.call("POST", "/networks/nn/disconnect", dockernet.DisconnectRequest{Container: "aa"}, 200, nil)
	r.kill()
	r.start()
	if nets := r.inspect(aa).NetworkSettings.Networks; len(nets) != 1 || !nets["bridge"].IPAddress.IsValid() {
		t.Errorf("after a kill: networks %v", nets)
	}
	r.call("DELETE", "/networks/nn", nil, 204, nil)
}

func TestAContainerIsRemovedByForceWhateverItsPolicyDoes(t *testing.T) {
	r := newRig(t)
	for i := range 15 {
		id := r.run("", "exit 1", &container.HostConfig{NetworkMode: "none", RestartPolicy: container.RestartPolicy{Name: "always"}})
		time.Sleep(time.Duration(i) * 20 * time.Millisecond)
		r.call("DELETE", "/containers/"+id+"?force=1", nil, 204, nil)
	}
}

func TestAttachGoesOverAWebsocketToo(t *testing.T) {
	r := newRig(t)
	r.run("aa", "cat; echo end >&2", &container.HostConfig{NetworkMode: "none"}, func(c *container.Config) {
		c.OpenStdin, c.StdinOnce = true, true
	})
	conn, err := net.Dial("unix", r.socket())
	check(t, err)
	defer conn.Close()
	cfg, err := websocket.NewConfig("ws://engine/v1.47/containers/aa/attach/ws?stream=1&stdin=1&stdout=1&stderr=1", "http://engine")
	check(t, err)
	ws, err := websocket.NewClient(cfg, conn)
	check(t, err)
	_, err = ws.Write([]byte("typed\n"))
	check(t, err)
	got := make([]byte, 6)
	_, err = io.ReadFull(ws, got)
	check(t, err)
	if string(got) != "typed\n" {
		t.Errorf("read %q", got)
	}
	r.call("GET", "/containers/nosuch/attach/ws", nil, 404, nil)
}
