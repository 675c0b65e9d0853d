package joint

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// Nothing above a container can kill it, and nothing that happened meanwhile is lost.
func TestContainersSurviveKillOfTheDaemon(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	u := user{host, g.Gantry}
	u.must(t, "load", "-q", "-i", archive(t, host))
	t.Cleanup(func() {
		if ids := strings.Fields(u.must(t, "ps", "-aq")); len(ids) > 0 {
			u.must(t, append([]string{"rm", "-f"}, ids...)...)
		}
	})
	start := func(name string, flags []string, script string) {
		u.must(t, append(append([]string{"run", "-d", "--name", name}, flags...), "busybox", "sh", "-c", script)...)
	}
	start("steady", f("-p", "127.0.0.1:8090:80"), "echo served > /index.html; httpd -p 80 -h /; sleep 1000")
	start("writer", nil, "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); [ $((i%200)) = 0 ] && sleep 0.01; done; sleep 1000")
	start("leaver", nil, "sleep 1; exit 23")
	start("vanisher", f("--rm"), "sleep 1")
	start("phoenix", f("--restart", "always"), "sleep 1000")
	u.must(t, "pause", "phoenix")
	pids := map[string]string{}
	for _, name := range []string{"steady", "writer", "phoenix"} {
		pids[name] = u.must(t, "inspect", "-f", "{{.State.Pid}}", name)
	}
	attached := u.cmd(t, "run", "-i", "--name", "attached", "busybox", "sh", "-c", "echo ready; cat; sleep 1000")
	stdin, err := attached.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := attached.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := attached.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		t.Fatalf("attached container says %q, %v", line, err)
	}

	g.Kill()
	for name, pid := range pids {
		var n int
		fmt.Sscan(pid, &n)
		if err := syscall.Kill(n, 0); err != nil {
			t.Errorf("%s died with the daemon: %v", name, err)
		}
	}
	served := func() error {
		out, err := host.Command("curl", "-s", "-m", "2", "http://127.0.0.1:8090/index.html").Output()
		if err == nil && string(out) != "served\n" {
			err = fmt.Errorf("answer %q", out)
		}
		return err
	}
	rig.Eventually(t, served) // while no daemon runs
	io.WriteString(stdin, "into the void\n")
	stdin.Close()
	attached.Wait() // its daemon is gone; the container is not
	time.Sleep(2 * time.Second)

	g.Start(t)
	for name, pid := range pids {
		if got := u.must(t, "inspect", "-f", "{{.State.Pid}}", name); got != pid {
			t.Errorf("%s: pid %s, was %s", name, got, pid)
		}
	}
	if got := u.must(t, "ps", "--format", "{{.Names}}", "--filter", "status=running"); strings.Count(got, "\n") != 3 {
		t.Errorf("running: %s, want steady, writer and attached", got)
	}
	if got := u.must(t, "inspect", "-f", "{{.State.Status}}", "phoenix"); got != "paused\n" {
		t.Errorf("phoenix is %s", got)
	}
	u.must(t, "unpause", "phoenix")
	if got := u.must(t, "wait", "leaver"); got != "23\n" {
		t.Errorf("the exit code that was missed: %s", got)
	}
	rig.Eventually(t, func() error {
		if got := u.must(t, "ps", "-aq", "--filter", "name=vanisher"); got != "" {
			return fmt.Errorf("--rm container is still there: %s", got)
		}
		return nil
	})
	rig.Eventually(t, func() error {
		lines := strings.Split(strings.TrimSpace(u.must(t, "logs", "writer")), "\n")
		if len(lines) != 20000 {
			return fmt.Errorf("%d lines", len(lines))
		}
		for i, line := range lines {
			if line != fmt.Sprintf("line %d", i) {
				t.Fatalf("line %d is %q", i, line)
			}
		}
		return nil
	})
	rig.Eventually(t, served)
	if out := u.must(t, "exec", "steady", "echo", "alive"); out != "alive\n" {
		t.Errorf("exec after restart says %q", out)
	}
	fails(125, "8090", "run", "--rm", "--label", "fails", "-p", "127.0.0.1:8090:80", "busybox", "true")(t, u)
	u.must(t, "stop", "-t", "1", "steady")
	u.must(t, "start", "steady")
	rig.Eventually(t, served)
}

// A daemon that is stopped politely leaves its containers running too.
func TestContainersSurviveAnUpgradeOfTheDaemon(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	u := user{host, g.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
	pid := u.must(t, "inspect", "-f", "{{.State.Pid}}", id)
	g.Stop()
	g.Start(t)
	if got := u.must(t, "inspect", "-f", "{{.State.Pid}} {{.State.Status}}", id); got != strings.TrimSpace(pid)+" running\n" {
		t.Errorf("after the upgrade: %s, was %s", got, pid)
	}
	u.must(t, "rm", "-f", id)
}

// A shim that hangs holds up neither the start of the daemon nor other containers.
func TestAShimThatHangsHoldsUpNobody(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	u := user{host, g.Gantry}
	u.must(t, "load", "-q", "-i", archive(t, host))
	id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
	other := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
	pid := parent(t, u, id)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(pid, syscall.SIGCONT)
		u.must(t, "rm", "-f", id, other)
	})
	g.Kill()
	start := time.Now()
	g.Start(t)
	if out := u.must(t, "run", "--rm", "busybox", "echo", "new"); out != "new\n" {
		t.Errorf("run says %q", out)
	}
	if out := u.must(t, "exec", other, "echo", "old"); out != "old\n" {
		t.Errorf("exec says %q", out)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("the hanging shim held up the others for %v", took)
	}
	if out := u.must(t, "ps", "-q", "--no-trunc"); !strings.Contains(out, id) {
		t.Errorf("ps lost the container: %s", out)
	}
}

// parent is the process id of the shim of a container.
func parent(t *testing.T, u user, id string) int {
	t.Helper()
	pid := strings.TrimSpace(u.must(t, "inspect", "-f", "{{.State.Pid}}", id))
	status := rig.Must(t, u.host.Command("grep", "PPid", "/proc/"+pid+"/status"))
	var n int
	if _, err := fmt.Sscanf(status, "PPid: %d", &n); err != nil {
		t.Fatalf("parent of %s: %v", pid, err)
	}
	return n
}
