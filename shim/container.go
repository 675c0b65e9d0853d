package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/api/journey"
	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/shim/internal/metrics"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// container is one container of the shim.
type container struct {
	shim    *Shim
	id      string
	bundle  string
	mounted bool
	record  record
	runtime runtime
	owner   owner
	init    *process
	ownPids bool  // the first process is the first of its pid namespace
	journey *trip // nil unless asked for

	checkpoint string // what start restores, "" where create made the first process

	cgroups *metrics.Cgroups // nil where the first process had ended already, or is not there

	deleting sync.Mutex // held by delete

	ooms     atomic.Int32 // times that TaskOOM was published
	mu       sync.Mutex
	execs    map[string]*process
	ended    bool              // the first process has
	oomWatch *metrics.OOMWatch // nil without one
}

// recordFile is the name of a record in the bundle.
const recordFile = "shim.json"

// create makes a container and leaves its first process waiting, or leaves
// nothing behind.
func (s *Shim) create(r *taskapi.CreateRequest, trip *trip) (c *container, err error) {
	o, err := optionsOf(r.Options)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", r.ID, err)
	}
	rec, err := s.recordOf(r, o)
	if err != nil {
		return nil, err
	}
	if o.ShimCgroup != "" {
		if err := metrics.Join(o.ShimCgroup); err != nil {
			return nil, fmt.Errorf("create %s: %w", r.ID, err)
		}
	}
	rec.Trace = trip != nil
	c = &container{shim: s, id: r.ID, bundle: r.Bundle, record: rec, journey: trip, checkpoint: r.Checkpoint, execs: map[string]*process{}}
	c.runtime = rec.runtime(r.Bundle, s.reaper)
	c.init = newProcess(c, "", uris{r.Stdin, r.Stdout, r.Stderr, r.Terminal})

	c.init.verbs.Lock() // an exit is told after the creation
	defer c.init.verbs.Unlock()

	file := filepath.Join(r.Bundle, recordFile)
	if err := saveRecord(file, rec); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return os.Remove(file) })

	done := trip.step("mount rootfs", "")
	if err := c.mount(r.Rootfs); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, c.unmount)
	done()

	done = trip.step("open streams", r.Stdout)
	c.owner = s.owner(r.ID, o.IOUid, o.IOGid)
	st, err := open(c.init.uris, c.owner)
	if err != nil {
		return nil, err
	}
	c.init.streams = st
	defer errs.Undo(&err, st.close)
	done()

	if c.checkpoint == "" {
		done = trip.step("create container", rec.Binary)
		if err := c.init.spawn(c.runtime.create); err != nil {
			return nil, err
		}
		done()
		c.meet(rec.Binary == "")
	}
	s.events.publish(c.created(r))
	return c, nil
}

// meet looks at the first process, which is there now.
func (c *container) meet(linked bool) {
	pid := c.init.pid
	if err := savePid(c.bundle, pid); err != nil {
		slog.Error("pid is not saved", "id", c.id, "err", err)
	}
	ours := false
	if c.ownPids, ours = placeOf(pid); ours || !linked {
		c.shim.reaper.listen()
	}
	cgroups, err := metrics.Of(pid)
	if err != nil {
		slog.Warn("cgroups are not known", "id", c.id, "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cgroups = cgroups
}

func (c *container) created(r *taskapi.CreateRequest) *taskapi.TaskCreate {
	return &taskapi.TaskCreate{
		ContainerID: c.id,
		Bundle:      c.bundle,
		Rootfs:      r.Rootfs,
		IO:          &taskapi.TaskIO{Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Terminal: r.Terminal},
		Checkpoint:  r.Checkpoint,
		Pid:         uint32(c.init.pid),
	}
}

// placeOf says whether pid is 1 in its pid namespace, or is in ours (proc(5), NSpid).
// Of one that has ended nothing is known, so that its orphans may be ours.
func placeOf(pid int) (first, ours bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, true
	}
	for line := range strings.Lines(string(data)) {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			return len(f) > 1 && f[len(f)-1] == "1", len(f) <= 1
		}
	}
	return false, true
}

// spawn has the runtime make the process and begins to watch and copy.
func (p *process) spawn(make func(ends) (*started, error)) error {
	reaper := p.container.shim.reaper
	reaper.hold()
	defer reaper.release()
	proc, err := make(p.streams.ends)
	p.streams.handOver()
	if err != nil {
		return err
	}
	p.begin(proc)
	reaper.watch(proc.pid, p.ended)
	p.connect(proc.console)
	return nil
}

// recordOf chooses the runtime.
func (s *Shim) recordOf(r *taskapi.CreateRequest, o taskapi.Options) (record, error) {
	rec := record{
		ID:            r.ID,
		Binary:        o.BinaryName,
		Root:          o.Root,
		SystemdCgroup: o.SystemdCgroup,
		NoPivot:       o.NoPivotRoot,
		NoNewKeyring:  o.NoNewKeyring,
	}
	if rec.Root == "" {
		rec.Root = filepath.Join(s.stateDir(), "runtime")
	}
	if rec.Binary != "" && o.Root == "" {
		rec.Root = filepath.Join(s.stateDir(), filepath.Base(rec.Binary))
	}
	rec.Root = filepath.Join(rec.Root, s.cfg.Namespace)
	if isOurs(r.Stdout) {
		if l, err := api.ParseLogger(r.Stdout); err == nil { // open says what is wrong with it
			rec.Attach = l.Attach
		}
	}
	if r.Checkpoint != "" {
		rec.CriuWork = o.CriuWorkPath
	}
	return rec, nil
}

func saveRecord(file string, r record) error {
	data, err := specjson.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, data, 0o600)
}

// loadRecord reads the record in a bundle.
func loadRecord(bundle string) (record, error) {
	var r record
	data, err := os.ReadFile(filepath.Join(bundle, recordFile))
	if err != nil {
		return r, err
	}
	if err := specjson.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", recordFile, err)
	}
	return r, nil
}

func (c *container) rootfs() string { return filepath.Join(c.bundle, "rootfs") }

func (c *container) mount(mounts []taskapi.Mount) error {
	if len(mounts) == 0 {
		return nil
	}
	if err := os.Mkdir(c.rootfs(), 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make rootfs of %s: %w", c.id, err)
	}
	all := make([]mount.Mount, len(mounts))
	for i, m := range mounts {
		all[i] = mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options}
	}
	if err := mount.All(all, c.rootfs()); err != nil {
		return err
	}
	c.mounted = true
	return nil
}

func (c *container) unmount() error {
	if !c.mounted {
		return nil
	}
	return mount.Unmount(c.rootfs())
}

// start runs the user's program.
func (c *container) start() error {
	p := c.init
	p.verbs.Lock()
	defer p.verbs.Unlock()
	if err := p.can(doStart); err != nil {
		return err
	}
	done := c.journey.step("start container", "")
	begin := c.runtime.start
	if c.checkpoint != "" {
		begin = c.restore
	}
	if err := begin(); err != nil {
		return err
	}
	done()
	p.did(doStart)
	c.shim.events.publish(&taskapi.TaskStart{ContainerID: c.id, Pid: uint32(p.pid)})
	time.AfterFunc(watchAfter, c.watchOOM)
	return nil
}

// addExec makes an exec known; it runs with start.
func (c *container) addExec(r *taskapi.ExecRequest) error {
	p := newProcess(c, r.ExecID, uris{r.Stdin, r.Stdout, r.Stderr, r.Terminal})
	if r.Spec == nil {
		return fmt.Errorf("exec %s: no process: %w", r.ExecID, errdefs.ErrInvalidArgument)
	}
	p.spec = new(specs.Process)
	if err := specjson.Unmarshal(r.Spec.Value, p.spec); err != nil {
		return fmt.Errorf("exec %s: parse process: %w: %w", r.ExecID, err, errdefs.ErrInvalidArgument)
	}
	p.spec.Terminal = r.Terminal
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.execs[r.ExecID]; ok {
		return fmt.Errorf("exec %s: %w", r.ExecID, errdefs.ErrAlreadyExists)
	}
	c.execs[r.ExecID] = p
	return nil
}

// startExec runs an exec that is known.
func (p *process) startExec() (err error) {
	p.verbs.Lock()
	defer p.verbs.Unlock()
	if err := p.can(doStart); err != nil {
		return err
	}
	c := p.container
	st, err := open(p.uris, c.owner)
	if err != nil {
		return err
	}
	p.streams = st
	defer errs.Undo(&err, p.fail)
	p.sizeSpec()
	err = p.spawn(func(e ends) (*started, error) { return c.runtime.exec(p.spec, e) })
	if err != nil {
		return err
	}
	p.did(doStart)
	c.shim.events.publish(&taskapi.TaskExecStarted{ContainerID: c.id, ExecID: p.id, Pid: uint32(p.pid)})
	return nil
}

// fail ends an exec that could not be started. For containerd's clients it stays
// created; what waits for it learns that it will not come.
func (p *process) fail() error {
	p.mu.Lock()
	p.exit = exit{status: failedStart, at: time.Now()}
	p.mu.Unlock()
	close(p.done)
	return p.streams.close()
}

// failedStart is the status of an exec that never ran, as containerd has it.
const failedStart = 255

// process finds the first process, or an exec.
func (c *container) process(execID string) (*process, error) {
	if execID == "" {
		return c.init, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.execs[execID]
	if !ok {
		return nil, fmt.Errorf("exec %s of %s: %w", execID, c.id, errdefs.ErrNotFound)
	}
	return p, nil
}

// execsEnd is how long the exit of a container waits for the exits of its execs.
const execsEnd = 5 * time.Second

// initEnded sees to it that nothing of the container outlives its first process.
// In a pid namespace of its own the kernel has done so before the exit could be
// seen (pid_namespaces(7)); else this kills. The exits of execs are told first.
func (c *container) initEnded(e exit) {
	c.unwatchOOM(e)
	if !c.ownPids {
		if err := c.runtime.kill(int(sigKill), true); err != nil && !errdefs.IsNotFound(err) {
			slog.Warn("something of the container may run on", "id", c.id, "err", err)
		}
	}
	timeout := time.After(execsEnd)
	for _, p := range c.allExecs() {
		if p.running() {
			select {
			case <-p.done:
			case <-timeout:
				return
			}
		}
	}
}

func (c *container) allExecs() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.execs))
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status == taskapi.Running
}

func (c *container) saveExit(e exit) {
	if err := saveExit(c.bundle, e); err != nil {
		slog.Error("exit status is not saved", "id", c.id, "err", err)
	}
}

// delete removes an ended container, or one that was never started.
func (c *container) delete() error {
	c.deleting.Lock()
	defer c.deleting.Unlock()
	p := c.init
	if err := p.can(doDelete); err != nil {
		return err
	}
	never := p.state().Status == taskapi.Created
	if err := c.runtime.delete(never); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if never && p.unmade() {
		close(p.done) // it will not be, and somebody may wait
	} else if never {
		<-p.done
	}
	if err := c.unmount(); err != nil {
		return err
	}
	p.did(doDelete)
	return errors.Join(
		c.shim.close(p.streams),
		c.closeExecs(),
		os.Remove(filepath.Join(c.bundle, recordFile)),
		removeIfThere(filepath.Join(c.bundle, exitFile)),
		removeIfThere(filepath.Join(c.bundle, pidFile)),
	)
}

// closeExecs lets go of the streams of execs that nobody deleted.
func (c *container) closeExecs() error {
	var errs []error
	for _, p := range c.allExecs() {
		errs = append(errs, c.shim.close(p.streams))
	}
	return errors.Join(errs...)
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// deleteExec forgets an ended exec, or one that was never started.
func (p *process) deleteExec() error {
	p.verbs.Lock()
	defer p.verbs.Unlock()
	if err := p.can(doDelete); err != nil {
		return err
	}
	if p.unstarted() {
		close(p.done) // it will not run, and somebody may wait
	}
	p.did(doDelete)
	c := p.container
	c.mu.Lock()
	delete(c.execs, p.id)
	c.mu.Unlock()
	return c.shim.close(p.streams)
}

// trip records the journey of one start. A nil trip records nothing.
type trip struct {
	mu    sync.Mutex
	spans []journey.Span
}

// step begins a span; the function that it returns ends it.
func (t *trip) step(name, detail string) func() {
	if t == nil {
		return func() {}
	}
	start := time.Now()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.spans = append(t.spans, journey.Span{Part: "shim", Name: name, Start: start, Took: time.Since(start), Detail: detail})
	}
}

// save writes the spans so far, and the runtime's, to the bundle.
func (c *container) saveJourney() {
	if c.journey == nil {
		return
	}
	c.journey.mu.Lock()
	defer c.journey.mu.Unlock()
	data, err := json.Marshal(append(slices.Clip(c.journey.spans), c.runtime.spans()...))
	if err == nil {
		err = atomicfile.Write(filepath.Join(c.bundle, journey.File), data, 0o600)
	}
	if err != nil {
		slog.Error("journey is not saved", "id", c.id, "err", err)
	}
}
