package joint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// current builds programs of the current containerd, which Debian does not have,
// as test/peers pins them, and gives the directory that they are in.
func current(t testing.TB, names ...string) string {
	t.Helper()
	dir := rig.Dir(t)
	var packages []string
	for _, name := range names {
		packages = append(packages, "github.com/containerd/containerd/v2/cmd/"+name)
	}
	peer(t, dir+"/", packages...)
	return dir
}

// peer builds packages, or one with flags before it, of the releases that
// test/peers pins.
func peer(t testing.TB, out string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-o", out}, args...)...)
	cmd.Dir = "../peers"
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v: %v\n%s", args, err, said)
	}
}

// The current ctr moves images by the transfer and streaming services, and the
// current shim takes its parameters from stdin alone.
func TestCurrentCtrAndShimOnOurLifecycle(t *testing.T) {
	bin := current(t, "ctr", "containerd-shim-runc-v2")
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	reg := rig.StartRegistry(t, host)
	ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
	u := ctrUser{
		host: host, address: g.ContainerdAddress, ctr: filepath.Join(bin, "ctr"),
		run: f("--runtime", filepath.Join(bin, "containerd-shim-runc-v2")),
	}
	t.Run("pull, push, export, import", func(t *testing.T) {
		u.must(t, "images", "pull", "--plain-http", ref)
		if out := u.must(t, "images", "check"); !strings.Contains(out, "complete") || !strings.Contains(out, "true") {
			t.Errorf("check: %s", out)
		}
		point := rig.Dir(t)
		u.must(t, "images", "mount", ref, point)
		if out := rig.Must(t, host.Command("ls", point)); !strings.Contains(out, "bin\n") {
			t.Errorf("the mounted image has %q", out)
		}
		u.must(t, "images", "unmount", "--rm", point)
		u.must(t, "images", "tag", ref, reg.Addr+"/again:1")
		u.must(t, "images", "push", "--plain-http", reg.Addr+"/again:1")
		file := filepath.Join(rig.Dir(t), "out.tar")
		u.must(t, "images", "export", file, ref)
		u.must(t, "images", "rm", "--sync", ref, reg.Addr+"/again:1")
		if out := u.must(t, "content", "ls", "-q") + u.must(t, "leases", "ls", "-q"); out != "" {
			t.Errorf("left: %s", out)
		}
		u.must(t, "images", "import", file)
		u.must(t, "images", "pull", "--plain-http", reg.Addr+"/again:1")
		if out := u.must(t, "images", "ls", "-q"); !strings.Contains(out, ref) || !strings.Contains(out, "again:1") {
			t.Errorf("images: %s", out)
		}
		if r := rig.Run(t, u.cmd(t, "images", "pull", "--plain-http", reg.Addr+"/none:1")); r.Code == 0 || !strings.Contains(r.Stderr, "none:1") {
			t.Errorf("an image that is not there: %d, %s", r.Code, r.Stderr)
		}
	})
	t.Run("a sandbox is run, listed, looked at and removed", func(t *testing.T) {
		config := filepath.Join(rig.Dir(t), "pod.json")
		if err := os.WriteFile(config, []byte(`{"ociVersion":"1.1.0","annotations":{"a":"b"}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := u.must(t, "sandboxes", "run", "--runtime", "io.containerd.gantry.v2", config, "pod"); out != "pod\n" {
			t.Errorf("run says %q", out)
		}
		if out := u.must(t, "sandboxes", "ls"); !strings.Contains(out, "pod") || !strings.Contains(out, "io.containerd.gantry.v2") {
			t.Errorf("ls says %q", out)
		}
		if out := u.must(t, "sandboxes", "info", "pod"); !strings.Contains(out, `"Sandboxer": "shim"`) {
			t.Errorf("info says %s", out)
		}
		u.must(t, "sandboxes", "rm", "pod")
		if out := u.must(t, "sandboxes", "ls"); strings.Contains(out, "pod") {
			t.Errorf("after rm, ls says %q", out)
		}
	})
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

// The current containerd and lifecycle take turns, as Debian's does.
func TestCurrentContainerdIsSwapped(t *testing.T) {
	bin := current(t, "ctr", "containerd", "containerd-shim-runc-v2")
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	u := ctrUser{host: host, address: c.Address, ctr: filepath.Join(bin, "ctr"), run: f("--runtime", "io.containerd.runc.v2")}
	c.Stop() // only its configuration is wanted
	host.Prefer(bin)
	theirs := func() *rig.Process {
		p := rig.Start(t, filepath.Join(rig.Dir(t), "log"), host.Command(filepath.Join(bin, "containerd"), "-c", filepath.Join(c.Dir, "config.toml")))
		rig.Eventually(t, func() error {
			if r := rig.Run(t, u.cmd(t, "version")); r.Code != 0 {
				return fmt.Errorf("ctr version: %s", r.Stderr)
			}
			return nil
		})
		return p
	}
	p := theirs()
	u.must(t, "images", "import", archive(t, host))
	u.must(t, "run", "-d", ctrImage, "one", "sleep", "1000")
	before := u.must(t, "tasks", "ls")
	p.Stop()

	ours := startLifecycle(t, host, c)
	if after := u.must(t, "tasks", "ls"); after != before {
		t.Errorf("tasks were:\n%s\nand are:\n%s", before, after)
	}
	u.must(t, "run", "-d", ctrImage, "two", "sleep", "1000")
	ours.Stop()

	p = theirs()
	for _, id := range []string{"one", "two"} {
		if out := u.must(t, "tasks", "exec", "--exec-id", "e1", id, "echo", "in"); out != "in\n" {
			t.Errorf("exec says %q", out)
		}
		u.must(t, "tasks", "rm", "-f", id)
		u.must(t, "containers", "rm", id)
	}
	p.Stop()
}
