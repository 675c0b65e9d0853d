package joint

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

// gantry-runtime in the place of runc: the stock dockerd is in main_test.go.

func TestStockContainerdAndShimWithOurRuntime(t *testing.T) {
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	u := ctrUser{host: host, address: c.Address, run: f("--runtime", "io.containerd.runc.v2", "--runc-binary", rig.Program(t, "gantry-runtime"))}
	u.must(t, "images", "import", archive(t, host))
	ctrSuite(t, u)

	t.Run("an unknown program is named", func(t *testing.T) {
		r := rig.Run(t, u.cmd(t, "run", "--rm", ctrImage, "c9", "nosuchcommand"))
		if r.Code != 1 || !strings.Contains(r.Stderr, "nosuchcommand") || !strings.Contains(r.Stderr, "executable file not found in $PATH") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
	})
	t.Run("a kill that comes too late is not found", func(t *testing.T) {
		u.must(t, "run", "-d", ctrImage, "c10", "true")
		rig.Eventually(t, func() error { return stopped(u.must(t, "tasks", "ls")) })
		if r := rig.Run(t, u.cmd(t, "tasks", "kill", "c10")); r.Code == 0 || !strings.Contains(r.Stderr, "not found") {
			t.Errorf("exit code %d: %s", r.Code, r.Stderr)
		}
		u.must(t, "tasks", "rm", "c10")
		u.must(t, "containers", "rm", "c10")
	})
}

func stopped(list string) error {
	if !strings.Contains(list, "STOPPED") {
		return fmt.Errorf("tasks ls: %s", list)
	}
	return nil
}

// What dockerd shows of a runtime, it reads from its --version; what a user
// changes on a running container reaches it by update.
func TestStockDockerdKnowsOurRuntime(t *testing.T) {
	host := rig.NewHost(t)
	d := rig.StartDockerd(t, host, "--add-runtime", "gantry="+rig.Program(t, "gantry-runtime"))
	u := user{host, d.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	if out := u.must(t, "info", "--format", "{{json .Runtimes}}"); !strings.Contains(out, "gantry-runtime") {
		t.Errorf("info says %s", out)
	}
	id := strings.TrimSpace(u.must(t, "run", "-d", "--runtime", "gantry", "-m", "64m", "busybox", "sh", "-c", "trap 'exit 4' TERM; while :; do sleep 0.1; done"))
	defer u.run(t, "rm", "-f", id)
	u.must(t, "update", "-m", "32m", "--memory-swap", "-1", id)
	says("33554432\n", "exec", id, "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")(t, u)
	if out := u.must(t, "top", id); !strings.Contains(out, "trap") {
		t.Errorf("top says %s", out)
	}
	u.must(t, "pause", id)
	u.must(t, "unpause", id)
	u.must(t, "stop", id)
	says("exited 4\n", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)(t, u)
}

// podman and conmon know no shim: they call the runtime for everything.
func TestPodmanWithOurRuntime(t *testing.T) {
	host := rig.NewHost(t)
	u := podman(t, host)
	u.must(t, "load", "-q", "-i", archive(t, host))
	box := func(args ...string) []string {
		return append([]string{"run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}, args...)
	}
	t.Run("run prints and passes the exit code", func(t *testing.T) {
		r := u.run(t, box("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")...)
		if r.Stdout != "out\n" || !strings.Contains(r.Stderr, "err\n") || r.Code != 7 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("an unknown program is 127 and named, one that cannot run 126", func(t *testing.T) {
		r := u.run(t, box("--rm", "busybox", "nosuchcommand")...)
		if r.Code != 127 || !strings.Contains(r.Stderr, "nosuchcommand") {
			t.Errorf("%+v", r)
		}
		if r := u.run(t, box("--rm", "busybox", "/etc/passwd")...); r.Code != 126 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a terminal", func(t *testing.T) {
		if out := terminalOf(t, u.cmd(t, box("--rm", "-it", "busybox", "sh", "-c", "tty; until stty size | grep '33 101'; do sleep .1; done")...), nil); !strings.Contains(out, "/dev/pts/0") || !strings.Contains(out, "33 101") {
			t.Errorf("terminal says %q", out)
		}
	})
	t.Run("detached: exec, pause, update, kill, inspect, rm", func(t *testing.T) {
		u.must(t, box("-d", "--name", "x", "busybox", "sleep", "1000")...)
		defer u.run(t, "rm", "-f", "-t", "0", "x")
		says("in\n", "exec", "x", "echo", "in")(t, u)
		if r := u.run(t, "exec", "x", "sh", "-c", "exit 9"); r.Code != 9 {
			t.Errorf("exec: %+v", r)
		}
		if r := u.run(t, "exec", "x", "nosuchcommand"); r.Code != 127 {
			t.Errorf("exec of an unknown program: %+v", r)
		}
		u.must(t, "pause", "x")
		says("paused\n", "inspect", "-f", "{{.State.Status}}", "x")(t, u)
		u.must(t, "unpause", "x")
		var info []struct{ OCIRuntime string }
		if err := json.Unmarshal([]byte(u.must(t, "inspect", "x")), &info); err != nil || len(info) != 1 || filepath.Base(info[0].OCIRuntime) != "gantry-runtime" {
			t.Errorf("%+v (%v)", info, err)
		}
		u.must(t, "kill", "-s", "KILL", "x")
		rig.Eventually(t, func() error {
			if out := u.must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "x"); out != "exited 137\n" {
				return fmt.Errorf("inspect says %s", out)
			}
			return nil
		})
		u.must(t, "rm", "x")
	})
	if out := u.must(t, "ps", "-aq"); out != "" {
		t.Errorf("containers left: %s", out)
	}
}

// podman is somebody with podman in directories of the test's own, whose runtime
// is ours. Its default limits are above the hard ones of a machine that has no
// CAP_SYS_RESOURCE, so containers run with limits of their own.
func podman(t *testing.T, host *rig.Host) user {
	t.Helper()
	dir := rig.Dir(t)
	t.Cleanup(func() {
		rig.Run(t, host.Command("umount", "-R", dir+"/r/overlay"))
		rig.Eventually(t, removePodmansCgroups)
	})
	global := []string{
		"--root", dir + "/r", "--runroot", dir + "/p", "--tmpdir", dir + "/t", "--storage-driver", "overlay",
		"--cgroup-manager", "cgroupfs", "--runtime", rig.Program(t, "gantry-runtime"),
	}
	return user{host, func(t testing.TB, args ...string) *exec.Cmd {
		return host.Command(rig.Peer(t, "podman"), append(global[:len(global):len(global)], args...)...)
	}}
}

// removePodmansCgroups removes the groups of conmon, which podman leaves, when
// the last conmon has ended. Those of other podmans are in use, and stay. Where other
// software left a directory beside the controllers, podman took it for one, and has
// files there that are no kernel's.
func removePodmansCgroups() error {
	for _, pattern := range []string{"/sys/fs/cgroup/*/libpod_parent/conmon", "/sys/fs/cgroup/*/libpod_parent"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			var fs unix.Statfs_t
			if err := unix.Statfs(dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
				if err := os.RemoveAll(dir); err != nil {
					return err
				}
			}
			if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
