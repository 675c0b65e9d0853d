package joint

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// startLifecycle starts our lifecycle on the directories and the socket of a
// containerd that has been stopped.
func startLifecycle(t testing.TB, host *rig.Host, c *rig.Containerd) *rig.Process {
	t.Helper()
	dir := rig.Dir(t)
	p := rig.Start(t, filepath.Join(dir, "gantryd.log"), host.Command(
		rig.Program(t, "gantryd"), "--roles", "lifecycle", "--root", filepath.Join(dir, "r"), "--state", filepath.Join(dir, "s"),
		"--containerd-root", filepath.Join(c.Dir, "r"), "--containerd-state", filepath.Join(filepath.Dir(c.Address), "s"), "--containerd-address", c.Address,
	))
	rig.Eventually(t, func() error {
		if p.Ended() {
			t.Fatal("gantryd ended at once")
		}
		conn, err := net.Dial("unix", c.Address)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
	return p
}

// A stock dockerd keeps its containers while the containerd below it is stopped,
// ours is started on the same directories, and back; and lifecycle is killed too.
func TestContainerdIsSwappedUnderStockDockerd(t *testing.T) {
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	d := rig.StartDockerd(t, host, "--containerd", c.Address)
	u := user{host, d.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	u.must(t, "run", "-d", "--name", "counts", "busybox", "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done")
	u.must(t, "run", "-d", "--name", "exits", "busybox", "sh", "-c", "while [ ! -e /exit ]; do sleep 0.05; done; exit 5")
	pid := u.must(t, "inspect", "-f", "{{.State.Pid}}", "counts")

	check := func(t *testing.T) {
		t.Helper()
		rig.Eventually(t, func() error { // dockerd takes a moment to connect again
			if r := u.run(t, "exec", "counts", "echo", "in"); r.Stdout != "in\n" {
				return fmt.Errorf("exec says %q, %q", r.Stdout, r.Stderr)
			}
			return nil
		})
		if now := u.must(t, "inspect", "-f", "{{.State.Pid}}", "counts"); now != pid {
			t.Errorf("pid is %s, was %s", now, pid)
		}
		u.must(t, "run", "--rm", "busybox", "true")
	}
	check(t)

	c.Stop()
	ours := startLifecycle(t, host, c)
	t.Run("on our lifecycle", check)
	t.Run("an exit is told", func(t *testing.T) {
		u.must(t, "exec", "exits", "touch", "/exit")
		if out := u.must(t, "wait", "exits"); out != "5\n" {
			t.Errorf("wait says %q", out)
		}
		u.must(t, "rm", "exits")
	})
	ours.Kill()
	ours = startLifecycle(t, host, c)
	t.Run("on our lifecycle, after a kill", check)

	ours.Stop()
	c.Start(t)
	t.Run("back on containerd", check)
	t.Run("no line is lost", func(t *testing.T) {
		u.must(t, "stop", "-t", "0", "counts")
		lines := strings.Fields(u.must(t, "logs", "counts"))
		for i, line := range lines {
			if line != strconv.Itoa(i) {
				t.Fatalf("line %d of %d is %s", i, len(lines), line)
			}
		}
		if len(lines) < 100 {
			t.Errorf("only %d lines", len(lines))
		}
	})
	u.must(t, "rm", "counts")
}

// ctr's containers, in our shim too, do not notice that lifecycle gives way to a
// stock containerd.
func TestLifecycleIsSwappedForContainerd(t *testing.T) {
	for _, runtime := range []string{"io.containerd.runc.v2", "io.containerd.gantry.v2"} {
		t.Run(runtime, func(t *testing.T) {
			host := rig.NewHost(t)
			c := rig.StartContainerd(t, host)
			c.Stop() // only its directories are wanted
			ours := startLifecycle(t, host, c)
			u := ctrUser{host: host, address: c.Address, run: f("--runtime", runtime)}
			u.must(t, "images", "import", archive(t, host))
			u.must(t, "run", "-d", ctrImage, "one", "sleep", "1000")
			before := u.must(t, "tasks", "ls")
			ours.Stop()

			c.Start(t)
			if after := u.must(t, "tasks", "ls"); after != before {
				t.Errorf("tasks were:\n%s\nand are:\n%s", before, after)
			}
			if out := u.must(t, "tasks", "exec", "--exec-id", "e1", "one", "echo", "in"); out != "in\n" {
				t.Errorf("exec says %q", out)
			}
			u.must(t, "tasks", "kill", "-s", "SIGKILL", "one")
			rig.Eventually(t, func() error {
				if out := u.must(t, "tasks", "ls"); !strings.Contains(out, "STOPPED") {
					return fmt.Errorf("tasks ls: %s", out)
				}
				return nil
			})
			u.must(t, "tasks", "rm", "one")
			u.must(t, "containers", "rm", "one")
			ctrSuite(t, u)
		})
	}
}
