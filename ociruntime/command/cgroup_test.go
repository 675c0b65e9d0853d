package command

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// groupDir is where the group of a spec is, for a controller of v1 or in v2.
func groupDir(s *specs.Spec, controller string) string {
	if unix.Access("/sys/fs/cgroup/cgroup.controllers", unix.F_OK) == nil {
		controller = ""
	}
	return filepath.Join("/sys/fs/cgroup", controller, s.Linux.CgroupsPath)
}

// Two containers in one group would be killed, frozen and counted as one.
func TestAGroupWithProcessesIsRefused(t *testing.T) {
	r := newTool(t)
	dir := sleeper(t, nil)
	r.detached(t, dir, "x")
	for _, verb := range []string{"create", "run"} {
		if res := r.run(t, verb, "-b", dir, "y"); res.code != 1 || !strings.Contains(res.err, "container's cgroup is not empty") {
			t.Errorf("%s: %+v", verb, res)
		}
	}
	if st := r.state(t, "x"); st.Status != "running" {
		t.Errorf("the container whose group it is: %+v", st)
	}
}

// The first process would stop on its way into the group, for ever.
func TestAFrozenGroupIsRefused(t *testing.T) {
	r := newTool(t)
	var spec *specs.Spec
	dir := bundle(t, func(s *specs.Spec) { s.Process.Args, spec = []string{"true"}, s })
	group := groupDir(spec, "freezer")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(group)
	file, value := "freezer.state", "FROZEN"
	if _, err := os.Stat(filepath.Join(group, file)); err != nil {
		file, value = "cgroup.freeze", "1"
	}
	if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"create", "run"} {
		if res := r.run(t, verb, "-b", dir, "x"); res.code != 1 || !strings.Contains(res.err, "container's cgroup unexpectedly frozen") {
			t.Errorf("%s: %+v", verb, res)
		}
	}
	if _, err := os.Stat(group); err != nil {
		t.Error("the group is not the runtime's to remove:", err)
	}
}

func TestExecWaitsForResumeOnDemand(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, nil), "x")
	r.must(t, "pause", "x")
	cmd := r.command("exec", "--ignore-paused", "x", "echo", "ran")
	out := startWithOutput(t, cmd)
	time.Sleep(50 * time.Millisecond)
	if got := out.String(); got != "" {
		t.Errorf("paused it says %q", got)
	}
	r.must(t, "resume", "x")
	if err := cmd.Wait(); err != nil || out.String() != "ran\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestExecInAGroupBelow(t *testing.T) {
	r := newTool(t)
	var spec *specs.Spec
	r.detached(t, sleeper(t, func(s *specs.Spec) { spec = s }), "x")
	sub := groupDir(spec, "pids") + "/sub"
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	for flag, want := range map[string]string{
		"..": "bad sub cgroup path", "nosuch": "no such file or directory", "nosuch:/sub": "unknown controller",
	} {
		if res := r.run(t, "exec", "--cgroup", flag, "x", "true"); res.code != 255 || !strings.Contains(res.err, want) {
			t.Errorf("--cgroup %s: %+v", flag, res)
		}
	}
	r.must(t, "exec", "--cgroup", "/", "x", "true")
	flag := "pids:sub"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		flag = "sub"
	}
	out := r.must(t, "exec", "--cgroup", flag, "x", "cat", "/proc/self/cgroup")
	if strings.Count(out, "/sub\n") != 1 {
		t.Errorf("--cgroup %s: the process is in\n%s", flag, out)
	}
}

func TestUpdateTakesFlagsAfterTheContainer(t *testing.T) {
	r := newTool(t)
	var spec *specs.Spec
	r.detached(t, sleeper(t, func(s *specs.Spec) { spec = s }), "x")
	r.must(t, "update", "x", "--pids-limit", "33")
	if got := strings.TrimSpace(read(t, groupDir(spec, "pids")+"/pids.max")); got != "33" {
		t.Errorf("pids.max is %s", got)
	}
}

// 0 is a limit of its own, and none is -1 (runtime-spec, config-linux, "PIDs").
func TestLimitsOfProcesses(t *testing.T) {
	r := newTool(t)
	for limit, want := range map[int64]string{-1: "max", 0: "1", 7: "7"} {
		id := fmt.Sprintf("limit%d", limit)
		var spec *specs.Spec
		r.detached(t, sleeper(t, func(s *specs.Spec) {
			spec = s
			s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
		}), id)
		if got := strings.TrimSpace(read(t, filepath.Join(groupDir(spec, "pids"), "pids.max"))); got != want {
			t.Errorf("%d: pids.max is %s, want %s", limit, got, want)
		}
	}
}

// A quota and its period bound each other, and both are bound by the group above:
// whichever is written first must not be refused for the other's old value.
func TestUpdateOfQuotaAndPeriodBelowALimit(t *testing.T) {
	r := newTool(t)
	quota, period := int64(500000), uint64(1000000)
	var spec *specs.Spec
	dir := sleeper(t, func(s *specs.Spec) {
		spec = s
		s.Linux.CgroupsPath += "/box"
		s.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	})
	group := groupDir(spec, "cpu")
	if err := os.MkdirAll(filepath.Dir(group), 0o755); err != nil {
		t.Fatal(err)
	}
	v1 := filepath.Join(filepath.Dir(group), "cpu.cfs_quota_us")
	if _, err := os.Stat(v1); err == nil { // v2 does not bind a group by the one above
		if err := os.WriteFile(v1, []byte("50000"), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		groups, _ := filepath.Glob("/sys/fs/cgroup/*" + filepath.Dir(spec.Linux.CgroupsPath))
		for _, g := range append(groups, filepath.Dir(group)) {
			os.Remove(g)
		}
	})
	r.detached(t, dir, "x")
	r.must(t, "update", "--cpu-period", "10000", "--cpu-quota", "3000", "x")
	got, err := os.ReadFile(group + "/cpu.max")
	if err != nil {
		got = []byte(strings.TrimSpace(read(t, group+"/cpu.cfs_quota_us")) + " " + read(t, group+"/cpu.cfs_period_us"))
	}
	if string(got) != "3000 10000\n" {
		t.Errorf("quota and period are %q", got)
	}
}

// A container that runs containers may have frozen some: on cgroup v1 nothing
// that is frozen dies, be it in a group that someone else moved it to.
func TestDeleteOfFrozenProcesses(t *testing.T) {
	r := newTool(t)
	var spec *specs.Spec
	dir := sleeper(t, func(s *specs.Spec) { spec = s })
	inner := groupDir(spec, "freezer") + "/inner"
	state := filepath.Join(inner, "freezer.state")
	freeze := func(group string) {
		t.Helper()
		pid := fmt.Sprint(r.state(t, "x").Pid)
		file, value := "freezer.state", "FROZEN"
		if !strings.HasPrefix(group, "/sys/fs/cgroup/freezer/") {
			file, value = "cgroup.freeze", "1"
		}
		for _, w := range [][2]string{{"cgroup.procs", pid}, {file, value}} {
			if err := os.WriteFile(filepath.Join(group, w[0]), []byte(w[1]), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.detached(t, dir, "x")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	freeze(inner)
	r.must(t, "delete", "--force", "x")
	if _, err := os.Stat("/sys/fs/cgroup/freezer"); err != nil {
		return // on v2 a frozen process dies wherever it is
	}
	outer := filepath.Dir(filepath.Dir(state)) + "-elsewhere"
	if err := os.Mkdir(outer, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(outer) })
	r.must(t, "run", "-d", "-b", dir, "x")
	pid := r.state(t, "x").Pid
	freeze(outer)
	r.must(t, "delete", "--force", "x")
	reapChild(t, pid)
}

// Where 0 and -1 are values of their own, they are set, whatever was before.
func TestUpdateToNothing(t *testing.T) {
	r := newTool(t)
	limit, swap, most, period, quota := int64(64<<20), int64(96<<20), int64(5), uint64(100000), int64(50000)
	var spec *specs.Spec
	r.detached(t, sleeper(t, func(s *specs.Spec) {
		spec = s
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &most}
		s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		_, v1 := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
		if _, v2 := os.Stat("/sys/fs/cgroup/cgroup.controllers"); v1 == nil || v2 == nil {
			s.Linux.Resources.Memory.Swap = &swap
		}
	}), "x")
	value := func(controller string, files ...string) string {
		t.Helper()
		for _, f := range files {
			if b, err := os.ReadFile(filepath.Join(groupDir(spec, controller), f)); err == nil {
				return strings.TrimSpace(string(b))
			}
		}
		t.Fatalf("%s has none of %v", groupDir(spec, controller), files)
		return ""
	}
	r.must(t, "update", "--memory", "-1", "x")
	if got := value("memory", "memory.limit_in_bytes", "memory.max"); got == fmt.Sprint(limit) {
		t.Errorf("the limit of memory is %s still", got)
	}
	if spec.Linux.Resources.Memory.Swap != nil {
		if got := value("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"); got == fmt.Sprint(swap) || got == fmt.Sprint(swap-limit) {
			t.Errorf("the limit of swap is %s still", got)
		}
	}
	r.must(t, "update", "--pids-limit", "0", "x")
	if got := value("pids", "pids.max"); got != "1" {
		t.Errorf("pids.max is %s", got)
	}
	for _, burst := range []string{"20000", "0"} {
		r.must(t, "update", "--cpu-burst", burst, "x")
		if got := value("cpu", "cpu.cfs_burst_us", "cpu.max.burst"); got != burst && got != "20" { // Linux before 6.10 shows ms on v2
			t.Errorf("burst is %s, want %s", got, burst)
		}
	}
}
