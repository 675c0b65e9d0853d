package command

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// What cannot be given is left out with a warning, and the container runs
// (runtime-spec, config.md, "Linux Process").
func TestCapabilitiesThatCannotBeGiven(t *testing.T) {
	r := newTool(t)
	for _, c := range []struct {
		name string
		caps specs.LinuxCapabilities
		out  string
		errs []string
	}{
		{
			"unknown ones",
			specs.LinuxCapabilities{Bounding: []string{"CAP_FLY", "SWIM", "CAP_KILL"}},
			"CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\n",
			[]string{"CAP_FLY", "SWIM"},
		},
		{
			"ambient ones that are not inheritable",
			specs.LinuxCapabilities{
				Bounding: []string{"CAP_CHOWN", "CAP_KILL"}, Permitted: []string{"CAP_CHOWN", "CAP_KILL"}, Inheritable: []string{"CAP_KILL"},
				Ambient: []string{"CAP_CHOWN", "CAP_KILL"},
			},
			"CapBnd:\t0000000000000021\nCapAmb:\t0000000000000020\n",
			[]string{"can't raise ambient capability CAP_CHOWN: "},
		},
	} {
		res := r.run(t, "run", "-b", bundle(t, func(s *specs.Spec) {
			s.Process.Capabilities = &c.caps
			s.Process.Args = []string{"busybox", "grep", "-E", "CapBnd|CapAmb", "/proc/self/status"}
		}), "x")
		if res.code != 0 || res.out != c.out {
			t.Errorf("%s: %+v", c.name, res)
		}
		for _, text := range c.errs {
			if !strings.Contains(res.err, text) {
				t.Errorf("%s: %q does not warn of %q", c.name, res.err, text)
			}
		}
	}
}

// Where a capability is inheritable, one that exec adds is ambient as well: so a
// user who is not root gets it.
func TestExecAddsAmbientCapabilities(t *testing.T) {
	r := newTool(t)
	for _, c := range []struct {
		id          string
		inheritable []string
		want        string
	}{
		{"without", nil, "CapAmb:\t0000000000000000\n"},
		{"with", []string{"CAP_KILL", "CAP_SYS_CHROOT"}, "CapAmb:\t0000000000040000\n"},
	} {
		r.detached(t, sleeper(t, func(s *specs.Spec) {
			s.Process.Capabilities.Inheritable = c.inheritable
			s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_CHROOT")
		}), c.id)
		if got := r.must(t, "exec", "--cap", "CAP_SYS_CHROOT", c.id, "busybox", "grep", "CapAmb", "/proc/self/status"); got != c.want {
			t.Errorf("inheritable %v: %q, want %q", c.inheritable, got, c.want)
		}
	}
}
