package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A broken bundle is refused in one line that says what is wrong and where, and
// nothing is left behind.
func TestBrokenBundlesAreRefusedInOneLine(t *testing.T) {
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			r := newTool(t)
			dir := bundle(t, b.change)
			if b.prepare != nil {
				b.prepare(t, dir)
			}
			res := r.run(t, "run", "--bundle", dir, "broken")
			if res.code != 1 {
				t.Errorf("exit code %d, want 1", res.code)
			}
			if strings.Count(res.err, "\n") != 1 || !strings.HasPrefix(res.err, program+": ") {
				t.Errorf("it says %q, one line is due", res.err)
			}
			for word := range strings.SplitSeq(b.says, "|") {
				if !strings.Contains(res.err, word) {
					t.Errorf("%q does not say %q", res.err, word)
				}
			}
			if res.out != "" {
				t.Errorf("it printed %q", res.out)
			}
		})
	}
}

type brokenBundle struct {
	name    string
	change  func(*specs.Spec)
	prepare func(t *testing.T, dir string)
	says    string // words, by |
}

func config(content string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, "config.json"), content, 0o644) }
}

func write(t *testing.T, file, content string, perm os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
}

func mount(m specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
}

var broken = []brokenBundle{
	{"no config.json", nil, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "config.json")) }, "config.json|no such file"},
	{"JSON that ends early", nil, config("{\n  \"ociVersion\": \"1.0.0\",\n"), "config.json|line 3|unexpected end"},
	{"JSON with a slip", nil, config("{\n\"root\": {path: 1}}"), "config.json|line 2 column 10|'p'"},
	{"a string where a list is due", nil, config(`{"ociVersion":"1.0.0","process":{"args":"sh"}}`), "process.args|string|[]string"},
	{"a negative uid", nil, config(`{"ociVersion":"1.0.0","process":{"user":{"uid":-1}}}`), "process.user.uid|number -1|uint32"},
	{"no ociVersion", func(s *specs.Spec) { s.Version = "" }, nil, "config.json|ociVersion is missing"},
	{"an ociVersion of the future", func(s *specs.Spec) { s.Version = "2.0.0" }, nil, "config.json|ociVersion|2.0.0"},
	{"no process", func(s *specs.Spec) { s.Process = nil }, nil, "config.json|process is missing"},
	{"no arguments", func(s *specs.Spec) { s.Process.Args = nil }, nil, "process.args is empty"},
	{"a relative cwd", func(s *specs.Spec) { s.Process.Cwd = "tmp" }, nil, `process.cwd|"tmp"|not absolute`},
	{"a cwd that is a file", func(s *specs.Spec) { s.Process.Cwd = "/bin/sh" }, nil, "cwd|/bin/sh|not a directory"},
	{"a user namespace without ids", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}, nil, "linux.namespaces[|needs linux.uidMappings and gidMappings"},
	{"no root", func(s *specs.Spec) { s.Root = nil }, nil, "root.path is missing"},
	{"a rootfs that is not there", func(s *specs.Spec) { s.Root.Path = "nosuch" }, nil, "root.path|nosuch|no such file or directory"},
	{"a rootfs that is a file", func(s *specs.Spec) { s.Root.Path = "rootfs/bin/sh" }, nil, "root.path|rootfs/bin/sh|not a directory"},
	{"a program that is not there", func(s *specs.Spec) { s.Process.Args = []string{"/bin/nosuch"} }, nil, "/bin/nosuch|no such file or directory"},
	{"a program that is not in PATH", func(s *specs.Spec) { s.Process.Args = []string{"nosuch"} }, nil, "nosuch|executable file not found in $PATH"},
	{"a program that is a directory", func(s *specs.Spec) { s.Process.Args = []string{"/bin"} }, nil, "/bin|directory"},
	{"a program that is not executable", func(s *specs.Spec) { s.Process.Args = []string{"/data"} }, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "rootfs/data"), "x", 0o644)
	}, "/data|permission denied"},
	{"a missing interpreter", func(s *specs.Spec) { s.Process.Args = []string{"/script"} }, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "rootfs/script"), "#!/usr/bin/nosuch -x\n", 0o755)
	}, "/script|interpreter|/usr/bin/nosuch|no such file or directory"},
	{"a program of another machine", func(s *specs.Spec) { s.Process.Args = []string{"/alien"} }, func(t *testing.T, dir string) {
		elf, err := os.ReadFile(filepath.Join(dir, "rootfs/bin/busybox"))
		if err != nil {
			t.Fatal(err)
		}
		const machine, s390 = 18, 22 // e_machine (elf(5))
		elf[machine] = s390
		write(t, filepath.Join(dir, "rootfs/alien"), string(elf), 0o755)
	}, "/alien|exec format error|S390"},
	{"an unknown rlimit", func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} }, nil, "process.rlimits[0]|RLIMIT_X"},
	{"an rlimit with soft above hard", func(s *specs.Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 5, Hard: 4}}
	}, nil, "process.rlimits[0]|RLIMIT_NOFILE|soft limit 5 above hard limit 4"},
	{"a duplicate namespace", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}, nil, "linux.namespaces[6]|pid|twice"},
	{"an unknown namespace", func(s *specs.Spec) { s.Linux.Namespaces[0].Type = "space" }, nil, "linux.namespaces[0]|space"},
	{"a namespace that is not there", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/proc/1/ns/nosuch" }, nil, "network namespace|/proc/1/ns/nosuch|no such file or directory"},
	{"a namespace of another kind", func(s *specs.Spec) { s.Linux.Namespaces[1].Path = "/proc/self/ns/uts" }, nil, "network namespace|/proc/self/ns/uts|invalid argument"},
	{"a hostname without a namespace for it", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces[:3], s.Linux.Namespaces[4:]...)
	}, nil, "hostname|uts namespace"},
	{"a mount source that is not there", mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such", Options: []string{"bind"}}), nil, "mounts[7]|/x|/no/such|no such file or directory"},
	{"an option of a filesystem on a bind mount", mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/tmp", Options: []string{"bind", "size=1k"}}), nil, "mounts[7]|/x|option size=1k"},
	{"a mount without a destination", mount(specs.Mount{Type: "tmpfs", Source: "x"}), nil, "mounts[7]|destination is missing"},
	{"an unknown filesystem", mount(specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"}), nil, "nosuchfs|/x|no such device"},
	{"a mount option that the filesystem refuses", mount(specs.Mount{Destination: "/x", Type: "tmpfs", Source: "x", Options: []string{"size=much"}}), nil, "tmpfs|/x|size|invalid argument"},
	{"a mount over what is inside /proc", mount(specs.Mount{Destination: "/proc/self/x", Type: "tmpfs", Source: "x"}), nil, "mounts[7]|/proc/self/x"},
	{"a destination below a file", mount(specs.Mount{Destination: "/bin/sh/x", Type: "tmpfs", Source: "x"}), nil, "/bin/sh/x|not a directory"},
	{"a sysctl that is not there", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.no.such": "1"} }, nil, "sysctl|net.no.such|no such file or directory"},
	{"a sysctl of the host", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"vm.swappiness": "1"} }, nil, "linux.sysctl|vm.swappiness"},
	{"an unknown seccomp action", func(s *specs.Spec) { s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_HUG"} }, nil, "linux.seccomp|defaultAction|SCMP_ACT_HUG"},
	{"an unknown seccomp operator", func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"kill"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "SCMP_CMP_XX"}}},
		}}
	}, nil, "linux.seccomp|syscalls[0]|SCMP_CMP_XX"},
	{"a device of an unknown type", func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}} }, nil, "linux.devices|/dev/x|z"},
	{"an unknown rootfsPropagation", func(s *specs.Spec) { s.Linux.RootfsPropagation = "wide" }, nil, "linux.rootfsPropagation|wide"},
	{"a hook that is not there", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/no/such/hook"}}}
	}, nil, "createRuntime hook #0|/no/such/hook|no such file or directory"},
	{"a hook that fails", func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo sorry >&2; exit 3"}}}}
	}, nil, "createRuntime hook #0|/bin/sh|3|sorry"},
	{"a limit that the kernel refuses", func(s *specs.Spec) {
		one := uint64(1)
		s.Linux.Resources.CPU = &specs.LinuxCPU{Period: &one}
	}, nil, "linux.resources|cpu|1|invalid argument"},
	{"a field that is not supported", func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"} }, nil, "linux.intelRdt"},
	{"a zero byte in an argument", func(s *specs.Spec) { s.Process.Args = []string{"a\x00b"} }, nil, "process|zero byte"},
}
