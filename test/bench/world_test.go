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

const (
	busybox  = "busybox:latest"
	ctrImage = "docker.io/library/" + busybox
	unified  = "/sys/fs/cgroup/unified"
)

// world is everything that the chapters measure against each other, set up once.
type world struct {
	host       *rig.Host
	registry   *rig.Registry
	gantryd    *rig.Gantryd
	lifecycle  *rig.Gantryd // with the role lifecycle alone
	dockerd    *rig.Dockerd
	containerd *rig.Containerd
	current    *rig.Process // the current containerd

	gantry, docker, podman    tool
	ctr, ctrOurs              tool // Debian's ctr on Debian's containerd, and on our lifecycle
	newCtr, newCtrOurs        tool // the current one
	runtime, runc, crun       tool
	bundle, plain             string // of the container that docker starts: with its seccomp profile, and without
	sleeper, plainSleeper     string // the same of one that stays
	ourDaemons, dockerDaemons []int
	onDisk                    func() float64 // kilobytes of memory that the stores' blocks take
}

func newWorld(tb testing.TB, r *report) *world {
	tb.Helper()
	host := rig.Here(tb)
	rig.Must(tb, host.Command("ip", "link", "set", "lo", "up"))
	onDisk := disk(tb)
	bin := currentContainerd(tb)
	r.machine = describe(tb, []tool{
		{rig.DockerCLI(tb), "--version"},
		{rig.Peer(tb, "dockerd"), "--version"},
		{rig.Peer(tb, "containerd"), "--version"},
		{filepath.Join(bin, "containerd"), "--version"},
		{rig.Peer(tb, "podman"), "--version"},
		{rig.Peer(tb, "runc"), "--version"},
		{rig.Peer(tb, "crun"), "--version"},
	})
	// crun refuses the hybrid layout of cgroups: an empty v2 mount beside v1.
	if err := unix.Unmount(unified, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		tb.Fatalf("unmount %s: %v", unified, err)
	}
	dir := rig.Dir(tb)
	archive := filepath.Join(dir, "busybox.tar")
	rig.Must(tb, host.Command("skopeo", "copy", "-q", "--insecure-policy", "oci:"+rig.Busybox(tb), "docker-archive:"+archive+":"+busybox))

	w := &world{host: host, registry: rig.StartRegistry(tb, host), onDisk: onDisk}
	w.ours(tb, archive)
	w.stock(tb, archive, bin)
	w.bundles(tb, dir)
	return w
}

// disk mounts an ext4 of the bench's own and makes it the place for temporary
// directories, and so for everybody's stores. Its blocks are in memory, where a
// sync takes about what it takes on a good disk and what other programs do with
// the disk does not tell; they go with the mount.
//
// onDisk is how many kilobytes of memory its blocks take, once all is written.
func disk(tb testing.TB) (onDisk func() float64) {
	tb.Helper()
	const image, at = "/run/disk.img", "/run/disk" // /run is a tmpfs of this test
	f, err := os.OpenFile(image, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	defer os.Remove(image)
	if err := f.Truncate(4 << 30); err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		tb.Fatal(err)
	}
	tool{"mkfs.ext4", "-q", "-N", "262144", "-E", "lazy_itable_init=0,lazy_journal_init=0", image}.do(tb)
	tool{"mount", "-o", "loop", image, at}.do(tb)
	tb.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			tb.Errorf("unmount %s: %v", at, err)
		}
	})
	tb.Setenv("TMPDIR", at)
	return func() float64 {
		dir, err := os.Open(at)
		if err != nil {
			tb.Fatal(err)
		}
		defer dir.Close()
		var st unix.Stat_t
		if err := errors.Join(unix.Syncfs(int(dir.Fd())), unix.Fstat(int(f.Fd()), &st)); err != nil {
			tb.Fatal(err)
		}
		return float64(st.Blocks) / 2
	}
}

// currentContainerd builds the release of containerd that test/peers pins, which
// Debian does not have.
func currentContainerd(tb testing.TB) string {
	tb.Helper()
	dir := rig.Dir(tb)
	const from = "github.com/containerd/containerd/v2/cmd/"
	cmd := exec.Command("go", "build", "-o", dir+"/", from+"ctr", from+"containerd", from+"containerd-shim-runc-v2")
	cmd.Dir, cmd.Env = "../peers", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build the current containerd: %v: %s", err, out)
	}
	return dir
}

// ours starts our daemons. The debug log of the tests is off: the stock daemons
// have none either.
func (w *world) ours(tb testing.TB, archive string) {
	tb.Helper()
	w.gantryd = rig.StartGantryd(tb, w.host, "--debug=false")
	w.gantry = tool{rig.Program(tb, "gantry"), "-H", "unix://" + w.gantryd.Socket}
	w.gantry.do(tb, "load", "-q", "-i", archive)
	w.ourDaemons = []int{w.gantryd.Cmd.Process.Pid}

	w.lifecycle = rig.StartGantryd(tb, w.host, "--debug=false", "--roles", "lifecycle")
	w.ctrOurs = tool{rig.Peer(tb, "ctr"), "-a", w.lifecycle.ContainerdAddress}
	w.ctrOurs.do(tb, "images", "import", archive)
	w.runtime = tool{rig.Program(tb, "gantry-runtime"), "--root", tmpfs(tb)}
}

func (w *world) stock(tb testing.TB, archive, current string) {
	tb.Helper()
	w.dockerd = rig.StartDockerd(tb, w.host)
	w.docker = tool{rig.DockerCLI(tb), "-H", "unix://" + w.dockerd.Socket}
	w.docker.do(tb, "load", "-q", "-i", archive)
	w.dockerDaemons = []int{w.dockerd.Cmd.Process.Pid, child(tb, w.dockerd.Cmd.Process.Pid, "containerd")}

	w.containerd = rig.StartContainerd(tb, w.host)
	w.ctr = tool{rig.Peer(tb, "ctr"), "-a", w.containerd.Address}
	w.ctr.do(tb, "images", "import", archive)

	w.runc = tool{rig.Peer(tb, "runc"), "--root", tmpfs(tb)}
	w.crun = tool{rig.Peer(tb, "crun"), "--root", tmpfs(tb)}
	w.startPodman(tb, archive)
	w.startCurrent(tb, archive, current)
}

func (w *world) startPodman(tb testing.TB, archive string) {
	tb.Helper()
	root, state := rig.Dir(tb), tmpfs(tb)
	w.podman = tool{
		rig.Peer(tb, "podman"), "--root", filepath.Join(root, "r"), "--runroot", filepath.Join(state, "p"), "--tmpdir", filepath.Join(state, "t"),
		"--storage-driver", "overlay", "--cgroup-manager", "cgroupfs",
	}
	w.podman.do(tb, "load", "-q", "-i", archive)
	tb.Cleanup(func() {
		// Podman keeps its storage and its network namespaces mounted on themselves,
		// and the cgroups of its monitors.
		for _, dir := range []string{"/run/netns", filepath.Join(root, "r/overlay"), filepath.Join(state, "p")} {
			exec.Command("umount", "-R", dir).Run()
		}
		exec.Command("sh", "-c", "rmdir /sys/fs/cgroup/*/libpod_parent/conmon").Run()
	})
}

// startCurrent starts the current containerd, whose shim is found before Debian's.
func (w *world) startCurrent(tb testing.TB, archive, bin string) {
	tb.Helper()
	root, state := rig.Dir(tb), tmpfs(tb)
	address := filepath.Join(state, "c.sock")
	config := fmt.Sprintf("version = 3\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.cri.v1.runtime\", \"io.containerd.cri.v1.images\", \"io.containerd.grpc.v1.cri\"]\n[plugins.\"io.containerd.server.v1.grpc\"]\n  address = %q\n[plugins.\"io.containerd.server.v1.ttrpc\"]\n  address = %q\n[grpc]\n  address = %q\n[ttrpc]\n  address = %q\n",
		filepath.Join(root, "r"), filepath.Join(state, "s"), address, address+".ttrpc", address, address+".ttrpc")
	file := filepath.Join(root, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}
	cmd := w.host.Command(filepath.Join(bin, "containerd"), "-c", file)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	w.current = rig.Start(tb, filepath.Join(root, "log"), cmd)
	w.newCtr = tool{filepath.Join(bin, "ctr"), "-a", address}
	w.newCtrOurs = tool{filepath.Join(bin, "ctr"), "-a", w.lifecycle.ContainerdAddress}
	rig.Eventually(tb, func() error {
		if w.current.Ended() {
			tb.Fatal("the current containerd ended at once")
		}
		return w.newCtr.try("version")
	})
	w.newCtr.do(tb, "images", "import", archive)
}

// tmpfs is a directory where state is kept that a boot forgets.
func tmpfs(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/run", "gt")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// bundles makes the bundle that the stock docker writes for busybox for the
// runtimes alone.
func (w *world) bundles(tb testing.TB, dir string) {
	tb.Helper()
	id := w.docker.says(tb, "run", "-d", "--network", "none", busybox, "sleep", "1000")
	config, err := os.ReadFile(filepath.Join(w.dockerd.State, "containerd/daemon/io.containerd.runtime.v2.task/moby", id, "config.json"))
	if err != nil {
		tb.Fatal(err)
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(rootfs, 0o755); err != nil {
		tb.Fatal(err)
	}
	tool{"sh", "-c", fmt.Sprintf("%s export %s | tar -x -C %s", strings.Join(w.docker, " "), id, rootfs)}.do(tb)
	w.docker.do(tb, "rm", "-f", id)

	var spec specs.Spec
	if err := json.Unmarshal(config, &spec); err != nil {
		tb.Fatal(err)
	}
	if spec.Linux.Seccomp == nil {
		tb.Fatal("docker started a container without its seccomp profile")
	}
	spec.Root.Path, spec.Hooks, spec.Linux.CgroupsPath = rootfs, nil, "/gantry-bench"
	mounts := spec.Mounts[:0]
	for _, m := range spec.Mounts {
		if !strings.HasPrefix(m.Destination, "/etc/") && m.Destination != "/dev/shm" { // docker's own files, gone by now
			mounts = append(mounts, m)
		}
	}
	spec.Mounts = mounts
	spec.Process.Args = []string{"true"}
	w.bundle = writeBundle(tb, filepath.Join(dir, "bundle"), spec)
	seccomp := spec.Linux.Seccomp
	spec.Linux.Seccomp = nil
	w.plain = writeBundle(tb, filepath.Join(dir, "plain"), spec)
	spec.Linux.Seccomp, spec.Linux.CgroupsPath = seccomp, "" // each sleeper has a group of its own
	spec.Process.Args = []string{"sleep", "10000"}
	w.sleeper = writeBundle(tb, filepath.Join(dir, "sleeper"), spec)
	spec.Linux.Seccomp = nil
	w.plainSleeper = writeBundle(tb, filepath.Join(dir, "plainsleeper"), spec)
}

func writeBundle(tb testing.TB, dir string, spec specs.Spec) string {
	tb.Helper()
	data, err := json.Marshal(spec)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// podmanRun is podman with limits that every machine grants: its own raise one,
// which a machine without CAP_SYS_RESOURCE refuses.
func (w *world) podmanRun(args ...string) tool {
	return w.podman.with("run", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024").with(args...)
}
