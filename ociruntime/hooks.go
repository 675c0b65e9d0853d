package ociruntime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/specjson"
)

// waitsForParent says whether the child waits when its mounts are made and the
// host's root is still there, for hooks (runtime-spec, "Lifecycle": before
// pivot_root) or network devices.
func waitsForParent(s *specs.Spec) bool {
	h := s.Hooks
	//lint:ignore SA1019 prestart is deprecated, and used.
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0 || len(s.Linux.NetDevices) > 0
}

// createHooks runs the hooks of create: those of the caller's namespaces, then
// those of the container's, whose root is still the host's.
func (c *Container) createHooks(ctx context.Context, child *child) error {
	if c.rec.Hooks == nil {
		return nil
	}
	st, err := c.runtimeHooks(ctx, child.pid)
	if err != nil {
		return err
	}
	inside := c.hookRunner()
	inside.inside, inside.linux, inside.dir = child.pidfd, c.spec.Linux, c.rec.Rootfs
	return inside.all(ctx, "createContainer", c.rec.Hooks.CreateContainer, st)
}

// runtimeHooks runs the hooks of create that are of the caller's namespaces.
func (c *Container) runtimeHooks(ctx context.Context, pid int) (State, error) {
	h, st := c.rec.Hooks, c.rec.State
	// The environment is there (runtime-spec, "Lifecycle": step 2 is over).
	st.Pid, st.Status = pid, Created
	own := c.hookRunner()
	//lint:ignore SA1019 prestart is deprecated, and used.
	if err := own.all(ctx, "prestart", h.Prestart, st); err != nil {
		return st, err
	}
	return st, own.all(ctx, "createRuntime", h.CreateRuntime, st)
}

// startHooks runs the hooks of start that come before the user's program.
func (c *Container) startHooks(ctx context.Context) error {
	if c.rec.Hooks == nil || len(c.rec.Hooks.StartContainer) == 0 {
		return nil
	}
	st := c.rec.State
	st.Status = Created
	spec, err := c.ownSpec()
	if err != nil {
		return err
	}
	inside := c.hookRunner()
	inside.inside, inside.linux, inside.filter = c.PidFD, spec.Linux, true
	inside.dir = "" // its root is the container's
	if c.rec.Covered != 0 {
		if inside.root, err = openRoot(c.Pid); err != nil {
			return err
		}
		defer unix.Close(inside.root)
	}
	hooks := slices.Clone(c.rec.Hooks.StartContainer)
	for i := range hooks {
		if hooks[i].Env == nil { // then it has that of the program, as with other runtimes
			hooks[i].Env = environment(spec.Process, c.homeOf(spec.Process))
		}
	}
	return inside.all(ctx, "startContainer", hooks, st)
}

func (c *Container) poststartHooks(ctx context.Context) error {
	if c.rec.Hooks == nil {
		return nil
	}
	st := c.rec.State
	st.Status = Running
	return c.hookRunner().all(ctx, "poststart", c.rec.Hooks.Poststart, st)
}

// poststopHooks are all run; what fails is a warning (runtime-spec, "Lifecycle").
func (c *Container) poststopHooks(ctx context.Context) {
	if c.rec.Hooks == nil {
		return
	}
	st := c.rec.State
	st.Status, st.Pid = Stopped, 0
	for i, h := range c.rec.Hooks.Poststop {
		if err := c.hookRunner().one(ctx, h, st); err != nil {
			said := "poststop hook failed"
			if exit := (hookExit{}); errors.As(err, &exit) {
				said += fmt.Sprintf(" with exit code %d", exit.code) // callers of crun know these words
			}
			c.log.Warn(said, "hook", fmt.Sprintf("hooks.poststop[%d]", i), "error", err)
		}
	}
}

// hookRunner runs hooks: in our namespaces, or in those of the process inside.
type hookRunner struct {
	inside      *os.File
	linux       *specs.Linux // of the container inside
	root        int          // its root, where that is of no mount namespace; or 0
	dir         string       // where it begins, if that is still there: as with runc the bundle, and inside the rootfs
	filter      bool         // what it runs is held by its seccomp filter
	log         *slog.Logger
	annotations map[string]string // of the container
	reap        func(int) (syscall.WaitStatus, error)
}

// hookRunner runs hooks in our own namespaces.
func (c *Container) hookRunner() hookRunner {
	return hookRunner{log: c.log, annotations: c.rec.Annotations, reap: c.reap, dir: c.rec.Bundle}
}

func (r hookRunner) all(ctx context.Context, kind string, hooks []specs.Hook, st State) error {
	for i, h := range hooks {
		if err := r.one(ctx, h, st); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err) // callers know these words
		}
	}
	return nil
}

// one runs a hook with the state on its standard input, for as long as its
// timeout lets it.
func (r hookRunner) one(ctx context.Context, h specs.Hook, st State) error {
	if h.Timeout != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(*h.Timeout)*time.Second)
		defer cancel()
	}
	r.log.Debug("run hook", "path", h.Path, "args", h.Args)
	state, err := specjson.Marshal(st)
	if err != nil {
		return err
	}
	in, err := memoryFile("hook-stdin", state)
	if err != nil {
		return err
	}
	defer in.Close()
	said, err := memoryFile("hook-output", nil)
	if err != nil {
		return err
	}
	defer said.Close()
	stdout, err := r.output(hooksStdout, said)
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := r.output(hooksStderr, said)
	if err != nil {
		return err
	}
	defer stderr.Close()
	child, err := r.start(h, st, [3]*os.File{in, stdout, stderr})
	if err != nil {
		return fmt.Errorf("run %s: %w", h.Path, err)
	}
	defer child.pidfd.Close()
	ws, timedOut, err := child.waitFor(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("run %s: %w", h.Path, err)
	case timedOut:
		return fmt.Errorf("run %s: killed: %w", h.Path, ctx.Err())
	case ws.Signaled():
		return fmt.Errorf("run %s: killed by signal %d (%v)%s", h.Path, ws.Signal(), ws.Signal(), output(said))
	case ws.ExitStatus() != 0:
		return fmt.Errorf("run %s: %w", h.Path, hookExit{ws.ExitStatus(), output(said)})
	}
	return nil
}

// output is the file that an annotation names for what hooks print, or said; the
// caller closes it.
func (r hookRunner) output(annotation string, said *os.File) (*os.File, error) {
	name := r.annotations[annotation]
	if name == "" {
		fd, err := unix.FcntlInt(said.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), said.Name()), err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", annotation, err)
	}
	return f, nil
}

// hookExit is the end of a hook that failed.
type hookExit struct {
	code int
	said string
}

func (e hookExit) Error() string { return fmt.Sprintf("exit status %d%s", e.code, e.said) }

// start starts the hook. Its plan is short: enter the namespaces, execute.
func (r hookRunner) start(h specs.Hook, st State, stdio [3]*os.File) (*child, error) {
	t, err := talkByPipes(false)
	if err != nil {
		return nil, err
	}
	defer t.close()
	given := t.theirs
	c := &compiler{builder: newBuilder(0), spec: &specs.Spec{Annotations: r.annotations}, linux: r.linux}
	c.status, c.start = c.file(File{Name: "status fifo"}), c.file(File{Name: "start fifo"})
	c.stage("begin a session", "")
	c.call("setsid").fine(unix.EPERM)
	if r.inside != nil {
		given["container"] = int(r.inside.Fd())
		c.enterContainer(namespaceFlags(r.linux))
	}
	if r.dir != "" {
		c.stage("enter the directory", r.dir)
		c.call("chdir", str(r.dir)).fine(unix.ENOENT, unix.EACCES) // the root of a user namespace may not pass there
	}
	if r.root != 0 {
		given[containerRoot] = r.root
		c.enterRootOf()
	}
	c.stage("close the rest at execve", "")
	c.markCloseOnExec()
	waits := r.filter && r.linux.Seccomp != nil
	if waits {
		if err := c.seccomp(); err != nil {
			return nil, err
		}
		c.tell(statusReady) // an agent may have to be told
		c.await()
	}
	c.stage("execute the hook", h.Path)
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	if h.Env == nil {
		h.Env = os.Environ() // as with other runtimes: one without an env has its starter's
	}
	c.call("execve", str(h.Path), strs(args), strs(h.Env))
	l := &launch{plan: c.finish(), stdio: stdio, given: given, cgroup: -1, reap: r.reap}
	child, err := l.run()
	delete(given, "container") // they are not ours to close
	delete(given, containerRoot)
	if err != nil {
		return nil, err
	}
	t.launched()
	child.heard = func(fd int) error { return child.notify(r.linux.Seccomp, fd, st) }
	if waits {
		if err := errors.Join(child.await(t.status, statusReady), t.goOn()); err != nil {
			return nil, errors.Join(err, child.kill())
		}
	}
	if err := child.await(t.status, 0); !errors.Is(err, errSilent) {
		return nil, errors.Join(err, child.kill())
	}
	return child, nil // it has executed the hook
}

// waitFor waits for a child, and kills it when ctx ends before.
func (c *child) waitFor(ctx context.Context) (ws syscall.WaitStatus, timedOut bool, err error) {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	})
	ws, err = c.wait()
	if !stop() {
		<-killed
		timedOut = true
	}
	return ws, timedOut, err
}

// memoryFile holds data, from its beginning.
func memoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make %s: memfd_create: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return f, nil
}

// output is the end of what a hook said.
func output(said *os.File) string {
	const most = 1024
	size, err := said.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	b := make([]byte, min(size, most))
	said.ReadAt(b, size-int64(len(b)))
	if text := strings.TrimSpace(string(bytes.ToValidUTF8(b, []byte("?")))); text != "" {
		return ": " + text
	}
	return ""
}
