package ociruntime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzCompile feeds config.json of any content to the parser and the compiler.
// What they accept must be a plan that the machine can execute.
func FuzzCompile(f *testing.F) {
	files, err := filepath.Glob("testdata/spec/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no specs to begin with: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := parseSpec(data)
		if err != nil {
			return
		}
		compileAny(t, spec)
	})
}

// FuzzFields puts any text into the fields that hold text, and any number into
// those that hold numbers: bytes of JSON rarely get as far.
func FuzzFields(f *testing.F) {
	f.Add("tmpfs", "/a/../b", "src", "ro,rnosuid,mode=755", "sh", "/bin::.", "CAP_KILL", "net.ipv4.x", "SCMP_ACT_ERRNO", "SCMP_CMP_NE", uint64(1), int64(-1))
	f.Add("bind", "/", "", "rbind,rshared,idmap", "/bin/sh", "", "CAP_X", "kernel/y", "SCMP_ACT_NOTIFY", "SCMP_CMP_MASKED_EQ", uint64(1)<<63, int64(1)<<40)
	f.Fuzz(func(t *testing.T, fstype, path, source, options, program, search, capability, sysctl, action, operator string, u uint64, i int64) {
		data, err := os.ReadFile("testdata/spec/everything.json")
		if err != nil {
			t.Fatal(err)
		}
		spec, err := parseSpec(data)
		if err != nil {
			t.Fatal(err)
		}
		p, l := spec.Process, spec.Linux
		p.Args, p.Cwd, p.Env = []string{program, source}, "/"+path, append(p.Env, "PATH="+search, search)
		p.Capabilities.Bounding = append(p.Capabilities.Bounding, capability)
		p.Rlimits[0].Soft, p.User.UID, p.IOPriority.Priority = u, uint32(u), int(i)
		spec.Mounts = append(spec.Mounts, specs.Mount{Type: fstype, Destination: path, Source: source, Options: strings.Split(options, ",")})
		spec.Hostname = search
		l.Sysctl = map[string]string{sysctl: source}
		l.Devices = append(l.Devices, specs.LinuxDevice{Path: path, Type: "c", Major: i, Minor: int64(u)})
		l.MaskedPaths, l.ReadonlyPaths = append(l.MaskedPaths, path), append(l.ReadonlyPaths, source)
		l.TimeOffsets["monotonic"] = specs.LinuxTimeOffset{Secs: i, Nanosecs: uint32(u)}
		l.Seccomp.Syscalls = append(l.Seccomp.Syscalls, specs.LinuxSyscall{
			Names: []string{"read", program}, Action: specs.LinuxSeccompAction(action),
			Args: []specs.LinuxSeccompArg{{Index: uint(u % 8), Op: specs.LinuxSeccompOperator(operator), Value: u, ValueTwo: uint64(i)}},
		})
		compileAny(t, spec)
	})
}

func compileAny(t *testing.T, spec *specs.Spec) {
	t.Helper()
	p, err := Compile(spec, Facts{
		ID: "fuzz", Bundle: "/bundle", Rootfs: "/bundle/rootfs", Home: "/", LastCap: 40, Bounding: 1<<41 - 1,
		CgroupJoin:   []string{"/sys/fs/cgroup/pids/fuzz/tasks"},
		CgroupMounts: []CgroupMount{{Name: "cpu,cpuacct", Path: "/sys/fs/cgroup/cpu,cpuacct/fuzz", Links: []string{"cpu"}}},
	})
	if err != nil {
		return
	}
	checkPlan(t, p)
}

// checkPlan says what holds for every plan.
func checkPlan(t *testing.T, p *Plan) {
	t.Helper()
	if _, err := p.assemble(p.FirstFD); err != nil {
		t.Error(err)
	}
	if n := len(p.Steps); n == 0 || p.Steps[n-1].Call != "execve" {
		t.Errorf("%d steps, the last of which is no execve", n)
	}
	for i, s := range p.Steps {
		if s.Name == "" {
			t.Errorf("step %d, %s, does not say what it is for", i, s)
		}
		for _, to := range []int{s.Then, s.Else} {
			if to != 0 && (to <= i || to >= len(p.Steps)) {
				t.Errorf("step %d goes to step %d of %d: only forward is allowed", i, to, len(p.Steps))
			}
		}
		for _, a := range s.Args {
			if a.reg != 0 && int(a.reg) > p.regs {
				t.Errorf("step %d takes register %d of %d", i, a.reg, p.regs)
			}
		}
	}
}
