package ociruntime

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// The plan of a spec is the same on every machine, for every user: what differs
// is in the facts.
func TestPlansAreAsWritten(t *testing.T) {
	files, err := filepath.Glob("testdata/spec/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no specs: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			spec, err := parseSpec(data)
			if err != nil {
				t.Fatal(err)
			}
			facts := Facts{
				ID: "box", Bundle: "/bundle", Rootfs: "/bundle/rootfs", Home: "/root", LastCap: 40, Bounding: 1<<41 - 1,
				CgroupJoin:   []string{"/sys/fs/cgroup/memory/box/tasks", "/sys/fs/cgroup/cpu,cpuacct/box/tasks"},
				CgroupMounts: []CgroupMount{{Name: "memory", Path: "/sys/fs/cgroup/memory/box"}, {Name: "cpu,cpuacct", Path: "/sys/fs/cgroup/cpu,cpuacct/box", Links: []string{"cpu", "cpuacct"}}},
				Rootless:     name == "rootless",
				Copied:       map[string][]copied{"/srv": {{name: ".", mode: 0o40755}, {name: "file", mode: 0o100644, size: 3}, {name: "link", mode: 0o120777, link: "file"}}},
			}
			p, err := Compile(spec, facts)
			if err != nil {
				t.Fatal(err)
			}
			checkPlan(t, p)
			golden(t, name, p)
			e, err := compileExec(spec, spec.Process, facts)
			if err != nil {
				t.Fatal(err)
			}
			checkPlan(t, e)
			golden(t, name+"-exec", e)
		})
	}
}

// ownFilter is what differs between machines all the same: the program of a filter
// has the numbers of the machine's own system calls.
var ownFilter = regexp.MustCompile(`\d+ instructions`)

// golden holds p against testdata/NAME.golden.
func golden(t *testing.T, name string, p *Plan) {
	t.Helper()
	var out bytes.Buffer
	p.Print(&out)
	got := ownFilter.ReplaceAllLiteral(out.Bytes(), []byte("some instructions"))
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s:%d differs:\n got %s\nwant %s\n(go test -update writes it anew)", file, i+1, strings.Join(g[min(i, len(g)):min(i+3, len(g))], "\n"), strings.Join(w[min(i, len(w)):min(i+3, len(w))], "\n"))
		}
	}
}
