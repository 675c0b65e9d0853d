package command

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// --debug tells each step in the lines that the tools for logs of other runtimes read.
func TestDebugTellsWhatIsDone(t *testing.T) {
	r := newTool(t)
	b := bundle(t, func(s *specs.Spec) {
		shell("echo hello")(s)
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_LOG"}, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"chroot"}, Action: specs.ActErrno},
		}}
		s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}}
	})
	want := []string{`plan: mount proc on /proc`, `run hook`, `seccomp filter flags: 2`, `runtime: clone`, `the program runs`}
	res := r.run(t, "--debug", "run", "-b", b, "x")
	if res.code != 0 || res.out != "hello\n" {
		t.Fatalf("%+v", res)
	}
	for _, w := range want {
		if !strings.Contains(res.err, ` level=debug msg="`+w+`"`) {
			t.Errorf("stderr does not say %q:\n%s", w, res.err)
		}
	}
	log := t.TempDir() + "/log"
	if res = r.run(t, "--debug", "--log", log, "--log-format", "json", "run", "-b", b, "x"); res.code != 0 || res.err != "" {
		t.Fatalf("%+v", res)
	}
	said := map[string]bool{}
	for line := range strings.Lines(read(t, log)) {
		var l struct{ Level, Msg string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Level != "debug" {
			t.Errorf("%q: %v", line, err)
		}
		said[l.Msg] = true
	}
	for _, w := range want {
		if !said[w] {
			t.Errorf("the log does not say %q", w)
		}
	}
}

func TestDebugOfAnExec(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, nil), "x")
	res := r.run(t, "--debug", "exec", "x", "echo", "hello")
	if res.code != 0 || res.out != "hello\n" || !strings.Contains(res.err, ` level=debug msg="plan: enter the container"`) || !strings.Contains(res.err, `msg="the program runs" container=x pid=`) {
		t.Errorf("%+v", res)
	}
}
