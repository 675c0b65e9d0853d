package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/ociruntime"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// linked is our runtime, in this process.
type linked struct {
	record
	bundle string
	reaper *reaper

	mu        sync.Mutex
	container *ociruntime.Container // nil while it is at rest
	users     int                   // of container
}

// use calls f with the container, which is read anew after a rest.
func (l *linked) use(f func(*ociruntime.Container) error) error {
	l.mu.Lock()
	if l.container == nil {
		c, err := ociruntime.Load(l.Root, l.ID)
		if err != nil {
			l.mu.Unlock()
			return err
		}
		c.LogTo(slog.Default())
		l.container = c
	}
	c := l.container
	l.users++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.users--
		l.mu.Unlock()
	}()
	return f(c)
}

// rest lets go of what is known of the container, its specification for the
// most: while it runs, nobody asks.
func (l *linked) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users > 0 || l.container == nil {
		return
	}
	if err := l.container.Close(); err != nil {
		slog.Warn("container is not closed", "id", l.ID, "err", err)
	}
	l.container = nil
}

func (l *linked) create(e ends) (*started, error) {
	c, err := ociruntime.Create(context.Background(), ociruntime.CreateOptions{
		ID:            l.ID,
		Bundle:        l.bundle,
		Root:          l.Root,
		Stdin:         e.in,
		Stdout:        e.out,
		Stderr:        e.err,
		SystemdCgroup: l.SystemdCgroup,
		NoPivot:       l.NoPivot,
		NoNewKeyring:  l.NoNewKeyring,
		Trace:         l.Trace,
		Log:           slog.Default(),
	})
	if err != nil {
		return nil, err
	}
	l.container = c
	p, err := handedOver(c.Pid, c.Console)
	if err != nil {
		return nil, errors.Join(err, l.delete(true))
	}
	return p, nil
}

// start holds the reaper, for the runtime waits for its hooks.
func (l *linked) start() error {
	l.reaper.hold()
	defer l.reaper.release()
	return l.use(func(c *ociruntime.Container) error { return c.Start(context.Background()) })
}

func (l *linked) exec(p *specs.Process, e ends) (*started, error) {
	var proc *ociruntime.Process
	err := l.use(func(c *ociruntime.Container) (err error) {
		proc, err = c.Exec(context.Background(), p, ociruntime.ExecOptions{
			Stdin:  e.in,
			Stdout: e.out,
			Stderr: e.err,
			Log:    slog.Default(),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	if proc.PidFD != nil {
		proc.PidFD.Close() // the reaper tells the exit
	}
	return handedOver(proc.Pid, proc.Console)
}

// handedOver makes the terminal, if there is one, wait in the poller.
func handedOver(pid int, console *os.File) (*started, error) {
	s := &started{pid: pid}
	if console == nil {
		return s, nil
	}
	var err error
	s.console, err = stream.Repoll(console)
	return s, err
}

func (l *linked) kill(sig int, all bool) error {
	return l.use(func(c *ociruntime.Container) error { return c.Kill(syscall.Signal(sig), all) })
}

func (l *linked) pids() (pids []int, err error) {
	err = l.use(func(c *ociruntime.Container) error {
		pids, err = c.Pids()
		return err
	})
	return pids, err
}

func (l *linked) pause() error { return l.use((*ociruntime.Container).Pause) }

func (l *linked) resume() error { return l.use((*ociruntime.Container).Resume) }

func (l *linked) update(resources []byte) error {
	var r specs.LinuxResources
	if err := specjson.Unmarshal(resources, &r); err != nil {
		return fmt.Errorf("parse resources: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return l.use(func(c *ociruntime.Container) error { return c.Update(&r) })
}

// delete works without create too, after the shim that did it has been killed.
// It holds the reaper as start does.
func (l *linked) delete(force bool) error {
	l.reaper.hold()
	defer l.reaper.release()
	err := l.use(func(c *ociruntime.Container) error {
		if err := c.Delete(context.Background(), force); err != nil {
			return err
		}
		return c.Close()
	})
	if force && errdefs.IsNotFound(err) {
		err = errors.Join(err, ociruntime.Forget(l.Root, l.ID))
	}
	return err
}

func (l *linked) spans() []journey.Span {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.container == nil {
		return nil
	}
	trace := l.container.Trace()
	spans := make([]journey.Span, len(trace))
	for i, t := range trace {
		spans[i] = journey.Span{Part: t.Part, Name: t.Name, Start: t.Start, Took: t.Took, Detail: t.Call}
	}
	return spans
}
