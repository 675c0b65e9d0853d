package command

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func startContainerHook(h specs.Hook) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{h}}
	}
}

// A relative path of the hook is the container's, and never the host's root.
func TestCreateContainerHookIsInTheRootfs(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo made >bin/here"}}}}
	})
	r.must(t, "run", "-b", dir, "x")
	if got := read(t, filepath.Join(dir, "rootfs/bin/here")); got != "made\n" {
		t.Errorf("it says %q", got)
	}
}

// It runs inside: as other runtimes have it, with the program's environment where
// the hook says none, and held by the container's filter.
func TestStartContainerHookIsPartOfTheContainer(t *testing.T) {
	r := newTool(t)
	said := filepath.Join(t.TempDir(), "said")
	write(t, said, "", 0o666)
	for _, c := range []struct {
		name string
		env  []string
		want string
	}{
		{"no environment of its own", nil, "two,/\n"},
		{"its own", []string{"ONE=three", "PATH=/bin"}, "three,\n"},
	} {
		dir := bundle(t, func(s *specs.Spec) {
			startContainerHook(specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo $ONE,$HOME >/said"}, Env: c.env})(s)
			s.Process.Env = append(s.Process.Env, "ONE=two")
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/said", Type: "bind", Source: said, Options: []string{"bind"}})
		})
		r.must(t, "run", "-b", dir, "x")
		if got := read(t, said); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	res := r.run(t, "run", "-b", bundle(t, func(s *specs.Spec) {
		startContainerHook(specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "busybox mkdir /dev/shm/x"}})(s)
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: "RLIMIT_CORE"})
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno},
		}}
	}), "x")
	if res.code != 1 || !strings.Contains(res.err, "error running startContainer hook #0") || !strings.Contains(res.err, "Operation not permitted") {
		t.Errorf("the filter does not hold the hook: %+v", res)
	}
}
