package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

// world is everything that the chapters measure against each other, set up once.
type world struct {
	host     *rig.Host
	registry *rig.Registry
	gantryd  *rig.Gantryd
	dockerd  *rig.Dockerd
	ctr      *rig.Containerd
	podman   []string // program and its storage flags
	bundle   string   // of the container that the docker of this world would start
	plain    string   // the same without seccomp
	gantry   string   // our command line
	docker   string
	runtime  string
}

const busybox = "busybox:latest"

func newWorld(tb testing.TB) *world {
	tb.Helper()
	host := rig.Here(tb)
	rig.Must(tb, host.Command("ip", "link", "set", "lo", "up"))
	// crun refuses the hybrid layout of cgroups: an empty v2 mount beside v1.
	if err := unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		tb.Fatal(err)
	}
	w := &world{
		host: host, registry: rig.StartRegistry(tb, host),
		gantry: rig.Program(tb, "gantry"), runtime: rig.Program(tb, "gantry-runtime"), docker: rig.DockerCLI(tb),
	}
	dir := rig.Dir(tb)
	archive := filepath.Join(dir, "busybox.tar")
	rig.Must(tb, host.Command("skopeo", "copy", "-q", "--insecure-policy", "oci:"+rig.Busybox(tb), "docker-archive:"+archive+":"+busybox))

	w.gantryd = rig.StartGantryd(tb, host)
	rig.Must(tb, w.gantryd.Gantry(tb, "load", "-q", "-i", archive))
	w.dockerd = rig.StartDockerd(tb, host)
	rig.Must(tb, w.dockerd.Docker(tb, "load", "-q", "-i", archive))
	w.ctr = rig.StartContainerd(tb, host)
	rig.Must(tb, rig.Ctr(tb, host, w.ctr.Address, "default", "images", "import", archive))

	w.podman = []string{
		rig.Peer(tb, "podman"), "--root", filepath.Join(dir, "pr"), "--runroot", filepath.Join(dir, "pp"), "--tmpdir", filepath.Join(dir, "pt"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
	}
	rig.Must(tb, exec.Command(w.podman[0], append(w.podman[1:], "load", "-q", "-i", archive)...))
	tb.Cleanup(func() {
		// Podman keeps its storage mounted on itself, and cgroups of its monitors.
		exec.Command("umount", "-R", "/run/netns").Run()
		exec.Command("sh", "-c", "rmdir /sys/fs/cgroup/*/libpod_parent/conmon").Run()
		exec.Command("umount", "-R", filepath.Join(dir, "pr/overlay")).Run()
		exec.Command("umount", "-R", filepath.Join(dir, "pp")).Run()
	})
	w.bundles(tb, dir)
	return w
}

// bundles makes the bundle that the stock docker writes for busybox, with and
// without its seccomp profile, for the runtimes alone.
func (w *world) bundles(tb testing.TB, dir string) {
	id := strings.TrimSpace(rig.Must(tb, w.dockerd.Docker(tb, "run", "-d", "--network", "none", busybox, "sleep", "1000")))
	config, err := os.ReadFile(filepath.Join(w.dockerd.State, "containerd/daemon/io.containerd.runtime.v2.task/moby", id, "config.json"))
	if err != nil {
		tb.Fatal(err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		tb.Fatal(err)
	}
	rig.Must(tb, exec.Command("sh", "-c", fmt.Sprintf("%s -H unix://%s export %s | tar -x -C %s", w.docker, w.dockerd.Socket, id, rootfs)))
	rig.Must(tb, w.dockerd.Docker(tb, "rm", "-f", id))

	var spec specs.Spec
	if err := json.Unmarshal(config, &spec); err != nil {
		tb.Fatal(err)
	}
	spec.Root.Path, spec.Hooks, spec.Process.Args = rootfs, nil, []string{"true"}
	spec.Linux.CgroupsPath = "/gantry-bench"
	mounts := spec.Mounts[:0]
	for _, m := range spec.Mounts {
		if !strings.HasPrefix(m.Destination, "/etc/") && m.Destination != "/dev/shm" { // docker's own files, gone by now
			mounts = append(mounts, m)
		}
	}
	spec.Mounts = mounts
	w.bundle = writeBundle(tb, filepath.Join(dir, "bundle"), spec)
	spec.Linux.Seccomp = nil
	w.plain = writeBundle(tb, filepath.Join(dir, "plain"), spec)
}

func writeBundle(tb testing.TB, dir string, spec specs.Spec) string {
	data, err := json.Marshal(spec)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// The three command lines that start containers.
func (w *world) gantryRun(args ...string) contender {
	return sh("gantry run --rm", w.gantry, append([]string{"-H", "unix://" + w.gantryd.Socket, "run", "--rm"}, args...)...)
}

func (w *world) dockerRun(args ...string) contender {
	return sh("docker run --rm", w.docker, append([]string{"-H", "unix://" + w.dockerd.Socket, "run", "--rm"}, args...)...)
}

// podmanRun has limits that every machine grants: podman's own raise one, which a
// machine without CAP_SYS_RESOURCE refuses.
func (w *world) podmanRun(args ...string) contender {
	return sh("podman run --rm", w.podman[0], append(append(w.podman[1:len(w.podman):len(w.podman)], "run", "--rm", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"), args...)...)
}
