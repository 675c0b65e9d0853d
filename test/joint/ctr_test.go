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

// ctrUser is somebody with containerd's own command line.
type ctrUser struct {
	host    *rig.Host
	address string
	run     []string // flags of run, such as the runtime
	ctr     string   // the program; empty is Debian's
}

func (u ctrUser) cmd(t testing.TB, args ...string) *exec.Cmd {
	if args[0] == "run" {
		args = append(append([]string{"run"}, u.run...), args[1:]...)
	}
	if u.ctr != "" {
		return u.host.Command(u.ctr, append([]string{"-a", u.address, "-n", "test"}, args...)...)
	}
	return rig.Ctr(t, u.host, u.address, "test", args...)
}

func (u ctrUser) must(t testing.TB, args ...string) string {
	t.Helper()
	return rig.Must(t, u.cmd(t, args...))
}

const ctrImage = "docker.io/library/busybox:latest"

// ctrSuite is what ctr's users expect, from run to nothing left.
func ctrSuite(t *testing.T, u ctrUser) {
	t.Run("run prints and passes the exit code", func(t *testing.T) {
		if out := u.must(t, "run", "--rm", ctrImage, "c1", "echo", "hello"); out != "hello\n" {
			t.Errorf("run says %q", out)
		}
		if r := rig.Run(t, u.cmd(t, "run", "--rm", ctrImage, "c2", "sh", "-c", "exit 6")); r.Code != 6 {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	})
	t.Run("a terminal", func(t *testing.T) {
		// The stock shim waits two seconds for what an ended program printed, and then
		// forgets it: so this one ends when it has been read.
		out := terminalOf(t, u.cmd(t, "run", "--rm", "-t", ctrImage, "c3", "sh", "-c", "tty; read end"), []byte("\n"))
		if !strings.Contains(out, "/dev/pts/0") {
			t.Errorf("tty says %q", out)
		}
	})
	t.Run("detached: exec, list, pause, metrics, kill, delete", func(t *testing.T) {
		u.must(t, "run", "-d", ctrImage, "c4", "sleep", "1000")
		if out := u.must(t, "tasks", "exec", "--exec-id", "e1", "c4", "echo", "in"); out != "in\n" {
			t.Errorf("exec says %q", out)
		}
		if out := u.must(t, "tasks", "ls"); !strings.Contains(out, "RUNNING") {
			t.Errorf("tasks ls: %s", out)
		}
		if out := u.must(t, "tasks", "ps", "c4"); len(strings.Split(strings.TrimSpace(out), "\n")) != 2 {
			t.Errorf("tasks ps: %s", out)
		}
		u.must(t, "tasks", "pause", "c4")
		if out := u.must(t, "tasks", "ls"); !strings.Contains(out, "PAUSED") {
			t.Errorf("tasks ls: %s", out)
		}
		u.must(t, "tasks", "resume", "c4")
		if out := u.must(t, "tasks", "metrics", "c4"); !strings.Contains(out, "memory") {
			t.Errorf("metrics: %s", out)
		}
		u.must(t, "tasks", "kill", "-s", "SIGKILL", "c4")
		rig.Eventually(t, func() error {
			if out := u.must(t, "tasks", "ls"); !strings.Contains(out, "STOPPED") {
				return fmt.Errorf("tasks ls: %s", out)
			}
			return nil
		})
		u.must(t, "tasks", "rm", "c4")
		u.must(t, "containers", "rm", "c4")
	})
	t.Run("nothing is left", func(t *testing.T) {
		for _, noun := range []string{"tasks", "containers"} {
			if out := u.must(t, noun, "ls", "-q"); out != "" {
				t.Errorf("%s left: %s", noun, out)
			}
		}
	})
}

func TestCtrOnOurLifecycle(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	reg := rig.StartRegistry(t, host)
	ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.gantry.v2")}
	t.Run("pull from a registry, tag, list, check, remove", func(t *testing.T) {
		u.must(t, "images", "pull", "--plain-http", ref)
		u.must(t, "images", "tag", ref, "docker.io/library/tagged:1")
		if out := u.must(t, "images", "ls", "-q"); !strings.Contains(out, ref) || !strings.Contains(out, "tagged:1") {
			t.Errorf("images: %s", out)
		}
		if out := u.must(t, "images", "check"); !strings.Contains(out, "complete") {
			t.Errorf("check: %s", out)
		}
		u.must(t, "images", "rm", "--sync", ref, "docker.io/library/tagged:1")
		rig.Eventually(t, func() error {
			if out := u.must(t, "content", "ls", "-q") + u.must(t, "snapshots", "ls"); strings.Count(out, "sha256:") > 0 {
				return fmt.Errorf("content or snapshots are left: %s", out)
			}
			return nil
		})
	})
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
	t.Run("the native snapshotter", func(t *testing.T) {
		const n = "native"
		u.must(t, "images", "pull", "--plain-http", "--snapshotter", n, ref)
		if out := u.must(t, "run", "--rm", "--snapshotter", n, ref, "n1", "sh", "-c", "echo copied >/new && cat /new"); out != "copied\n" {
			t.Errorf("run says %q", out)
		}
		if out := u.must(t, "run", "--rm", "--snapshotter", n, ref, "n2", "ls", "/"); strings.Contains(out, "new") {
			t.Errorf("one container's file is another's: %s", out)
		}
	})
	t.Run("export is what skopeo takes", func(t *testing.T) {
		file := rig.Dir(t) + "/out.tar"
		u.must(t, "images", "export", file, ctrImage)
		rig.Must(t, host.Command("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "oci-archive:"+file, "docker://"+reg.Addr+"/exported:1"))
	})
}

func TestCtrOnOurLifecycleWithStockShimAndRunc(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.runc.v2")}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

func TestCtrOnOurLifecycleWithStockShimAndOurRuntime(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", rig.Program(t, "gantry-runtime"))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

func TestStockContainerdWithOurShim(t *testing.T) {
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	u := ctrUser{host: host, address: c.Address, run: f("--runtime", "io.containerd.gantry.v2")}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

// ctr passes the path of a runtime only to the stock shim, so ours takes its name.
func TestOurShimInThePlaceOfTheStockOneWithRunc(t *testing.T) {
	host := rig.NewHost(t)
	host.Prefer(disguise(t))
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", rig.Peer(t, "runc"))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

// crun refuses the hybrid cgroup layout, so it runs where the empty v2 mount is out of sight.
func TestOurShimInThePlaceOfTheStockOneWithCrun(t *testing.T) {
	host := rig.NewHost(t)
	host.Prefer(disguise(t))
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", crun(t))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

func TestStockContainerdWithOurShimAndRunc(t *testing.T) {
	host := rig.NewHost(t)
	host.Prefer(disguise(t))
	c := rig.StartContainerd(t, host)
	u := ctrUser{host: host, address: c.Address, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", rig.Peer(t, "runc"))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

func TestCtrOnOurLifecycleWithStockShimAndCrun(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	u := ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", crun(t))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)
}

// disguise is a directory with our shim under the name of the stock one.
func disguise(t *testing.T) string {
	t.Helper()
	dir := rig.Dir(t)
	if err := os.Symlink(rig.Program(t, "containerd-shim-gantry-v2"), filepath.Join(dir, "containerd-shim-runc-v2")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// crun is the path of crun, or of a wrapper that hides the v2 mount from it.
func crun(t *testing.T) string {
	t.Helper()
	path := rig.Peer(t, "crun")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mounts), " /sys/fs/cgroup/unified ") {
		return path
	}
	wrapper := rig.Dir(t) + "/crun"
	script := "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec " + path + " \"$@\"' crun \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return wrapper
}
