package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
	"github.com/gantryd/gantry/ociruntime/internal/systemd"
)

// Container is a container on this machine. Its methods may be called from any
// process of the same user, and by several goroutines at once.
//
// What lives in this process only (descriptors) is closed by Close, which
// leaves the container as it is.
type Container struct {
	ID      string
	Pid     int      // of the first process, in the caller's pid namespace
	PidFD   *os.File // of the first process; nil when it is gone
	Console *os.File // master of the terminal, from Create with process.terminal; the caller owns it

	dir   string  // of its state
	rec   *record // never changed once the container is made
	plan  *Plan   // that the child goes through; nil after Load
	group *cgroup.Group
	scope systemd.Name // of the group, with the systemd cgroup driver
	seat  *seat        // in the scope, while it is made
	log   *slog.Logger
	reap  func(pid int) (syscall.WaitStatus, error)

	mu    sync.Mutex
	spec  *specs.Spec // read when first wanted
	trace *trace      // nil when nobody wants it
}

// trace collects what the steps took, and tells the log.
type trace struct {
	log  *slog.Logger
	mu   sync.Mutex
	list []Timing
}

// newTrace is nil unless the timings are to be kept, or told.
func newTrace(keep bool, log *slog.Logger) *trace {
	if !keep && !log.Enabled(context.Background(), slog.LevelDebug) {
		return nil
	}
	return &trace{log: log}
}

func (t *trace) add(part, name, call string, start time.Time) {
	if t == nil {
		return
	}
	took := time.Since(start)
	t.log.Debug(part+": "+name, "call", call, "took", took)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, Timing{part, name, call, start, took})
}

// Load finds a container that any process created. errdefs.ErrNotFound when
// there is none.
func Load(root, id string) (*Container, error) {
	if err := validateID(id); err != nil {
		return nil, err
	}
	if root == "" {
		root = DefaultRoot
	}
	dir := filepath.Join(root, id)
	rec, err := readRecord(dir)
	if err != nil {
		return nil, err
	}
	pidfd, err := rec.openPidfd()
	if err != nil {
		return nil, err
	}
	return &Container{
		ID: id, Pid: rec.Pid, PidFD: pidfd,
		dir: dir, rec: rec, group: cgroup.FromPaths(rec.Cgroups), log: silent,
	}, nil
}

// silent is where warnings go that nobody wants.
var silent = slog.New(slog.DiscardHandler)

// LogTo has warnings and debug messages about what is done from now on written to log.
func (c *Container) LogTo(log *slog.Logger) {
	c.log, c.trace = log, newTrace(false, log)
}

// State says how the container is now.
func (c *Container) State() (State, error) {
	st := c.rec.State
	switch {
	case c.rec.Pid == 0:
		st.Status = Creating
	case ended(c.PidFD):
		st.Status, st.Pid = Stopped, 0
	case c.waits():
		st.Status = Created
	case c.group.Frozen():
		st.Status = Paused
	default:
		st.Status = Running
	}
	return st, nil
}

// waits says whether the child waits for its start: it alone reads that fifo.
func (c *Container) waits() bool {
	fd, err := unix.Open(filepath.Join(c.dir, startFifo), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// must fails with FailedPrecondition unless the container is in one of statuses.
func (c *Container) must(verb string, statuses ...Status) (Status, error) {
	st, err := c.State()
	if err != nil {
		return "", err
	}
	for _, s := range statuses {
		if st.Status == s {
			return s, nil
		}
	}
	return st.Status, errs.Because(errdefs.ErrFailedPrecondition, "cannot %s container %s: it is %s", verb, c.ID, st.Status)
}

// Spec is the config.json that the container was created from. The caller may
// change it.
func (c *Container) Spec() (*specs.Spec, error) { return ReadSpec(c.dir) }

// ownSpec is the same, read once. Nobody changes it.
func (c *Container) ownSpec() (*specs.Spec, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spec == nil {
		spec, err := ReadSpec(c.dir)
		if err != nil {
			return nil, err
		}
		c.spec = spec
	}
	return c.spec, nil
}

// Pids lists the processes of the container, in the caller's pid namespace.
func (c *Container) Pids() ([]int, error) { return c.group.Pids() }

// Pause freezes every process, Resume thaws them.
func (c *Container) Pause() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("pause", Created, Running); err != nil {
		return err
	}
	return c.group.Freeze()
}

// Resume undoes Pause.
func (c *Container) Resume() error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("resume", Paused); err != nil {
		return err
	}
	return c.group.Thaw()
}

// Update changes the limits; what r leaves out stays.
func (c *Container) Update(r *specs.LinuxResources) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("update", Created, Running, Paused); err != nil {
		return err
	}
	if err := c.updateScope(r); err != nil {
		return err
	}
	return c.group.Set(r)
}

// OOM returns a descriptor that becomes readable when the kernel killed a
// process of the container for want of memory: an eventfd on cgroup v1, an
// inotify of memory.events on v2. The caller owns it.
func (c *Container) OOM() (*os.File, error) { return c.group.OOM() }

// Kill sends sig to the first process, or with all to every process in the
// container's cgroup. errdefs.ErrNotFound when no process is left (all is then
// no error).
func (c *Container) Kill(sig syscall.Signal, all bool) error {
	switch {
	case all && len(c.group.Dirs) > 0:
		return c.group.Signal(sig)
	case all && ended(c.PidFD):
		return nil
	}
	if ended(c.PidFD) {
		if pids, err := c.group.Pids(); sig == unix.SIGKILL && err == nil && len(pids) > 0 {
			return c.group.Kill() // they outlived the first process
		}
		return errs.Because(errdefs.ErrNotFound, "kill container %s: process already finished", c.ID)
	}
	err := unix.PidfdSendSignal(int(c.PidFD.Fd()), sig, nil, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return errs.Because(errdefs.ErrNotFound, "kill container %s: process already finished", c.ID)
	case err != nil:
		return fmt.Errorf("kill container %s: signal %d: %w", c.ID, sig, err)
	case sig != unix.SIGKILL:
		return nil
	}
	return c.killed()
}

// killed lets SIGKILL have its whole effect: a frozen process of cgroup v1 dies
// when it is thawed, and without a pid namespace of its own the container's
// first process takes no other with it.
func (c *Container) killed() error {
	spec, err := c.ownSpec()
	if err != nil {
		return err
	}
	if !ownPids(spec.Linux) && len(c.group.Dirs) > 0 {
		return c.group.Kill()
	}
	if c.group.Frozen() {
		return c.group.Thaw()
	}
	return nil
}

// ownPids says whether the container has a pid namespace that is nobody else's.
func ownPids(l *specs.Linux) bool {
	return slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace && n.Path == "" })
}

// Trace is what each step of Create, and of Start so far, took, with CreateOptions.Trace.
func (c *Container) Trace() []Timing {
	if c.trace == nil {
		return nil
	}
	c.trace.mu.Lock()
	defer c.trace.mu.Unlock()
	return append([]Timing(nil), c.trace.list...)
}

// Close closes the descriptors of c except Console, and leaves the container be.
func (c *Container) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.PidFD == nil {
		return nil
	}
	err := c.PidFD.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
