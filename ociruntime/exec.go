package ociruntime

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// Exec runs one more process inside the container and returns when its program
// has been executed.
func (c *Container) Exec(ctx context.Context, p *specs.Process, o ExecOptions) (_ *Process, err error) {
	able := []Status{Created, Running}
	if o.IgnorePaused {
		able = append(able, Paused)
	}
	if _, err := c.must("exec in", able...); err != nil {
		return nil, err
	}
	if err := validateProcess(p); err != nil {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "process: %w", err)
	}
	if o.Log == nil {
		o.Log = silent
	}
	warnOfCapabilities(p.Capabilities, o.Log)
	tr := newTrace(o.Trace, o.Log)
	start := time.Now()
	spec, err := c.ownSpec()
	if err != nil {
		return nil, err
	}
	plan, err := c.compileExec(spec, p, o)
	if err != nil {
		return nil, err
	}
	tr.add("runtime", "compile the process", "", start)
	plan.tell(o.Log)
	t, err := talkByPipes(p.Terminal)
	if err != nil {
		return nil, err
	}
	defer t.close()
	t.theirs["container"], err = unix.FcntlInt(c.PidFD.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate the pidfd: %w", err)
	}
	if c.rec.Namespaces&unix.CLONE_NEWNS == 0 {
		if t.theirs[containerRoot], err = openRoot(c.Pid); err != nil {
			return nil, err
		}
	}
	l := &launch{
		plan: plan, stdio: [3]*os.File{o.Stdin, o.Stdout, o.Stderr}, extra: o.ExtraFiles,
		given: t.theirs, uids: spec.Linux.UIDMappings, gids: spec.Linux.GIDMappings, reap: o.Reap, trace: tr.add,
	}
	l.giveStreams(p.User)
	group, err := c.group.Sub(o.Cgroups)
	if err != nil {
		return nil, err
	}
	closeGroup, err := l.bornIn(group)
	if err != nil {
		return nil, err
	}
	defer closeGroup()
	child, err := l.run()
	if err != nil {
		return nil, err
	}
	t.launched()
	defer errs.Undo(&err, func() error { return child.kill() })
	defer t.cancelWith(ctx)()
	child.heard = func(fd int) error { return c.notifyOfExec(spec, child, fd) }
	console, err := child.exec(spec.Linux, p, t, o)
	if err != nil {
		return nil, explain(err, p, c.rec.Rootfs, spec)
	}
	o.Log.Debug("the program runs", "container", c.ID, "pid", child.pid)
	proc := &Process{Pid: child.pid, PidFD: child.pidfd, Console: console}
	if tr != nil {
		proc.Trace = tr.list
	}
	return proc, nil
}

// notifyOfExec gives the seccomp agent the listener of an exec's filter.
func (c *Container) notifyOfExec(spec *specs.Spec, child *child, fd int) error {
	st, err := c.State()
	if err != nil {
		return err
	}
	return child.notify(spec.Linux.Seccomp, fd, st)
}

// exec sees the child to its program.
func (c *child) exec(l *specs.Linux, p *specs.Process, t *talk, o ExecOptions) (console *os.File, err error) {
	if err := c.await(t.status, statusReady); err != nil {
		return nil, err
	}
	if err := c.adjust(l, p, o.Log); err != nil {
		return nil, err
	}
	if console, err = t.terminal(); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error {
		if console == nil {
			return nil
		}
		return console.Close()
	})
	if o.Terminal != nil && console != nil {
		if err := o.Terminal(console); err != nil {
			return nil, err
		}
	}
	if err := t.goOn(); err != nil {
		return nil, err
	}
	return console, awaitProgram(t.status)
}

// compileExec makes the plan of one more process.
func (c *Container) compileExec(spec *specs.Spec, p *specs.Process, o ExecOptions) (*Plan, error) {
	group, err := c.group.Sub(o.Cgroups)
	if err != nil {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "%w", err)
	}
	f := Facts{ID: c.ID, Rootfs: c.rec.Rootfs, ExtraFiles: len(o.ExtraFiles), Holes: holes(o.ExtraFiles), CgroupJoin: group.JoinFiles(), NoNewKeyring: c.rec.NoNewKeyring, Rootless: os.Geteuid() != 0, HelpersMap: needsHelpers(spec.Linux)}
	f.LastCap, f.Bounding = capabilityFacts(spec)
	f.NoSELinux = noSELinux()
	f.Home = c.homeOf(p)
	return compileExec(spec, p, f)
}

// holes are the descriptors, of those that files become, that are not there.
func holes(files []*os.File) (fds []int) {
	const first = 3
	for i, f := range files {
		if f == nil {
			fds = append(fds, first+i)
		}
	}
	return fds
}

// homeOf looks in the rootfs as the container sees it.
func (c *Container) homeOf(p *specs.Process) string {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", c.Pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "/"
	}
	defer unix.Close(root)
	return homeOf(root, p)
}

// compileExec turns a process into the plan that runs it in a container of
// spec. It touches nothing.
func compileExec(spec *specs.Spec, p *specs.Process, f Facts) (*Plan, error) {
	c := &compiler{builder: newBuilder(f.ExtraFiles), spec: spec, linux: spec.Linux, process: p, Facts: f}
	c.inside = true
	for _, part := range []func() error{
		c.begin,
		c.container,
		c.affinity,
		c.securityLabels,
		c.closeFiles, // the container's processes see this one already
		c.execTerminal,
		c.identity,
		c.launch,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return c.finish(), nil
}

// container joins the cgroups and namespaces of the container.
func (c *compiler) container() error {
	c.joinCgroups()
	c.enterContainer(namespaceFlags(c.linux))
	if !c.has(specs.MountNamespace) {
		c.enterRootOf()
	}
	c.session()
	return nil
}

// enterContainer enters the namespaces of a container in one step (setns(2)
// with a pidfd, Linux 5.8). Of its pid and time namespaces only children are
// part.
func (c *compiler) enterContainer(flags uint64) {
	if flags == 0 {
		return
	}
	pidfd := c.file(File{Name: "container"})
	c.stage("enter the container", "")
	c.call("setns", pidfd, cloneArg(flags))
	if flags&unix.CLONE_NEWUSER != 0 {
		c.becomeRoot()
	}
	if flags&(unix.CLONE_NEWPID|unix.CLONE_NEWTIME) != 0 {
		c.fork(0)
	}
}

// execTerminal opens a terminal in the container's devpts.
func (c *compiler) execTerminal() error {
	if !c.process.Terminal {
		return nil
	}
	h, size := how(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
	c.stage("open a terminal", "/dev/pts/ptmx")
	c.openTerminal(c.open("openat2", cwd(), str("/dev/pts/ptmx"), h, size))
	return nil
}
