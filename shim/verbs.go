package shim

import (
	"fmt"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// turn pauses or resumes the container by f.
func (c *container) turn(v verb, f func() error) error {
	c.init.verbs.Lock()
	defer c.init.verbs.Unlock()
	if err := c.init.can(v); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	c.init.did(v)
	return nil
}

// kill signals one process. NotFound means that it has ended.
func (p *process) kill(sig int) error {
	p.mu.Lock()
	pid, st := p.pid, p.status
	p.mu.Unlock()
	if pid == 0 {
		return fmt.Errorf("kill %s: it is not started: %w", p.name(), errdefs.ErrFailedPrecondition)
	}
	if err := p.container.shim.reaper.kill(pid, unix.Signal(sig)); err != nil {
		return fmt.Errorf("kill %s: %w", p.name(), err)
	}
	if unix.Signal(sig) == unix.SIGKILL && (st == taskapi.Paused || p.container.init.isPaused()) {
		return p.container.thaw()
	}
	return nil
}

// killAll signals every process of the container.
func (c *container) killAll(sig int) error {
	if err := c.runtime.kill(sig, true); err != nil {
		return err
	}
	if unix.Signal(sig) == unix.SIGKILL && c.init.isPaused() {
		return c.thaw()
	}
	return nil
}

func (p *process) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status == taskapi.Paused
}

// thaw lets a killed process die: the freezer of cgroup v1 keeps it otherwise
// (kernel, cgroup-v1/freezer-subsystem).
func (c *container) thaw() error {
	err := c.turn(doResume, c.runtime.resume)
	if errdefs.IsFailedPrecondition(err) || errdefs.IsNotFound(err) {
		return nil // it has ended meanwhile
	}
	return err
}

// execPids are the execs that run, by pid.
func (c *container) execPids() map[int]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	pids := make(map[int]string, len(c.execs))
	for id, p := range c.execs {
		if p.running() {
			pids[p.pid] = id
		}
	}
	return pids
}
