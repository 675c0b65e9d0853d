package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// Create makes a container and leaves its first process waiting for Start. The
// process is a direct child of the caller, who reaps it. When Create fails
// nothing is left behind, and the child, if there was one, is reaped.
//
// The error says what is wrong with the user's program as well (no such file,
// missing interpreter, wrong architecture): errdefs.ErrNotFound where there is
// no such program, ErrPermissionDenied where it cannot be executed.
func Create(ctx context.Context, o CreateOptions) (_ *Container, err error) {
	c, err := newContainer(&o)
	if err != nil {
		return nil, err
	}
	if c.dir, err = claim(o.Root, o.ID); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return abandon(c.dir) })
	facts, err := c.prepare(o)
	if err != nil {
		return nil, err
	}
	// The kernel's part and ours take as long, and need not wait for each other.
	planned := make(chan error)
	go func() { planned <- c.compile(facts) }()
	start := time.Now()
	removeGroup, err := c.makeGroup()
	if err == nil {
		defer errs.Undo(&err, removeGroup)
	}
	c.trace.add("runtime", "make the cgroups", "", start)
	if err := errors.Join(<-planned, err); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, c.rec.uncover)
	if err := c.launch(ctx, o); err != nil {
		return nil, explain(err, c.spec.Process, c.rec.Rootfs, c.spec)
	}
	return c, nil
}

// prepare makes what the state directory holds, and looks at the rest.
func (c *Container) prepare(o CreateOptions) (Facts, error) {
	if o.Notify {
		if err := makeNotifyDir(c.dir); err != nil {
			return Facts{}, err
		}
		c.spec = withNotify(c.spec, c.dir)
	}
	facts, err := c.look(o)
	if err != nil {
		return Facts{}, err
	}
	return facts, c.keep(o)
}

// newContainer is a container of which nothing is made yet.
func newContainer(o *CreateOptions) (*Container, error) {
	if err := validateID(o.ID); err != nil {
		return nil, err
	}
	if o.Root == "" {
		o.Root = DefaultRoot
	}
	if o.Log == nil {
		o.Log = silent
	}
	var err error
	if o.Bundle, err = filepath.Abs(o.Bundle); err != nil {
		return nil, err
	}
	c := &Container{ID: o.ID, log: o.Log, reap: o.Reap, spec: o.Spec}
	c.trace = newTrace(o.Trace, o.Log)
	if c.spec == nil {
		if c.spec, err = ReadSpec(o.Bundle); err != nil {
			return nil, err
		}
	}
	if err := validate(c.spec); err != nil {
		return nil, err
	}
	warnOfCapabilities(c.spec.Process.Capabilities, c.log)
	return c, nil
}

// look looks at the machine and the bundle.
func (c *Container) look(o CreateOptions) (Facts, error) {
	layout, err := cgroup.Discover()
	if o.NoCgroup {
		layout, err = &cgroup.Layout{}, nil
	}
	if err != nil {
		return Facts{}, err
	}
	if c.group, err = c.groupOf(layout, o); err != nil {
		return Facts{}, err
	}
	if len(c.group.Dirs) == 0 && !ownPids(c.spec.Linux) {
		c.log.Warn("no cgroup and no pid namespace of its own: kill and delete reach the container's first process only. Such configuration is strongly discouraged")
	}
	facts, err := bundleFacts(c.spec, o.Bundle)
	if err != nil {
		return Facts{}, err
	}
	facts.ID, facts.NoPivot, facts.NoNewKeyring, facts.ExtraFiles = o.ID, o.NoPivot, o.NoNewKeyring, len(o.ExtraFiles)
	facts.Holes = holes(o.ExtraFiles)
	if o.NoPivot {
		if facts.Revealing, err = revealing(facts.Rootfs); err != nil {
			return Facts{}, err
		}
	}
	facts.CgroupJoin, facts.CgroupMounts = c.group.JoinFiles(), cgroupMounts(layout, c.group)
	facts.Rootless, facts.HelpersMap, facts.Restricted = os.Geteuid() != 0, needsHelpers(c.spec.Linux), Restricted()
	c.rec = &record{
		State: State{
			Version: c.spec.Version, ID: o.ID, Bundle: o.Bundle, Rootfs: facts.Rootfs,
			Created: time.Now().UTC(), Annotations: c.spec.Annotations, Owner: "",
		},
		Cgroups:    c.group.Paths(),
		Unit:       c.scope.Unit,
		Namespaces: namespaceFlags(c.spec.Linux),
		Hooks:      c.spec.Hooks,

		NoNewKeyring: o.NoNewKeyring,
	}
	if r := c.spec.Linux.IntelRdt; r != nil {
		root, err := findResctrl()
		if err != nil {
			return Facts{}, err
		}
		c.rec.RDT = groupsOf(root, o.ID, r)
	}
	return facts, c.rec.hostMounts(c.spec.Linux)
}

// compile makes the plan.
func (c *Container) compile(f Facts) (err error) {
	start := time.Now()
	c.plan, err = Compile(c.spec, f)
	c.trace.add("runtime", "compile the bundle", "", start)
	c.plan.tell(c.log)
	return err
}

// keep writes the state for the first time, so that a container whose creator
// is killed can be deleted, and makes the fifos.
func (c *Container) keep(o CreateOptions) error {
	if err := c.rec.write(c.dir); err != nil {
		return err
	}
	var config []byte
	var err error
	if o.Spec == nil && !o.Notify {
		config, err = os.ReadFile(filepath.Join(o.Bundle, specFile))
	} else {
		config, err = specjson.Marshal(c.spec)
	}
	if err != nil {
		return fmt.Errorf("keep config.json: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.dir, specFile), config, 0o600); err != nil {
		return fmt.Errorf("keep config.json: %w", err)
	}
	for _, name := range []string{statusFifo, startFifo} {
		if err := unix.Mkfifo(filepath.Join(c.dir, name), 0o600); err != nil {
			return fmt.Errorf("make fifo %s/%s: %w", c.dir, name, err)
		}
	}
	return nil
}

// launch starts the child and sees it to where it waits for its start.
func (c *Container) launch(ctx context.Context, o CreateOptions) (err error) {
	talk, err := talkByFifos(c.dir, c.spec.Process.Terminal)
	if err != nil {
		return err
	}
	defer talk.close()
	l := &launch{
		plan: c.plan, stdio: [3]*os.File{o.Stdin, o.Stdout, o.Stderr}, extra: o.ExtraFiles,
		given: talk.theirs, uids: c.spec.Linux.UIDMappings, gids: c.spec.Linux.GIDMappings,
		reap: o.Reap, trace: c.trace.add, dir: c.dir,
	}
	l.giveStreams(c.spec.Process.User)
	if err := talk.giveUserNamespace(c.spec.Linux); err != nil {
		return err
	}
	closeGroup, err := l.bornIn(c.group)
	if err != nil {
		return err
	}
	defer closeGroup()
	child, err := l.run()
	if err != nil {
		return err
	}
	talk.launched()
	defer errs.Undo(&err, func() error { return child.kill() })
	start := time.Now()
	if err := c.see(ctx, child, talk); err != nil {
		return err
	}
	if err := c.plan.forgetNodes(c.dir); err != nil {
		return err
	}
	if r := c.spec.Linux.IntelRdt; r != nil {
		if err := c.rec.RDT.join(r, child.pid); err != nil {
			return err
		}
		defer errs.Undo(&err, c.rec.RDT.remove)
	}
	if err := c.seat.leave(); err != nil {
		return err
	}
	if c.Console, err = talk.terminal(); err != nil {
		return err
	}
	c.trace.add("child", "go through the plan", "", start)
	c.Pid, c.PidFD = child.pid, child.pidfd
	c.rec.Pid = child.pid
	if c.rec.StartTime, err = startTime(child.pid); err != nil {
		return fmt.Errorf("read the start time of %d: %w", child.pid, err)
	}
	c.plan = nil // the child went through it
	return c.rec.write(c.dir)
}

// see waits for the child, step by step, and does meanwhile what it waits for.
func (c *Container) see(ctx context.Context, child *child, t *talk) error {
	defer t.cancelWith(ctx)()
	child.goOn = t.goOn
	if waitsForParent(c.spec) {
		if err := child.await(t.status, statusNamespaces); err != nil {
			return err
		}
		if err := child.moveNetDevices(c.spec.Linux); err != nil {
			return err
		}
		if err := c.createHooks(ctx, child); err != nil {
			return err
		}
		if err := t.goOn(); err != nil {
			return err
		}
	}
	child.heard = func(fd int) error {
		st := c.rec.State
		st.Status, st.Pid = Creating, child.pid
		return child.notify(c.spec.Linux.Seccomp, fd, st)
	}
	if err := child.await(t.status, statusReady); err != nil {
		return err
	}
	return child.adjust(c.spec.Linux, c.spec.Process, c.log)
}

// adjust sets what the child may not set itself.
func (c *child) adjust(l *specs.Linux, p *specs.Process, log *slog.Logger) error {
	if namespaceFlags(l)&unix.CLONE_NEWUSER != 0 {
		if err := c.raiseLimits(p.Rlimits); err != nil {
			return err
		}
	}
	return setOOMScore(c.pid, p.OOMScoreAdj, log)
}

// setOOMScore sets oom_score_adj. Lowering needs CAP_SYS_RESOURCE: refused, it
// stays as it is.
func setOOMScore(pid int, score *int, log *slog.Logger) error {
	if score == nil {
		return nil
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), fmt.Appendf(nil, "%d", *score), 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		log.Warn("process.oomScoreAdj is clamped: this process may not lower it", "value", *score)
		return nil
	}
	if err != nil {
		return fmt.Errorf("set process.oomScoreAdj to %d: %w", *score, err)
	}
	return nil
}
