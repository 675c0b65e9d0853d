package rig

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answers says whether something accepts connections on a unix socket.
func answers(socket string) error {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// Gantryd is a daemon of ours.
type Gantryd struct {
	*Process
	Dir               string // data
	State             string // sockets and what a boot forgets
	Socket            string // Docker Engine API
	ContainerdAddress string
	host              *Host
	args              []string
}

// StartGantryd starts gantryd on host in directories of its own and waits until
// it answers.
func StartGantryd(t testing.TB, host *Host, args ...string) *Gantryd {
	t.Helper()
	state := runDir(t)
	g := &Gantryd{
		Dir: Dir(t), State: state, Socket: filepath.Join(state, "engine.sock"), ContainerdAddress: filepath.Join(state, "containerd.sock"),
		host: host, args: args,
	}
	t.Cleanup(func() { g.Process.end() })
	g.Start(t)
	return g
}

// Start starts the daemon again on the same directories, as after a crash.
func (g *Gantryd) Start(t testing.TB) {
	t.Helper()
	args := append([]string{"--root", filepath.Join(g.Dir, "r"), "--state", g.State, "--debug"}, g.args...)
	g.Process = launch(t, filepath.Join(g.Dir, "gantryd.log"), g.host.Command(Program(t, "gantryd"), args...))
	g.await(t)
}

func (g *Gantryd) await(t testing.TB) {
	t.Helper()
	Eventually(t, func() error {
		if g.Ended() {
			t.Fatal("gantryd ended at once")
		}
		err := answers(g.Socket)
		if err != nil {
			err = answers(g.ContainerdAddress) // a daemon without the engine role
		}
		return err
	})
}

// Gantry is our command line, talking to g.
func (g *Gantryd) Gantry(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return g.host.Command(Program(t, "gantry"), append([]string{"-H", "unix://" + g.Socket}, args...)...)
}

// Docker is the stock docker command line of the given path, talking to g.
func (g *Gantryd) Docker(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return g.host.Command(DockerCLI(t), append([]string{"-H", "unix://" + g.Socket}, args...)...)
}

// DockerCLI is the newest stock docker command line that is installed.
func DockerCLI(t testing.TB) string {
	t.Helper()
	if p := "/usr/local/bin/docker"; exists(p) {
		return p
	}
	return Peer(t, "docker")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Containerd is a stock containerd with directories of its own.
type Containerd struct {
	*Process
	Dir, Address string
	host         *Host
	program      string
}

// StartContainerd starts Debian's containerd on host. Our shim is found in its PATH.
func StartContainerd(t testing.TB, host *Host) *Containerd {
	t.Helper()
	return StartContainerdOf(t, host, Peer(t, "containerd"))
}

// StartContainerdOf starts the containerd at the path program.
func StartContainerdOf(t testing.TB, host *Host, program string) *Containerd {
	t.Helper()
	host.Prefer(Bin(t))
	dir := Dir(t)
	state := runDir(t)
	c := &Containerd{Dir: dir, Address: filepath.Join(state, "c.sock"), host: host, program: program}
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n[ttrpc]\n  address = %q\n"+
		"[plugins.\"io.containerd.internal.v1.opt\"]\n  path = %q\n",
		filepath.Join(dir, "r"), filepath.Join(state, "s"), c.Address, c.Address+".ttrpc", filepath.Join(dir, "opt"))
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.end() })
	c.Start(t)
	return c
}

// Start starts the daemon again on the same directories.
func (c *Containerd) Start(t testing.TB) {
	t.Helper()
	cmd := c.host.Command(c.program, "-c", filepath.Join(c.Dir, "config.toml"))
	c.Process = launch(t, filepath.Join(c.Dir, "containerd.log"), cmd)
	Eventually(t, func() error { return answers(c.Address) })
}

// Ctr is containerd's own command line, talking to address in namespace.
func Ctr(t testing.TB, host *Host, address, namespace string, args ...string) *exec.Cmd {
	t.Helper()
	return host.Command(Peer(t, "ctr"), append([]string{"-a", address, "-n", namespace}, args...)...)
}

// Dockerd is a stock dockerd with directories of its own.
type Dockerd struct {
	*Process
	Dir    string // data
	State  string // --exec-root
	Socket string
	host   *Host
}

// StartDockerd starts Debian's dockerd on host, with its own containerd or, with
// --containerd among args, on another one.
func StartDockerd(t testing.TB, host *Host, args ...string) *Dockerd {
	t.Helper()
	dir, state := Dir(t), runDir(t)
	d := &Dockerd{Dir: dir, State: filepath.Join(state, "x"), Socket: filepath.Join(state, "d.sock"), host: host}
	if err := os.WriteFile(filepath.Join(dir, "none.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := host.Command(Peer(t, "dockerd"), append([]string{
		"--config-file", filepath.Join(dir, "none.json"), "--data-root", filepath.Join(dir, "r"), "--exec-root", d.State,
		"--pidfile", filepath.Join(dir, "pid"), "--storage-driver", "overlay2", "-H", "unix://" + d.Socket,
	}, args...)...)
	t.Cleanup(func() {
		// The stock dockerd leaves its own network namespace mounted.
		ns := filepath.Join(d.State, "netns/default")
		if err := unix.Unmount(ns, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Errorf("unmount %s: %v", ns, err)
		}
	})
	d.Process = Start(t, filepath.Join(dir, "dockerd.log"), cmd)
	Eventually(t, func() error { return answers(d.Socket) })
	return d
}

// Docker is the stock docker command line, talking to d.
func (d *Dockerd) Docker(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return d.host.Command(DockerCLI(t), append([]string{"-H", "unix://" + d.Socket}, args...)...)
}

// Gantry is our command line, talking to the stock daemon.
func (d *Dockerd) Gantry(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	return d.host.Command(Program(t, "gantry"), append([]string{"-H", "unix://" + d.Socket}, args...)...)
}

// Registry is Debian's docker-registry on the loopback device of a test host.
type Registry struct {
	*Process
	Addr string // "127.0.0.1:5000"
	host *Host
}

// StartRegistry starts a registry on host, on port 5000 of its loopback device.
func StartRegistry(t testing.TB, host *Host) *Registry {
	t.Helper()
	dir := Dir(t)
	const addr = "127.0.0.1:5000"
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: %q}\n  delete: {enabled: true}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Registry{Addr: addr, host: host}
	r.Process = Start(t, filepath.Join(dir, "registry.log"), host.Command(Peer(t, "docker-registry"), "serve", file))
	Eventually(t, func() error {
		return host.Command("curl", "-sf", "-o", "/dev/null", "http://"+addr+"/v2/").Run()
	})
	return r
}

// Push copies an OCI layout into the registry with skopeo and returns the full
// reference.
func (r *Registry) Push(t testing.TB, layout, name string) string {
	t.Helper()
	Must(t, r.host.Command(Peer(t, "skopeo"), "copy", "-q", "--dest-tls-verify=false", "--insecure-policy",
		"oci:"+layout, "docker://"+r.Addr+"/"+name))
	return r.Addr + "/" + name
}
