package command

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What callers of crun ask for.

func TestTheConfigurationCanHaveAnotherName(t *testing.T) {
	r := newTool(t)
	b := bundle(t, shell("echo hello"))
	if err := os.Mkdir(filepath.Join(b, "other"), 0o755); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(b, "other", "container.json")
	if err := os.Rename(filepath.Join(b, "config.json"), moved); err != nil {
		t.Fatal(err)
	}
	for _, config := range []string{"other/container.json", moved} {
		if out := r.must(t, "run", "-b", b, "--config", config, "x"); out != "hello\n" {
			t.Errorf("--config %s: %q", config, out)
		}
	}
	if res := r.run(t, "run", "-b", b, "x"); res.code != 1 || !strings.Contains(res.err, "config.json") {
		t.Errorf("without --config: %+v", res)
	}
}

func TestCgroupsCanBeDisabled(t *testing.T) {
	r := newTool(t)
	own := read(t, "/proc/self/cgroup")
	limit := func(s *specs.Spec) {
		shell("cat /proc/self/cgroup")(s)
		s.Linux.Namespaces = s.Linux.Namespaces[:5] // without one for cgroups
		s.Mounts = s.Mounts[:6]                     // and without /sys/fs/cgroup
	}
	if out := r.must(t, "--cgroup-manager", "disabled", "run", "-b", bundle(t, limit), "x"); out != own {
		t.Errorf("it is in\n%s\nwant our own\n%s", out, own)
	}
	r.must(t, "--cgroup-manager", "disabled", "run", "-d", "-b", sleeper(t, nil), "x")
	pid := r.state(t, "x").Pid
	r.must(t, "delete", "-f", "x")
	reapChild(t, pid)
}

func TestDeleteByPattern(t *testing.T) {
	r := newTool(t)
	for _, id := range []string{"web-1", "web-2", "db"} {
		r.detached(t, sleeper(t, nil), id)
	}
	if res := r.run(t, "delete", "--regex", "[", "-f"); res.code != 1 || !strings.Contains(res.err, `--regex "["`) {
		t.Errorf("a broken pattern: %+v", res)
	}
	r.must(t, "delete", "-f", "--regex", "^web-")
	if out := r.must(t, "list", "-q"); out != "db\n" {
		t.Errorf("left are %q", out)
	}
}

func TestExecInAGroupOfOneHierarchy(t *testing.T) {
	r := newTool(t)
	var spec *specs.Spec
	r.detached(t, sleeper(t, func(s *specs.Spec) { spec = s }), "x")
	if err := os.MkdirAll(groupDir(spec, "pids")+"/one/two", 0o755); err != nil {
		t.Fatal(err)
	}
	// In hierarchies that have no such group it is in the container's own.
	if out := r.must(t, "exec", "--cgroup", "one/two", "x", "cat", "/proc/self/cgroup"); strings.Count(out, "/one/two\n") != 1 {
		t.Errorf("it is in\n%s", out)
	}
	for _, bad := range []string{"one/..", "./one/../one", "one/two/.."} {
		if res := r.run(t, "exec", "--cgroup", bad, "x", "true"); res.code != 255 || !strings.Contains(res.err, "bad sub cgroup path \""+bad+"\": `..` components are not allowed") {
			t.Errorf("--cgroup %s: %+v", bad, res)
		}
	}
}

// Who starts a container says LISTEN_PID only when it starts the runtime itself.
func TestListenFDsWithoutAPid(t *testing.T) {
	r := newTool(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := r.command("run", "-b", bundle(t, shell("echo $LISTEN_FDS $LISTEN_PID >&3")), "x")
	cmd.ExtraFiles, cmd.Env = []*os.File{write}, append(cmd.Env, "LISTEN_FDS=1", "LISTEN_PID=")
	res := run(t, cmd)
	write.Close()
	var got bytes.Buffer
	got.ReadFrom(read)
	if got.String() != "1 1\n" {
		t.Errorf("%q; %+v", got.String(), res)
	}
}

func TestDescriptorsThatAreNotOpenAreTold(t *testing.T) {
	r := newTool(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" "$@" 3>&- 4>&1`, self, "--root", r.root, "run", "--preserve-fds", "9", "-b", bundle(t, shell("echo through >&4")), "x")
	cmd.Env = append(os.Environ(), "GANTRY_RUNTIME_TEST=program")
	res := run(t, cmd)
	if res.code != 0 || res.out != "through\n" || !strings.Contains(res.err, "not all descriptors are open missing=[3 5") {
		t.Errorf("%+v", res)
	}
}

// Who asks until there is an answer starts the container then.
func TestAContainerThatIsBeingMadeHasNoStateYet(t *testing.T) {
	r := newTool(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if out, err := exec.Command("mkfifo", fifo).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := sleeper(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo waits > " + fifo + "; cat " + fifo}}}}
	})
	cmd := r.command("create", "-b", b, "x")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read(t, fifo) // the hook runs
	if res := r.run(t, "state", "x"); res.code != 1 || !strings.Contains(res.err, "container does not exist yet") {
		t.Errorf("state: %+v", res)
	}
	if err := os.WriteFile(fifo, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("create: %v", err)
	}
	if out := r.must(t, "state", "x"); !strings.Contains(out, `"status": "created"`) {
		t.Errorf("state: %s", out)
	}
	pid := r.state(t, "x").Pid
	r.must(t, "delete", "-f", "x")
	reapChild(t, pid)
}

func TestUnknownCallsAreRefusedOnDemand(t *testing.T) {
	r := newTool(t)
	b := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"chroot", "nosuchcall"}, Action: specs.ActErrno},
		}}
	})
	r.must(t, "run", "-b", b, "x")
	var spec specs.Spec
	if err := json.Unmarshal([]byte(read(t, filepath.Join(b, "config.json"))), &spec); err != nil {
		t.Fatal(err)
	}
	spec.Annotations = map[string]string{"run.oci.seccomp_fail_unknown_syscall": "1"}
	writeConfig(t, b, &spec)
	if res := r.run(t, "run", "-b", b, "x"); res.code != 1 || !strings.Contains(res.err, `linux.seccomp: syscalls[0]: call "nosuchcall" is unknown, and the annotation run.oci.seccomp_fail_unknown_syscall is there`) {
		t.Errorf("%+v", res)
	}
	spec.Linux.Seccomp.Syscalls[0].Names = []string{"chroot", "waitpid"} // of 32-bit x86
	writeConfig(t, b, &spec)
	r.must(t, "run", "-b", b, "x")
}

// What hooks of every kind print is added to the files that annotations name.
func TestOutputOfHooks(t *testing.T) {
	r := newTool(t)
	stdout, stderr := filepath.Join(t.TempDir(), "out"), filepath.Join(t.TempDir(), "err")
	hook := func(name string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + name + "; echo not " + name + " >&2"}}}
	}
	b := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Annotations = map[string]string{"run.oci.hooks.stdout": stdout, "run.oci.hooks.stderr": stderr}
		s.Hooks = &specs.Hooks{CreateRuntime: hook("createRuntime"), StartContainer: hook("startContainer"), Poststop: hook("poststop")}
	})
	r.must(t, "run", "-b", b, "x")
	if got := read(t, stdout); got != "createRuntime\nstartContainer\npoststop\n" {
		t.Errorf("stdout: %q", got)
	}
	if got := read(t, stderr); got != "not createRuntime\nnot startContainer\nnot poststop\n" {
		t.Errorf("stderr: %q", got)
	}
	if err := os.Remove(stderr); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(stderr, 0o755); err != nil {
		t.Fatal(err)
	}
	if res := r.run(t, "run", "-b", b, "x"); res.code != 1 || !strings.Contains(res.err, "annotation run.oci.hooks.stderr: open "+stderr) {
		t.Errorf("%+v", res)
	}
}

// A poststop hook that fails is a warning of delete (runtime-spec, "Lifecycle").
func TestDeleteWarnsOfAFailedHook(t *testing.T) {
	r := newTool(t)
	r.must(t, "run", "--keep", "-b", bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/false"}}}
	}), "x")
	if res := r.run(t, "delete", "x"); res.code != 0 || !strings.Contains(res.err, "warning: poststop hook failed with exit code 1") {
		t.Errorf("%+v", res)
	}
}
