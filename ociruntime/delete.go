package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// Delete takes the container apart: cgroups, state, poststop hooks.
// errdefs.ErrFailedPrecondition when it still runs, unless force, which kills
// every process first.
func (c *Container) Delete(ctx context.Context, force bool) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if !force {
		if _, err := c.must("delete", Stopped); err != nil {
			return err
		}
	}
	return c.destroy(ctx)
}

// destroy kills what still lives of the container, and leaves nothing of it.
func (c *Container) destroy(ctx context.Context) error {
	if err := c.end(); err != nil {
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	if err := errors.Join(c.rec.uncover(), stopScope(c.rec.Unit), c.group.Remove(), c.rec.RDT.remove()); err != nil {
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	if err := abandon(c.dir); err != nil {
		return fmt.Errorf("delete container %s: %w", c.ID, err)
	}
	c.poststopHooks(ctx)
	return nil
}

// Forget removes what a Create or a Delete that was killed left of a container that
// is not there: its state directory, without a record. It does nothing to one that is.
func Forget(root, id string) error {
	if err := validateID(id); err != nil {
		return err
	}
	if root == "" {
		root = DefaultRoot
	}
	dir := filepath.Join(root, id)
	if _, err := readRecord(dir); !errdefs.IsNotFound(err) {
		return err
	}
	return abandon(dir)
}

// end kills what still lives of the container, and waits for it.
func (c *Container) end() error {
	if !ended(c.PidFD) {
		err := unix.PidfdSendSignal(int(c.PidFD.Fd()), unix.SIGKILL, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %d: %w", c.Pid, err)
		}
	}
	if pids, err := c.group.Pids(); err == nil && len(pids) > 0 {
		if err := c.group.Kill(); err != nil {
			return err
		}
	}
	if ended(c.PidFD) {
		return nil
	}
	const soon, longest = time.Second, 10 * time.Second
	err := awaitEnd(c.PidFD, soon)
	if errdefs.IsUnavailable(err) {
		// On v1 no signal reaches a process that was moved to a frozen group of another's.
		err = errors.Join(c.group.TakeBack(c.Pid), awaitEnd(c.PidFD, longest))
	}
	return err
}

// awaitEnd waits until the process of pidfd has ended, reaped or not.
func awaitEnd(pidfd *os.File, longest time.Duration) error {
	deadline := time.Now().Add(longest)
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the container's process: %w", err)
		case n == 0:
			return errs.Because(errdefs.ErrUnavailable, "the container's process does not die in %v", longest)
		default:
			return nil
		}
	}
}
