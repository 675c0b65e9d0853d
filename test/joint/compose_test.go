package joint

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// project is what a compose file of two services needs most.
const project = `version: "2.4"
services:
  site:
    image: busybox
    command: [sh, -c, "cp /data/page / && echo ready; httpd -f -h /"]
    volumes: ["data:/data"]
    networks: [inner]
    ports: ["18080:80"]
    depends_on: {db: {condition: service_healthy}}
  db:
    image: busybox
    command: [sh, -c, "sleep 1; echo served > /data/page; exec sleep 600"]
    volumes: ["data:/data"]
    networks: [inner]
    stop_signal: SIGKILL
    healthcheck: {test: [CMD, test, -f, /data/page], interval: 200ms, retries: 100}
volumes: {data: {}}
networks: {inner: {}}
`

// composes holds a docker compose, called by cmd, to what a project needs: that it
// comes up, is seen, restarts, and goes.
func composes(t *testing.T, host *rig.Host, g *rig.Gantryd, cmd func(args ...string) *exec.Cmd) {
	t.Helper()
	dir := rig.Dir(t)
	if err := os.WriteFile(filepath.Join(dir, "docker-compose.yml"), []byte(project), 0o600); err != nil {
		t.Fatal(err)
	}
	compose := func(args ...string) string {
		t.Helper()
		c := cmd(append([]string{"-p", "shop"}, args...)...)
		c.Dir = dir
		c.Env = append(c.Environ(), "DOCKER_HOST=unix://"+g.Socket)
		return rig.Must(t, c)
	}
	nothing := func() {
		t.Helper()
		left := rig.Must(t, g.Gantry(t, "ps", "-aq")) + rig.Must(t, g.Gantry(t, "volume", "ls", "-q")) +
			rig.Must(t, g.Gantry(t, "network", "ls", "-q", "--filter", "type=custom"))
		if left != "" {
			t.Errorf("left: %s", left)
		}
	}
	t.Cleanup(func() {
		compose("down", "-v", "-t", "0")
		nothing()
	})
	up := regexp.MustCompile(`Up .*\(healthy\)`)
	compose("up", "-d")
	serves(t, user{host, g.Gantry}, "http://127.0.0.1:18080/page")
	if out := compose("ps"); !up.MatchString(out) || !strings.Contains(out, "0.0.0.0:18080->80/tcp") {
		t.Errorf("ps: %s", out)
	}
	if out := compose("logs", "site"); !strings.Contains(out, "ready") {
		t.Errorf("logs: %s", out)
	}
	if out := compose("exec", "-T", "site", "ping", "-c1", "db"); !strings.Contains(out, "1 packets received") {
		t.Errorf("exec: %s", out)
	}
	if out := compose("run", "--rm", "-T", "site", "cat", "/data/page"); !strings.HasSuffix(out, "served\n") {
		t.Errorf("run: %q", out)
	}
	before := rig.Must(t, g.Gantry(t, "ps", "-q", "--no-trunc"))
	compose("up", "-d")
	if after := rig.Must(t, g.Gantry(t, "ps", "-q", "--no-trunc")); after != before {
		t.Errorf("a second up made new containers: %s, were %s", after, before)
	}
	compose("restart", "-t", "0", "site")
	serves(t, user{host, g.Gantry}, "http://127.0.0.1:18080/page")
	compose("stop", "-t", "0")
	compose("start")
	compose("down", "-v", "-t", "0")
	nothing()
}

// Debian's docker-compose is the one in Python, on the SDK that much else uses.
func TestDockerComposeOnOurEngine(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	rig.Must(t, g.Gantry(t, "load", "-q", "-i", archive(t, host)))
	composes(t, host, g, func(args ...string) *exec.Cmd { return host.Command(rig.Peer(t, "docker-compose"), args...) })
}

// The current docker and its compose plugin, as test/peers pins them.
func TestCurrentDockerAndComposeOnOurEngine(t *testing.T) {
	config := rig.Dir(t)
	docker := filepath.Join(config, "docker")
	// The command has no go.mod, and so, for the compiler, the language of go 1.16.
	peer(t, docker, "-gcflags=github.com/docker/cli/cmd/docker=-lang=go1.25", "github.com/docker/cli/cmd/docker")
	peer(t, filepath.Join(config, "cli-plugins/docker-compose"), "github.com/docker/compose/v5/cmd")
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	cmd := func(args ...string) *exec.Cmd {
		return host.Command(docker, append([]string{"--config", config, "-H", "unix://" + g.Socket}, args...)...)
	}
	u := user{host, func(_ testing.TB, args ...string) *exec.Cmd { return cmd(args...) }}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, basics)
	t.Run("compose", func(t *testing.T) {
		composes(t, host, g, func(args ...string) *exec.Cmd { return cmd(append([]string{"compose"}, args...)...) })
	})
}
