package joint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

// Podman of an ordinary user makes a user namespace by newuidmap, and calls the
// runtime in it as its root: no device can be made there, /run is not open, and
// the host's groups are not.
func TestRootlessPodmanWithOurRuntime(t *testing.T) {
	u := rootlessPodman(t)
	on := func(network string, args ...string) []string {
		return append([]string{"run", "--network", network, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}, args...)
	}
	box := func(args ...string) []string { return on("none", args...) }
	for _, c := range []struct {
		name string
		args []string
		want string
		code int
	}{
		{"the user is root inside, and has a range of ids", box("--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map; exit 7"), "0 0 12345 1 1 200000 65536", 7},
		{"the user itself", box("--rm", "--userns", "keep-id", "busybox", "id", "-u"), "12345", 0},
		{"a range of its own", box("--rm", "--userns", "auto:size=99", "busybox", "cat", "/proc/self/uid_map"), "0 1 99", 0},
		{"another user, nothing allowed, a volume", box("--rm", "--user", "5:7", "--cap-drop", "all", "--read-only", "-v", "vol:/data", "busybox", "sh", "-c",
			"id -u; touch /data/f; stat -c %u:%g /data/f; touch /f 2>/dev/null || echo refused; grep CapBnd /proc/self/status"), "5 5:7 refused CapBnd: 0000000000000000", 0},
		{"devices are the host's", box("--rm", "--device", "/dev/fuse", "busybox", "stat", "-c", "%t:%T", "/dev/null", "/dev/fuse"), "1:3 a:e5", 0},
		{"the host's network", on("host", "--rm", "busybox", "ip", "-o", "link", "show", "lo"), "1: lo: <LOOPBACK", 0},
		{"no cgroups", box("--rm", "--cgroups", "disabled", "busybox", "true"), "", 0},
		{"an unknown program", box("--rm", "busybox", "nosuchcommand"), "", 127},
		{"one that cannot run", box("--rm", "busybox", "/etc/passwd"), "", 126},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := u.run(t, c.args...)
			if got := strings.Join(strings.Fields(r.Stdout), " "); !strings.HasPrefix(got, c.want) || r.Code != c.code {
				t.Errorf("printed %q, exit code %d, want %q, %d: %s", got, r.Code, c.want, c.code, r.Stderr)
			}
		})
	}
	t.Run("detached: exec, a terminal, logs, top, stop, rm", func(t *testing.T) {
		u.must(t, box("-d", "--name", "x", "busybox", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo hi; while :; do sleep .1; done")...)
		prints(t, u, "x", "hi") // the trap is set before
		says("in\n", "exec", "x", "echo", "in")(t, u)
		says("7\n", "exec", "--user", "7", "x", "id", "-u")(t, u)
		if r := u.run(t, "exec", "x", "sh", "-c", "exit 9"); r.Code != 9 {
			t.Errorf("exec: %+v", r)
		}
		if out := terminalOf(t, u.cmd(t, "exec", "-it", "x", "tty"), nil); !strings.Contains(out, "/dev/pts/0") {
			t.Errorf("terminal says %q", out)
		}
		if out := u.must(t, "top", "x", "args"); !strings.Contains(out, "trap") {
			t.Errorf("top says %s", out)
		}
		u.must(t, "stop", "-t", "60", "x")
		says("exited 3\n", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "x")(t, u)
		says("hi\nbye\n", "logs", "x")(t, u)
		u.must(t, "rm", "x")
	})
	if out := u.must(t, "ps", "-aq"); out != "" {
		t.Errorf("containers left: %s", out)
	}
}

// rootlessPodman is an ordinary user with a range of ids, and podman on our
// runtime. Who the user is, only this test's mounts say.
func rootlessPodman(t *testing.T) user {
	t.Helper()
	o := newOrdinary(t)
	host := rig.Here(t)
	for file, more := range map[string]string{
		"/etc/passwd": fmt.Sprintf("somebody:x:%d:%[1]d::%s:/bin/sh\n", ordinaryID, o.dir),
		"/etc/group":  fmt.Sprintf("somebody:x:%d:\n", ordinaryID),
		"/etc/subuid": "somebody:200000:65536\n",
		"/etc/subgid": "somebody:200000:65536\n",
	} {
		extend(t, file, more)
	}
	config := fmt.Sprintf("[engine]\nruntime = \"gantry\"\nruntime_supports_nocgroup = [\"gantry\"]\ncgroup_manager = \"cgroupfs\"\n[engine.runtimes]\ngantry = [%q]\n", o.runtime)
	file := filepath.Join(o.dir, ".config/containers/containers.conf")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(o.dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	rig.Must(t, exec.Command("chown", "-R", "12345:12345", o.dir+"/.config", o.dir+"/run"))
	u := user{host, func(t testing.TB, args ...string) *exec.Cmd {
		cmd := exec.Command(rig.Peer(t, "podman"), append([]string{"--storage-driver", "overlay"}, args...)...)
		cmd.Dir = o.dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + o.dir + "/run", "HOME=" + o.dir}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryID, Gid: ordinaryID}}
		return cmd
	}}
	t.Cleanup(func() { u.must(t, "system", "migrate") }) // ends the process that keeps the namespaces
	tar, err := os.Open(archive(t, host))
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	load := u.cmd(t, "load", "-q")
	load.Stdin = tar
	rig.Must(t, load)
	return u
}

// extend shows a longer file in the place of one of the machine's.
func extend(t *testing.T, file, more string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	longer := filepath.Join(rig.Dir(t), "file")
	if err := os.WriteFile(longer, append(data, more...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(longer, file, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("show a longer %s: %v", file, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", file, err)
		}
	})
}
