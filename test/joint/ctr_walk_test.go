package joint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// walker is a daemon, and the ctr that walks it.
type walker struct {
	host      *rig.Host
	address   string
	ctr       string
	namespace string
	dir       string // what the rows call $DIR
}

// said is what a row led to: its exit code and its output, both made comparable.
type said struct {
	code   int
	stdout string
	stderr string
}

// prologue has what rows use: ctr is the walker's, await waits until a line of shell
// succeeds, shim_of is the address of a container's shim, committed is the first
// snapshot that is a layer.
const prologue = `ctr() { $CTR -a $SOCK -n $NS "$@"; }
committed() { ctr snapshots ls | awk '$NF == "Committed" {print $1; exit}'; }
shim_of() { cat $(dirname $SOCK)/*/io.containerd.runtime.v2.task/$NS/$1/bootstrap.json | sed 's,.*"address" *: *"unix://\([^"]*\)".*,\1,'; }
await() { i=0; until eval "$1"; do i=$((i+1)); [ $i -lt 500 ] || { echo "never: $1"; return 1; }; done; }
`

// walk performs the rows in their order. A row is a line of shell in which ctr is
// the walker's.
func (w walker) walk(t *testing.T, rows []row) []said {
	t.Helper()
	registry := rig.StartRegistry(t, w.host)
	registry.Push(t, rig.Busybox(t), "busybox:latest")
	oci := filepath.Join(rig.Dir(t), "oci.tar")
	rig.Must(t, w.host.Command("skopeo", "copy", "-q", "--insecure-policy", "oci:"+rig.Busybox(t), "oci-archive:"+oci+":"+ctrImage))
	docker := archive(t, w.host)
	all := make([]said, len(rows))
	for i, r := range rows {
		cmd := w.host.Command("timeout", "60", "sh", "-c", prologue+r.line)
		if cmd.Env == nil {
			cmd.Env = os.Environ()
		}
		cmd.Env = append(cmd.Env, "CTR="+w.ctr, "DIR="+w.dir, "IMG="+ctrImage, "REG="+registry.Addr, "ARCHIVE="+oci, "DOCKER="+docker, "NS="+w.namespace, "SOCK="+w.address)
		cmd.Dir = w.dir
		res := rig.Run(t, cmd)
		all[i] = said{res.Code, w.comparable(res.Stdout), w.comparable(res.Stderr)}
		if res.Code == 124 {
			t.Errorf("%s: did not end", r.line)
		}
	}
	return all
}

// different is what is another each time, or on each daemon, and what the walk
// compares instead.
var different = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^time=.* level=warning msg="DEPRECATION: .*\n`), ""},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|[+-]\d\d:?\d\d))?( UTC)?`), "TIME"},
	{regexp.MustCompile(`(Less than|About) a \w+|\d+ (seconds?|minutes?|hours?)`), "AGE"},
	{regexp.MustCompile(`\b\d+ (RUNNING|STOPPED|PAUSED|CREATED)`), "PID $1"},
}

func (w walker) comparable(text string) string {
	for _, own := range [][2]string{{w.dir, "$DIR"}, {w.address, "$SOCK"}, {filepath.Dir(w.address), "$STATE"}, {w.namespace, "$NS"}} {
		text = strings.ReplaceAll(text, own[0], own[1])
	}
	for _, d := range different {
		text = d.what.ReplaceAllString(text, d.with)
	}
	return lists.ReplaceAllStringFunc(text, func(list string) string {
		labels := strings.Split(list, ",")
		slices.Sort(labels)
		return strings.Join(labels, ",")
	})
}

// lists are labels as ctr prints them, in any order.
var lists = regexp.MustCompile(`[^ ,\n]+=[^ ,\n]*(,[^ ,\n]+=[^ ,\n]*)+`)

// compare holds ours to the control, row for row, and says what is wrong with which.
// Where a row says that ours differs, it must.
func compare(rows []row, control, ours []said) map[int]string {
	wrong := map[int]string{}
	for i, r := range rows {
		c, o := control[i], ours[i]
		same := c.code == o.code && c.stdout == o.stdout && (c.code == 0 || sameKind(c.stderr, o.stderr))
		switch {
		case same && r.differs != "":
			wrong[i] = fmt.Sprintf("%s\nis the same, and was to differ: %s", r.line, r.differs)
		case !same && r.differs == "":
			wrong[i] = fmt.Sprintf("%s\ncontrol: %d\n%s%sours: %d\n%s%s", r.line, c.code, c.stdout, c.stderr, o.code, o.stdout, o.stderr)
		}
	}
	return wrong
}

// kinds are the errors by which clients act, as errdefs words them.
var kinds = []string{"not found", "already exists", "invalid argument", "failed precondition", "unavailable", "not implemented"}

// sameKind says whether errors are of the same kind. Those without one, which are
// somebody's own words, are all alike.
func sameKind(control, ours string) bool {
	for _, k := range kinds {
		if strings.HasSuffix(strings.TrimSpace(control), ": "+k) {
			return strings.HasSuffix(strings.TrimSpace(ours), k)
		}
	}
	return (control == "") == (ours == "")
}

// uncovered are the commands of a ctr that no row performs.
func uncovered(t *testing.T, ctr string, rows []row) (missing []string) {
	var commands func(words ...string)
	commands = func(words ...string) {
		help := rig.Must(t, exec.Command(ctr, append(slices.Clone(words), "--help")...))
		_, list, more := strings.Cut(help, "\nCOMMANDS:\n")
		list, _, _ = strings.Cut(list, "\n\n")
		if !more {
			// The shim's commands have its flags before them.
			name := regexp.MustCompile(`ctr ` + strings.Join(words, `( --[^|;&]*)? `) + `\b`)
			if !slices.ContainsFunc(rows, func(r row) bool { return name.MatchString(r.line) }) {
				missing = append(missing, "ctr "+strings.Join(words, " "))
			}
			return
		}
		for line := range strings.Lines(list) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, "   ") && !strings.HasPrefix(line, "    ") {
				if name = strings.TrimSuffix(name, ","); name != "help" {
					commands(append(slices.Clone(words), name)...)
				}
			}
		}
	}
	commands()
	return missing
}

// Each ctr walks through all that it can do on its own containerd with its shim and
// runc, and on lifecycle with our shim and runtime.
func TestEveryCommandOfCtr(t *testing.T) {
	t.Run("1.6", func(t *testing.T) {
		walkBoth(t, rig.Peer(t, "ctr"), old, func(t *testing.T, host *rig.Host) string { return rig.StartContainerd(t, host).Address })
	})
	t.Run("2.4", func(t *testing.T) {
		bin := current(t, "ctr", "containerd", "containerd-shim-runc-v2")
		walkBoth(t, filepath.Join(bin, "ctr"), recent, func(t *testing.T, host *rig.Host) string {
			host.Prefer(bin)
			return rig.StartContainerdOf(t, host, filepath.Join(bin, "containerd")).Address
		})
	})
}

func walkBoth(t *testing.T, ctr string, v version, containerd func(*testing.T, *rig.Host) string) {
	var rows []row
	for _, r := range walk {
		if r.in&v != 0 {
			rows = append(rows, r)
		}
	}
	for _, name := range uncovered(t, ctr, rows) {
		t.Errorf("no row has %q", name)
	}
	// ctr itself has races: it may end before the last event or the end of an archive is
	// written. What is wrong each time is the daemon's.
	wrong := map[int]string{}
	for i := range rows {
		wrong[i] = "never compared"
	}
	for try := 0; try < 3 && len(wrong) > 0 && !t.Failed(); try++ {
		now := walkOnce(t, ctr, rows, containerd)
		for i := range wrong {
			if wrong[i] = now[i]; wrong[i] == "" {
				delete(wrong, i)
			}
		}
	}
	for _, what := range wrong {
		t.Error(what)
	}
}

func walkOnce(t *testing.T, ctr string, rows []row, containerd func(*testing.T, *rig.Host) string) map[int]string {
	var control, ours []said
	t.Run("worlds", func(t *testing.T) {
		t.Run("control", func(t *testing.T) {
			t.Parallel()
			host := rig.NewHost(t)
			w := walker{host: host, address: containerd(t, host), ctr: ctr, namespace: "walk1", dir: rig.Dir(t)}
			control = w.walk(t, rows)
		})
		t.Run("ours", func(t *testing.T) {
			t.Parallel()
			host := rig.NewHost(t)
			host.Prefer(disguise(t))
			g := rig.StartGantryd(t, host, "--roles", "lifecycle")
			w := walker{host: host, address: g.ContainerdAddress, ctr: ctr, namespace: "walk2", dir: rig.Dir(t)}
			ours = w.walk(t, rows)
		})
	})
	if len(control) != len(rows) || len(ours) != len(rows) {
		t.Fatal("a walk did not end")
	}
	return compare(rows, control, ours)
}
