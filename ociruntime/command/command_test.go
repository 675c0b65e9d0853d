package command

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSignalsByNameAndNumber(t *testing.T) {
	for _, c := range []struct {
		text string
		want syscall.Signal
	}{
		{"9", 9},
		{"KILL", 9},
		{"SIGKILL", 9},
		{"sigterm", 15},
		{"term", 15},
		{"0", 0},
		{"RTMIN", 34},
		{"SIGRTMIN+3", 37},
		{"RTMAX-1", 63},
		{"64", 64},
	} {
		if got, err := parseSignal(c.text); err != nil || got != c.want {
			t.Errorf("%s is %d (%v), want %d", c.text, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "SIG", "NOSUCH", "65", "-1", "RTMIN+31", "RTMAX+1", "RTMIN3x"} {
		if got, err := parseSignal(bad); err == nil {
			t.Errorf("%q is taken for %d", bad, got)
		}
	}
}

func TestSizesHaveBinaryUnits(t *testing.T) {
	for text, want := range map[string]int64{
		"-1": -1, "0": 0, "1024": 1024, "32M": 32 << 20, "32mb": 32 << 20, "1GiB": 1 << 30, "1.5k": 1536, "7b": 7, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "M", "1X", "1MM", "9223372036854775808", "9999P", "1.5"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("%q is taken for %d", bad, got)
		}
	}
}

func TestDiffIsTheShortestWay(t *testing.T) {
	lines := func(s string) (l []line) {
		for _, word := range strings.Fields(s) {
			l = append(l, line{text: word})
		}
		return l
	}
	for _, c := range []struct{ a, b, want string }{
		{"", "", ""},
		{"a b c", "a b c", ""},
		{"a b c", "a c", "-b"},
		{"a c", "a b c", "+b"},
		{"a b c d", "b x d e", "-a -c +x +e"},
	} {
		var got []string
		for _, d := range diff(lines(c.a), lines(c.b)) {
			got = append(got, d.Sign+d.Text)
		}
		if !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("from %q to %q: %v, want %s", c.a, c.b, got, c.want)
		}
	}
}

func TestUnknownContainers(t *testing.T) {
	r := newTool(t)
	for _, c := range []struct {
		code int
		args string
	}{
		{1, "state nosuch"},
		{1, "start nosuch"},
		{1, "kill nosuch"},
		{1, "kill --all nosuch 9"},
		{1, "delete nosuch"},
		{0, "delete --force nosuch"},
		{0, "delete -f nosuch"},
		{1, "pause nosuch"},
		{1, "resume nosuch"},
		{1, "ps nosuch"},
		{1, "update --memory 1g nosuch"},
		{1, "events --stats nosuch"},
		{255, "exec nosuch true"},
	} {
		res := r.run(t, strings.Fields(c.args)...)
		if res.code != c.code || c.code != 0 && !strings.Contains(res.err, "container does not exist") {
			t.Errorf("%s: exit code %d, want %d: %q", c.args, res.code, c.code, res.err)
		}
	}
	if res := r.run(t, "list"); res.code != 1 || !strings.Contains(res.err, "no such file or directory") {
		t.Errorf("list of a --root that is not there: %+v", res)
	}
	if err := os.Mkdir(r.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if out := r.must(t, "list", "--format", "json"); out != "[]\n" {
		t.Errorf("list says %q", out)
	}
	if out := r.must(t, "list", "-q"); out != "" {
		t.Errorf("list -q says %q", out)
	}
}

func TestWrongCommandLines(t *testing.T) {
	r := newTool(t)
	for args, words := range map[string]string{
		"nosuch":                       `unknown command "nosuch"`,
		"state":                        "gantry-runtime state CONTAINER",
		"state a b":                    "gantry-runtime state CONTAINER",
		"kill --nosuch x":              "unknown flag -nosuch",
		"kill x NOSUCH":                `unknown signal "NOSUCH"`,
		"list --format yaml":           `--format "yaml"`,
		"ps --format yaml x":           `--format "yaml"`,
		"--log-format yaml list":       `--log-format "yaml"`,
		"--rootless maybe list":        `--rootless "maybe"`,
		"run --preserve-fds x y":       "preserve-fds",
		"run --preserve-fds 99 -b . y": "config.json",
		"plan --diff .":                "two bundles",
	} {
		res := r.run(t, strings.Fields(args)...)
		if res.code != 1 || strings.Count(res.err, "\n") != 1 || !strings.Contains(res.err, words) {
			t.Errorf("%s: exit code %d: %q does not say %q in one line", args, res.code, res.err, words)
		}
	}
}

func TestLogOfJSONLines(t *testing.T) {
	r := newTool(t)
	log := t.TempDir() + "/log"
	res := r.run(t, "--log", log, "--log-format", "json", "state", "nosuch")
	if res.code != 1 || !strings.Contains(res.err, "container does not exist") {
		t.Errorf("exit code %d, stderr %q", res.code, res.err)
	}
	var line struct {
		Level, Msg string
		Time       time.Time
	}
	if err := json.Unmarshal([]byte(read(t, log)), &line); err != nil {
		t.Fatal(err)
	}
	if line.Level != "error" || line.Msg != "nosuch: container does not exist" || time.Since(line.Time) > time.Minute {
		t.Errorf("the log says %+v", line)
	}
}

func TestVersionHasTheLinesThatDaemonsRead(t *testing.T) {
	r := newTool(t)
	for _, arg := range []string{"--version", "-v", "version"} {
		out := r.must(t, arg)
		for i, prefix := range []string{"gantry-runtime version ", "commit: ", "spec: 1.3.0", "go: go"} {
			if lines := strings.Split(out, "\n"); len(lines) < 4 || !strings.HasPrefix(lines[i], prefix) {
				t.Errorf("%s: %q has no line %q", arg, out, prefix)
			}
		}
	}
}

// Where a cgroup namespace hides the paths of cgroup v1 from the container, those
// who compare them with the host's are lost; with v2 alone it belongs to the confinement.
func TestSpecHasACgroupNamespaceWithCgroup2(t *testing.T) {
	r := newTool(t)
	dir := t.TempDir()
	r.must(t, "spec", "-b", dir)
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	if has := strings.Contains(read(t, dir+"/config.json"), `"type": "cgroup"`+"\n\t\t\t}"); has != (err == nil) {
		t.Errorf("cgroup namespace: %v, cgroup v2 alone: %v", has, err == nil)
	}
}
