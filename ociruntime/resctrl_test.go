package ociruntime

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// fakeResctrl is a directory with the files that the kernel would put there: no
// machine of the tests has a processor with it.
func fakeResctrl(t *testing.T, groups map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, schemata := range groups {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Join(dir, "mon_groups"), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"tasks": "", "schemata": schemata} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestClassesOfService(t *testing.T) {
	for _, row := range []struct {
		name   string
		rdt    specs.LinuxIntelRdt
		err    string
		joined string // group in whose tasks the process is
	}{
		{"one that is there", specs.LinuxIntelRdt{ClosID: "gold"}, "", "gold"},
		{"the root", specs.LinuxIntelRdt{ClosID: "/"}, "", "/"},
		{"one that is not there", specs.LinuxIntelRdt{ClosID: "none"}, "linux.intelRdt.closID", ""},
		{"one that is there, as it is", specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=f;1=3", MemBwSchema: "MB:0=50"}, "", "gold"},
		{"one that is there, otherwise", specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=1"}}, `is not "L3:0=1"`, ""},
		{"the container's own is there", specs.LinuxIntelRdt{}, "file exists", ""},
	} {
		root := fakeResctrl(t, map[string]string{"gold": "    L3:0=f;1=3\n    MB:0=50;1=100\n", "/": "", "box": ""})
		if err := validateIntelRdt(&row.rdt); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
		err := groupsOf(root, "box", &row.rdt).join(&row.rdt, 77)
		if (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %v, want %q", row.name, err, row.err)
		}
		for _, group := range []string{"gold", "/", "box"} {
			tasks, err := os.ReadFile(filepath.Join(root, group, "tasks"))
			if err != nil || (string(tasks) == "77") != (group == row.joined) {
				t.Errorf("%s: tasks of %s are %q, %v", row.name, group, tasks, err)
			}
		}
	}
}

func TestSchemataAreInTheOrderOfTheSpecification(t *testing.T) {
	got := schemata(&specs.LinuxIntelRdt{MemBwSchema: "MB:0=50", L3CacheSchema: "L3:0=f", Schemata: []string{"L2:0=3", "SMBA:0=8"}})
	if want := []string{"L3:0=f", "MB:0=50", "L2:0=3", "SMBA:0=8"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// The kernel puts files into a directory that is made, which this one does not: so
// each of these fails after it has made something.
func TestGroupsThatCannotBeJoinedAreNotLeft(t *testing.T) {
	for name, r := range map[string]specs.LinuxIntelRdt{
		"box/tasks":                {},
		"box/schemata":             {Schemata: []string{"L3:0=1"}},
		"new/schemata":             {ClosID: "new", MemBwSchema: "MB:0=50"},
		"gold/mon_groups/box/task": {ClosID: "gold", EnableMonitoring: true},
		"enableMonitoring":         {EnableMonitoring: true},
	} {
		root := fakeResctrl(t, map[string]string{"gold": "L3:0=f\n"})
		if err := groupsOf(root, "box", &r).join(&r, 77); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want one of %s", err, name)
		}
		for _, left := range []string{"box", "new", "gold/mon_groups/box"} {
			if _, err := os.Stat(filepath.Join(root, left)); err == nil {
				t.Errorf("%s: %s is left", name, left)
			}
		}
	}
}

func TestWhatIsMadeForAContainerIsRemoved(t *testing.T) {
	root := t.TempDir()
	g := groupsOf(root, "box", &specs.LinuxIntelRdt{EnableMonitoring: true})
	if want := filepath.Join(root, "box/mon_groups/box"); g.Monitor != want {
		t.Errorf("the monitoring group is %s, want %s", g.Monitor, want)
	}
	if err := os.MkdirAll(g.Class, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := g.remove(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	kept := groupsOf(root, "box", &specs.LinuxIntelRdt{ClosID: "gold"})
	if err := os.Mkdir(kept.Class, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := kept.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept.Class); err != nil {
		t.Errorf("a class by name is removed: %v", err)
	}
}

func TestNoResctrlIsAnError(t *testing.T) {
	if root, err := findResctrl(); err == nil {
		t.Skipf("this machine has a resctrl filesystem at %s", root)
	}
	r := newRig(t)
	s := dockerSpec(t, "true")
	s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "gold"}
	if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), "linux.intelRdt: no resctrl filesystem is mounted") {
		t.Errorf("%v", err)
	}
	for _, bad := range []specs.LinuxIntelRdt{{ClosID: "a/b"}, {ClosID: ".."}, {MemBwSchema: "x"}, {L3CacheSchema: "L3:0=1\nMB:0=1"}} {
		s.Linux.IntelRdt = &bad
		if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), "config.json: linux.intelRdt") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
