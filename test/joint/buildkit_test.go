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

// BuildKit's containerd worker takes lifecycle for containerd: content, snapshots,
// diffs, leases, and a task for every RUN, in the stock shim and in ours.
func TestBuildKitOnOurLifecycle(t *testing.T) {
	bin := rig.Dir(t)
	build := exec.Command("go", "build", "-o", bin+"/", "github.com/moby/buildkit/cmd/buildkitd", "github.com/moby/buildkit/cmd/buildctl")
	build.Dir = "../peers/buildkit"
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build BuildKit: %v\n%s", err, out)
	}
	for _, runtime := range []string{"io.containerd.runc.v2", "io.containerd.gantry.v2"} {
		t.Run(runtime, func(t *testing.T) { testBuildKit(t, bin, runtime) })
	}
}

const dockerfile = `
FROM %s AS first
COPY said /said
RUN cat /said > /heard && echo again >> /heard && mkdir /gone && touch /gone/file
FROM first
RUN --mount=type=cache,target=/cache test -s /heard && touch /cache/x && rm -r /gone
COPY --from=first /heard /copied
CMD ["sh", "-c", "cat /copied; ls -d /gone"]
`

func testBuildKit(t *testing.T, bin, runtime string) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	reg := rig.StartRegistry(t, host)
	base := reg.Push(t, rig.Busybox(t), "busybox:latest")

	dir := rig.Dir(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("said", "hello\n")
	write("Dockerfile", fmt.Sprintf(dockerfile, base))
	write("buildkitd.toml", fmt.Sprintf("[registry.%q]\nhttp = true\n[worker.containerd.runtime]\nname = %q\n", reg.Addr, runtime))
	socket := "unix://" + filepath.Join(g.State, "bk.sock")
	buildkitd := rig.Start(t, filepath.Join(dir, "log"), host.Command(
		filepath.Join(bin, "buildkitd"), "--config", filepath.Join(dir, "buildkitd.toml"), "--root", filepath.Join(dir, "r"), "--addr", socket,
		"--otel-socket-path", filepath.Join(g.State, "otel.sock"),
		"--oci-worker=false", "--containerd-worker=true", "--containerd-worker-addr", g.ContainerdAddress, "--containerd-worker-net", "host",
	))
	buildctl := func(args ...string) rig.Result {
		return rig.Run(t, host.Command(filepath.Join(bin, "buildctl"), append([]string{"--addr", socket}, args...)...))
	}
	rig.Eventually(t, func() error {
		if r := buildctl("debug", "workers"); r.Code != 0 {
			return fmt.Errorf("workers: %s", r.Stderr)
		}
		return nil
	})
	build := []string{
		"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir,
		"--output", "type=image,push=true,registry.insecure=true,name=" + reg.Addr + "/built:1",
	}
	if r := buildctl(build...); r.Code != 0 {
		t.Fatalf("build: %s", r.Stderr)
	}
	if r := buildctl(build...); r.Code != 0 || strings.Count(r.Stderr, "CACHED") < 4 {
		t.Errorf("the second build does not find the first: %s", r.Stderr)
	}

	// What was built runs, pulled by another client into another namespace.
	ctr := func(ns string, args ...string) rig.Result {
		return rig.Run(t, rig.Ctr(t, host, g.ContainerdAddress, ns, args...))
	}
	if r := ctr("other", "images", "pull", "--plain-http", reg.Addr+"/built:1"); r.Code != 0 {
		t.Fatalf("pull: %s", r.Stderr)
	}
	r := ctr("other", "run", "--rm", "--runtime", runtime, reg.Addr+"/built:1", "one")
	if r.Stdout != "hello\nagain\n" || !strings.Contains(r.Stderr, "/gone") {
		t.Errorf("run says %q, %q", r.Stdout, r.Stderr)
	}

	if r := buildctl("prune", "--all"); r.Code != 0 {
		t.Errorf("prune: %s", r.Stderr)
	}
	for _, args := range [][]string{{"tasks", "ls", "-q"}, {"containers", "ls", "-q"}, {"leases", "ls", "-q"}} {
		if r := ctr("buildkit", args...); r.Code != 0 || r.Stdout != "" {
			t.Errorf("%v: %s%s", args, r.Stdout, r.Stderr)
		}
	}
	buildkitd.Stop()
}
