package ociruntime

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// needsSystemd skips where process 1 is another: test/vm runs these in a machine
// where it is systemd.
func needsSystemd(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/run/systemd/system"); err != nil { // sd_booted(3)
		name, _ := os.ReadFile("/proc/1/comm")
		t.Skipf("the systemd cgroup driver needs systemd as process 1, which is %s here", name)
	}
}

// bySystemd asks for the systemd cgroup driver.
func bySystemd(o *CreateOptions) { o.SystemdCgroup = true }

// shown are properties of a unit.
func shown(t *testing.T, unit string, properties ...string) string {
	t.Helper()
	args := []string{"show", unit}
	for _, p := range properties {
		args = append(args, "-p", p)
	}
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl %v: %v: %s", args, err, out)
	}
	lines := strings.Fields(string(out))
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// gone fails if anything of the unit is left.
func gone(t *testing.T, unit string) {
	t.Helper()
	if got := shown(t, unit, "LoadState", "ActiveState"); got != "ActiveState=inactive LoadState=not-found" {
		t.Errorf("%s is left: %s", unit, got)
	}
	err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == unit {
			t.Errorf("cgroup %s is left", p)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func pointer[T any](v T) *T { return &v }

func TestScopeHoldsTheContainer(t *testing.T) {
	needsSystemd(t)
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	s.Linux.CgroupsPath = "gt-scope.slice:gt:life"
	s.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "7"}
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer[int64](64 << 20)}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer[int64](50)}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: pointer[int64](50000), Period: pointer[uint64](100000), Cpus: "0"}
	b, err := r.create(s, bySystemd)
	if err != nil {
		t.Fatal(err)
	}
	const unit = "gt-life.scope"
	memory := "MemoryMax"
	if !b.group.V2Only() {
		memory = "MemoryLimit"
	}
	holds := func(when, want string, properties ...string) {
		t.Helper()
		if got := shown(t, unit, properties...); got != want {
			t.Errorf("%s: systemd shows %s, want %s", when, got, want)
		}
	}
	reads := func(when, v1, v2, want string) {
		t.Helper()
		f := b.group.UnifiedFiles()
		name := v2
		if !b.group.V2Only() {
			controller, _, _ := strings.Cut(v1, ".")
			f, name = b.group.Files(controller), v1
		}
		if got := f.Text(name); got != want {
			t.Errorf("%s: %s is %q, want %q", when, name, got, want)
		}
	}
	holds("created", "ActiveState=active Delegate=yes Slice=gt-scope.slice TimeoutStopUSec=7s", "Slice", "ActiveState", "Delegate", "TimeoutStopUSec")
	holds("created", memory+"=67108864", memory)
	holds("created", "CPUQuotaPerSecUSec=500ms DevicePolicy=strict TasksMax=50", "CPUQuotaPerSecUSec", "TasksMax", "DevicePolicy")
	reads("created", "memory.limit_in_bytes", "memory.max", "67108864")
	reads("created", "cpuset.cpus", "cpuset.cpus", "0")
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if pids, err := b.Pids(); err != nil || len(pids) != 1 || pids[0] != b.Pid {
		t.Errorf("the scope holds %v, want %d alone, %v", pids, b.Pid, err)
	}
	if out, ws, err := b.exec(process(s, "sh", "-c", "head -c 1 /dev/zero >/dev/null && ! head -c 1 /dev/kmsg 2>/dev/null && echo confined")); err != nil || ws != 0 || out != "confined" {
		t.Errorf("exec: %q %v %v", out, ws, err)
	}
	if err := b.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: pointer[int64](96 << 20)}}); err != nil {
		t.Fatal(err)
	}
	reads("updated", "memory.limit_in_bytes", "memory.max", "100663296")
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	holds("reloaded", memory+"=100663296", memory)
	reads("reloaded", "memory.limit_in_bytes", "memory.max", "100663296")
	reads("reloaded", "pids.max", "pids.max", "50")
	reads("reloaded", "cpuset.cpus", "cpuset.cpus", "0")
	if out, ws, err := b.exec(process(s, "sh", "-c", "head -c 1 /dev/zero >/dev/null && echo useful")); err != nil || ws != 0 || out != "useful" {
		t.Errorf("exec after a reload: %q %v %v", out, ws, err)
	}
	if err := b.Pause(); err != nil {
		t.Error(err)
	}
	if st, err := b.State(); st.Status != Paused || err != nil {
		t.Errorf("paused: %s, %v", st.Status, err)
	}
	if err := b.Resume(); err != nil {
		t.Error(err)
	}
	other, err := Load(r.root, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Delete(context.Background(), true); err != nil {
		t.Error(err)
	}
	b.wait()
	gone(t, unit)
}

func TestScopeEndsWithItsContainer(t *testing.T) {
	needsSystemd(t)
	for _, c := range []struct {
		name string
		args []string
		code int // of the program that runs
	}{
		{"a program that ends well", []string{"true"}, 0},
		{"a program that fails", []string{"sh", "-c", "exit 3"}, 3},
		{"no such program", []string{"/no/such/program"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			s := dockerSpec(t, c.args...)
			var id string
			_, ws, err := r.run(s, bySystemd, func(o *CreateOptions) { id = o.ID })
			if missing := c.name == "no such program"; missing != errdefs.IsNotFound(err) || ws.ExitStatus() != c.code {
				t.Errorf("ended with %v, %v", ws, err)
			}
			gone(t, "gantry-"+id+".scope")
		})
	}
}

func TestScopeOfAnotherIsLeftAlone(t *testing.T) {
	needsSystemd(t)
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	s.Linux.CgroupsPath = ":gt:taken"
	first, err := r.create(s, bySystemd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.create(s, bySystemd); err == nil || !strings.Contains(err.Error(), "gt-taken.scope") {
		t.Errorf("a second one of the name: %v", err)
	}
	if st, err := first.State(); err != nil || st.Status != Created {
		t.Errorf("the first is %s, %v", st.Status, err)
	}
	if err := first.Delete(context.Background(), true); err != nil {
		t.Error(err)
	}
	first.wait()
	gone(t, "gt-taken.scope")
}

func TestScopeGoesWithAMakerThatDies(t *testing.T) {
	needsSystemd(t)
	s := dockerSpec(t, "sleep", "100")
	s.Linux.CgroupsPath = ":gt:orphan"
	c := &Container{ID: "orphan", spec: s}
	l, err := cgroup.Discover()
	if err != nil {
		t.Fatal(err)
	}
	if c.group, err = c.groupOf(l, CreateOptions{ID: "orphan", SystemdCgroup: true}); err != nil {
		t.Fatal(err)
	}
	if c.seat, err = c.startScope(c.scope); err != nil {
		t.Fatal(err)
	}
	c.seat.end.Close() // as the kernel does for a maker that is killed
	if _, err := c.seat.child.wait(); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(60 * time.Second)
	for shown(t, "gt-orphan.scope", "ActiveState") != "ActiveState=inactive" && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	gone(t, "gt-orphan.scope")
}

func TestScopeRefusesWhatIsNoUnit(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/plain/path", "system.slice:gt", "system:gt:name", "system.slice:gt:", "a--b.slice:gt:name", "a.slice:gt:b/../c"} {
		s := dockerSpec(t, "true")
		s.Linux.CgroupsPath = path
		if _, err := r.create(s, bySystemd); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.cgroupsPath") {
			t.Errorf("cgroupsPath %q: %v", path, err)
		}
	}
}
