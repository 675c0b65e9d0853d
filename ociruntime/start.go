package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Start lets the first process go on to the user's program, and returns when it
// has been executed. The error is the one of execve, explained.
// errdefs.ErrFailedPrecondition when the container is not created. A hook that
// fails is the end of the container (runtime-spec, "Lifecycle": it goes on with
// step 12): it is deleted when Start returns.
func (c *Container) Start(ctx context.Context) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("start", Created); err != nil {
		return err
	}
	if err := c.startHooks(ctx); err != nil {
		return errors.Join(err, c.destroy(ctx))
	}
	start := time.Now()
	if err := c.release(ctx); err != nil {
		return err
	}
	c.trace.add("runtime", "start", "execve", start)
	c.log.Debug("the program runs", "container", c.ID, "pid", c.Pid)
	if err := c.poststartHooks(ctx); err != nil {
		return errors.Join(err, c.destroy(ctx))
	}
	return nil
}

// release sends the byte that the child waits for, and waits until it has
// executed the program.
func (c *Container) release(ctx context.Context) (err error) {
	t := newTalk()
	defer t.close()
	if t.status, err = openFifo(filepath.Join(c.dir, statusFifo), unix.O_RDONLY); err != nil {
		return err
	}
	if t.start, err = openFifo(filepath.Join(c.dir, startFifo), unix.O_WRONLY); err != nil {
		return err
	}
	if err := t.goOn(); err != nil {
		return err
	}
	// What comes next needs neither the fifo nor that we live on.
	if err := os.Remove(t.start.Name()); err != nil {
		return fmt.Errorf("start container %s: %w", c.ID, err)
	}
	defer t.cancelWith(ctx)()
	if err := awaitProgram(t.status); err != nil {
		spec, serr := c.ownSpec()
		if serr != nil {
			return errors.Join(err, serr)
		}
		return explain(err, spec.Process, c.rec.Rootfs, spec)
	}
	return nil
}
