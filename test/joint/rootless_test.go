package joint

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/test/rig"
)

// An ordinary user's container, with the bundle that runc writes for it. More
// than the own id needs helpers and cgroups need v2: those are in test/vm.
func TestAnOrdinaryUserRunsWhatRuncWrites(t *testing.T) {
	u := newOrdinary(t)
	u.must("runc", "spec", "--rootless")
	for _, c := range []struct {
		name   string
		change func(*specs.Spec)
		script string
		want   string
		code   int
	}{
		{"the user is root inside", nil, "id -u; cat /proc/self/uid_map", "0 0 12345 1", 0},
		{"no other id is mapped", nil, "chown 5 /tmp 2>/dev/null || echo refused", "refused", 0},
		{"what it makes is the user's", nil, "touch /tmp/file && stat -c %u /tmp/file", "0", 0},
		{"the root is read-only where it says so", func(s *specs.Spec) { s.Root.Readonly = true }, "touch /tmp/x 2>/dev/null || echo refused", "refused", 0},
		{"devices are the host's, and only the harmless ones", nil, "stat -c %t:%T /dev/null /dev/zero; ls /dev/kmsg 2>/dev/null", "1:3 1:5", 1},
		{"masked and read-only paths", nil, "wc -c </proc/keys; echo x 2>/dev/null >/proc/sys/kernel/hostname || echo refused", "0 refused", 0},
		{"an exit code", nil, "exit 7", "", 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.t = t
			u.edit(func(s *specs.Spec) {
				s.Process.Args, s.Process.Terminal, s.Root.Readonly = []string{"sh", "-c", c.script}, false, false
				if c.change != nil {
					c.change(s)
				}
			})
			for _, runtime := range []string{u.runtime, "runc"} {
				r := u.run(runtime, "--root", u.dir+"/state", "run", "box")
				if got := strings.Join(strings.Fields(r.Stdout), " "); got != c.want || r.Code != c.code {
					t.Errorf("%s: printed %q, exit code %d, want %q, %d: %s", filepath.Base(runtime), got, r.Code, c.want, c.code, r.Stderr)
				}
			}
		})
	}
}

func TestAnOrdinaryUserHasNoLimitsOnCgroup1(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		t.Skip("this machine has cgroup v2 alone, which can be delegated: test/vm holds that")
	}
	u := newOrdinary(t)
	u.must(u.runtime, "spec", "--rootless")
	u.edit(func(s *specs.Spec) {
		limit := int64(32 << 20)
		s.Process.Args, s.Process.Terminal = []string{"true"}, false
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	})
	r := u.run(u.runtime, "--root", u.dir+"/state", "run", "box")
	if r.Code == 0 || !strings.Contains(r.Stderr, "linux.resources.memory.limit") {
		t.Errorf("a limit that cannot be kept: exit code %d: %s", r.Code, r.Stderr)
	}
	if left, err := os.ReadDir(u.dir + "/state"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// ordinary is a user that is nobody special, with a bundle.
type ordinary struct {
	t            *testing.T
	dir, runtime string
}

const ordinaryID = 12345

func newOrdinary(t *testing.T) *ordinary {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user, and this is user", os.Geteuid())
	}
	u := &ordinary{t: t, dir: rig.Dir(t)}
	u.runtime = filepath.Join(u.dir, "gantry-runtime") // where it is built, others may not look
	rig.Must(t, exec.Command("cp", rig.Program(t, "gantry-runtime"), u.runtime))
	rig.Must(t, exec.Command("umoci", "raw", "unpack", "--image", rig.Busybox(t)+":busybox:latest", u.dir+"/rootfs"))
	rig.Must(t, exec.Command("chown", "-R", "12345:12345", u.dir))
	return u
}

func (u *ordinary) run(program string, args ...string) rig.Result {
	u.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = u.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + u.dir, "HOME=" + u.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinaryID, Gid: ordinaryID}}
	return rig.Run(u.t, cmd)
}

func (u *ordinary) must(program string, args ...string) {
	u.t.Helper()
	if r := u.run(program, args...); r.Code != 0 {
		u.t.Fatalf("%s %v: exit code %d: %s", program, args, r.Code, r.Stderr)
	}
}

// edit changes the bundle's config.json.
func (u *ordinary) edit(change func(*specs.Spec)) {
	u.t.Helper()
	file := filepath.Join(u.dir, "config.json")
	data, err := os.ReadFile(file)
	if err != nil {
		u.t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		u.t.Fatal(err)
	}
	change(&spec)
	if data, err = json.Marshal(spec); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		u.t.Fatal(err)
	}
}
