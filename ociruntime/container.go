package ociruntime

import (
	"context"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
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
}

// Create makes a container and leaves its first process waiting for Start. The
// process is a direct child of the caller, who reaps it. When Create fails
// nothing is left behind, and the child, if there was one, is reaped.
//
// The error says what is wrong with the user's program as well (no such file,
// missing interpreter, wrong architecture): errdefs.ErrNotFound where there is
// no such program, ErrPermissionDenied where it cannot be executed.
func Create(ctx context.Context, o CreateOptions) (*Container, error) {
	return nil, errdefs.ErrNotImplemented
}

// Load finds a container that any process created. errdefs.ErrNotFound when
// there is none.
func Load(root, id string) (*Container, error) { return nil, errdefs.ErrNotImplemented }

// List loads every container below root.
func List(root string) ([]*Container, error) { return nil, errdefs.ErrNotImplemented }

// Start lets the first process go on to the user's program, and returns when it
// has been executed. The error is the one of execve, explained.
// errdefs.ErrFailedPrecondition when the container is not created.
func (c *Container) Start(ctx context.Context) error { return errdefs.ErrNotImplemented }

// Exec runs one more process inside the container and returns when its program
// has been executed.
func (c *Container) Exec(ctx context.Context, p *specs.Process, o ExecOptions) (*Process, error) {
	return nil, errdefs.ErrNotImplemented
}

// Kill sends sig to the first process, or with all to every process in the
// container's cgroup. errdefs.ErrNotFound when no process is left (all is then
// no error).
func (c *Container) Kill(sig syscall.Signal, all bool) error { return errdefs.ErrNotImplemented }

// Delete takes the container apart: cgroups, state, poststop hooks.
// errdefs.ErrFailedPrecondition when it still runs, unless force, which kills
// every process first.
func (c *Container) Delete(ctx context.Context, force bool) error { return errdefs.ErrNotImplemented }

// Pause freezes every process, Resume thaws them.
func (c *Container) Pause() error { return errdefs.ErrNotImplemented }

// Resume undoes Pause.
func (c *Container) Resume() error { return errdefs.ErrNotImplemented }

// Update changes the limits; what r leaves out stays.
func (c *Container) Update(r *specs.LinuxResources) error { return errdefs.ErrNotImplemented }

// State says how the container is now.
func (c *Container) State() (State, error) { return State{}, errdefs.ErrNotImplemented }

// Spec is the config.json that the container was created from.
func (c *Container) Spec() (*specs.Spec, error) { return nil, errdefs.ErrNotImplemented }

// Pids lists the processes of the container, in the caller's pid namespace.
func (c *Container) Pids() ([]int, error) { return nil, errdefs.ErrNotImplemented }

// Stats reads the container's cgroups.
func (c *Container) Stats() (*Stats, error) { return nil, errdefs.ErrNotImplemented }

// OOM returns a descriptor that becomes readable when the kernel killed a
// process of the container for want of memory: an eventfd on cgroup v1, an
// inotify of memory.events on v2. The caller owns it.
func (c *Container) OOM() (*os.File, error) { return nil, errdefs.ErrNotImplemented }

// Trace is what each step of Create, and of Start so far, took, with CreateOptions.Trace.
func (c *Container) Trace() []Timing { return nil }

// Close closes the descriptors of c except Console, and leaves the container be.
func (c *Container) Close() error { return nil }
