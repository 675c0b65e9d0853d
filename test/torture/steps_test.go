package torture

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"

	"github.com/gantryd/gantry/test/rig"
)

var (
	points = flag.Int("points", 2, "at how many steps of each operation to kill; 0 at every one")
	only   = flag.String("operation", "", "kill in operations whose name has this alone")
	limit  = flag.Duration("limit", 20*time.Second, "begin no further operation after this time, but for the first ten; 0 for all of them")
)

// operation is one thing that a client wants, during which gantryd or a shim is
// killed.
type operation struct {
	name string
	// prepare makes what it needs.
	prepare func(s *stage)
	// do asks for it, once, and says what the client was told.
	do func(s *stage) error
	// again is what a client does that was told err: it asks once more where it must,
	// and proves that it has what it wanted. Where the shim was killed, the container
	// may have ended: it is proved that this is known.
	again func(s *stage, err error)
	// shim says that shims are killed in it too.
	shim bool
	// alone says that gantryd has no part in it.
	alone bool
}

// stage is one performance of an operation.
type stage struct {
	*world
	d *docker
	n *native
	// registry is on the daemon's host.
	registry *rig.Registry
	name     string // of whatever it makes
	chain    string // the snapshot of the image that is in the registry
	what     string // which operation, and where it was cut off
	// killed says that a shim was killed in it.
	killed bool
	undo   []func()
}

// errorf fails the test, and says where.
func (s *stage) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s: %s", s.what, fmt.Sprintf(format, args...))
}

// must fails the test where an answer is an error, other than one of the codes.
func (s *stage) must(what string, err error, codes ...int) {
	s.t.Helper()
	if err != nil && !slices.Contains(codes, code(err)) {
		s.errorf("%s: %v", what, err)
	}
}

// Whichever system call of an operation a kill comes before, everything that was told
// is so, the client gets what it wanted by asking again, and nothing is left
// when that is taken away.
func TestNothingIsLostAtAnyStepOfAnyOperation(t *testing.T) {
	w := newWorld(t)
	t.Logf("seed %d", w.seed)
	d, n := newDocker(w, 200), newNative(w, 200)
	d.load()
	n.unpackBase()
	seen := newDieWatch(w)
	steady := d.steady()
	dice := w.rand(7)
	w.warmUp(d, n)
	registry := rig.StartRegistry(t, w.host)
	before := w.inventory(n)
	begin := time.Now()
	for i, p := range performances(dice) {
		if *limit > 0 && i >= 10 && time.Since(begin) > *limit {
			t.Logf("%d operations; -limit 0 is for all", i)
			break
		}
		p.world, p.d, p.n, p.registry, p.before, p.dice = w, d, n, registry, before, dice
		t.Run(p.op.name+" "+p.victim, func(t *testing.T) {
			if p.all(t); t.Failed() {
				before = w.inventory(n) // what is left now has been told of
			}
		})
	}
	if now := d.pid("steady"); now != steady {
		t.Errorf("the steady container has process %d, and had %d", now, steady)
	}
	seen.check([]*docker{d})
	d.clear()
	n.clear()
	d.nothingLeft()
	n.nothingLeft()
	seen.stop()
	w.checkProcesses()
	w.daemon.Stop()
	w.checkState()
	w.checkStores()
}

// warmUp makes the directories that a daemon makes when they are needed first, and keeps.
func (w *world) warmUp(d *docker, n *native) {
	s := &stage{world: w, d: d, n: n, name: "warm", what: "before all"}
	s.network()
	s.made()
	s.must("start", s.post("/containers/warm/start", nil))
	s.runs()
	s.makesTasks("base")
	w.daemon.Kill()
	w.daemon.Start(w.t)
	s.clean()
}

const shimName = "containerd-shim-gantry-v2"

// performances are all operations with all victims, in any order.
func performances(dice *rand.Rand) (all []*performance) {
	for _, op := range slices.Concat(dockerOperations, nativeOperations, sandboxOperations) {
		if !strings.Contains(op.name, *only) {
			continue
		}
		if !op.alone {
			all = append(all, &performance{op: op, victim: "gantryd"})
		}
		if op.shim {
			all = append(all, &performance{op: op, victim: shimName})
		}
	}
	dice.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// performance performs one operation again and again.
type performance struct {
	*world
	d        *docker
	n        *native
	registry *rig.Registry
	op       operation
	victim   string
	before   map[string]int
	dice     *rand.Rand
	times    int
}

// all kills at every step, or at some.
func (p *performance) all(t *testing.T) {
	was := p.world.t
	p.world.t = t
	defer func() { p.world.t = was }()
	calls := p.once(0)
	if len(calls) == 0 {
		t.Error("no step was seen")
	}
	if t.Failed() {
		return
	}
	at := make([]int, len(calls))
	for i := range at {
		at[i] = i + 1
	}
	if *points > 0 && len(at) > *points {
		p.dice.Shuffle(len(at), func(i, j int) { at[i], at[j] = at[j], at[i] })
		at = at[:*points]
	}
	t.Logf("%d of %d steps", len(at), len(calls))
	for _, k := range at {
		if p.once(k); t.Failed() {
			return
		}
	}
}

// once performs the operation and kills the victim before the call number k, or, with
// 0 and where it does not come so far, when the client has its answer.
func (p *performance) once(k int) (calls []string) {
	p.times++
	s := &stage{world: p.world, d: p.d, n: p.n, registry: p.registry, name: fmt.Sprintf("%s%d", strings.NewReplacer(" ", "", ",", "").Replace(p.op.name), p.times)}
	s.what = fmt.Sprintf("%s, %s killed at step %d", p.op.name, p.victim, k)
	if p.op.prepare != nil {
		p.op.prepare(s)
	}
	what := traced{Pid: p.daemon.Cmd.Process.Pid, At: k}
	if p.victim == shimName {
		what.Follow = shimName
		if running := p.shims(s.id()); len(running) == 1 {
			what.Pid = running[0]
		}
	}
	tr := p.trace(what)
	err := p.op.do(s)
	if p.victim == "gantryd" {
		p.daemon.Kill() // where it lives yet
		tr.end()
		p.daemon.Start(p.world.t)
		s.must("ping", s.d.sure("GET", "/_ping", nil, nil)) // lifecycle answers before the engine does
	} else {
		tr.end()
		s.killed = tr.died
	}
	if k > 0 && tr.died {
		s.what += ", " + tr.what[len(tr.what)-1]
	} else {
		s.what += ", after the answer"
	}
	if p.op.again != nil {
		p.op.again(s, err)
	}
	s.clean()
	p.compare(s)
	if p.world.t.Failed() {
		p.world.t.Logf("%s: answer: %v; the last steps:\n\t%s", s.what, err, strings.Join(tr.what[max(0, len(tr.what)-12):], "\n\t"))
	}
	return tr.what
}

// id is the ID of the container that has the stage's name, if there is one.
func (s *stage) id() string {
	var is struct{ ID string }
	if s.d.sure("GET", "/containers/"+s.name+"/json", nil, &is) != nil {
		return s.name // or a native one
	}
	return is.ID
}

func (s *stage) clean() {
	for _, undo := range slices.Backward(s.undo) {
		undo()
	}
}

// compare waits until all is as it was before.
func (p *performance) compare(s *stage) {
	var left []string
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		left = nil
		now := p.inventory(p.n)
		for what, n := range now {
			if n > p.before[what] {
				left = append(left, fmt.Sprintf("%d %s", n-p.before[what], what))
			}
		}
		for what, n := range p.before {
			if now[what] < n {
				left = append(left, fmt.Sprintf("%d less %s", n-now[what], what))
			}
		}
		if len(left) == 0 {
			return
		}
	}
	slices.Sort(left)
	s.errorf("left is:\n\t%s", strings.Join(left, "\n\t"))
}

// random is what is different each time in names.
var random = regexp.MustCompile(`[0-9a-f]{12,}|\d+`)

// inventory counts everything that an operation may leave: names, with what is
// random in them made equal.
func (w *world) inventory(n *native) map[string]int {
	all := map[string]int{}
	add := func(kind, name string) { all[kind+" "+random.ReplaceAllString(name, "#")]++ }
	collect(w.t, n)
	for _, ns := range []string{ours, "moby"} {
		names, err := n.list(ns)
		if err != nil {
			w.t.Errorf("list %s: %v", ns, err)
		}
		for _, name := range names {
			add("api "+ns, name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		w.t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, w.daemon.State) || strings.HasPrefix(at, w.daemon.Dir) {
			add("mount", at)
		}
	}
	for _, top := range []string{w.daemon.State, filepath.Join(w.daemon.Dir, "r")} {
		walk(w.t, top, func(path string, e fs.DirEntry) error {
			add("file", path)
			if e.IsDir() && slices.Contains([]string{"rootfs", "fs", "_data"}, e.Name()) {
				return fs.SkipDir // what is in there is a container's
			}
			return nil
		})
	}
	walk(w.t, "/sys/fs/cgroup", func(path string, e fs.DirEntry) error {
		if e.IsDir() {
			add("cgroup", path)
		}
		return nil
	})
	for _, file := range globbed("/sys/fs/cgroup/pids/*/*/cgroup.procs", "/sys/fs/cgroup/pids/*/cgroup.procs", "/sys/fs/cgroup/pids/cgroup.procs") {
		pids, _ := os.ReadFile(file)
		for pid := range strings.FieldsSeq(string(pids)) {
			cmd, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			text := strings.ReplaceAll(string(cmd), "\x00", " ")
			if i := strings.Index(text, " -publish-binary "); i > 0 {
				text = text[:i] // of a shim: what follows tells whether it was started ahead, and has handed itself over
				text, _, _ = strings.Cut(text, " -socket ")
			}
			if text != "" && !strings.HasPrefix(text, "sleep 0.05") && !strings.Contains(text, "echo $i") && !strings.HasPrefix(text, "/proc/self/exe") {
				add("process", text)
			}
		}
	}
	return all
}

// collect makes lifecycle collect garbage, and waits until it has.
func collect(t *testing.T, n *native) {
	for _, ns := range []string{ours, "moby"} {
		_, err := n.leases.Create(in(ns), &leasesapi.CreateRequest{ID: "collect"})
		if err == nil {
			_, err = n.leases.Delete(in(ns), &leasesapi.DeleteRequest{ID: "collect", Sync: true})
		}
		if err != nil {
			t.Errorf("collect garbage: %v", err)
		}
	}
}

// walk is filepath.WalkDir, for a tree that changes.
func walk(t *testing.T, top string, each func(path string, e fs.DirEntry) error) {
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
			return nil
		} else if err != nil {
			return err
		}
		return each(path, e)
	})
	if err != nil {
		t.Error(err)
	}
}

func globbed(patterns ...string) (all []string) {
	for _, p := range patterns {
		names, _ := filepath.Glob(p)
		all = append(all, names...)
	}
	return all
}
