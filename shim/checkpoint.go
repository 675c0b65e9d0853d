package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/ociruntime"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// checkpoint says what a runtime is to write, and where.
type checkpoint struct {
	taskapi.CheckpointOptions
	images string
	work   string // where CRIU keeps its log
}

// criuWork is, in the bundle, where CRIU keeps its log if nobody says where. It
// stays there when something failed.
const criuWork = "criu-work"

// checkpoint writes the processes of a container to files, with its first process
// gone afterwards if the options say so.
func (s *Shim) checkpoint(_ context.Context, r *taskapi.CheckpointRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	o := checkpoint{images: r.Path}
	if r.Options != nil && r.Options.TypeURL == taskapi.CheckpointOptionsType {
		if err := unmarshal(r.Options.Value, &o.CheckpointOptions); err != nil {
			return nil, err
		}
	}
	if o.images == "" {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "checkpoint %s: no path", r.ID)
	}
	if err := c.write(o); err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", r.ID, err)
	}
	s.events.publish(&taskapi.TaskCheckpointed{ContainerID: r.ID, Checkpoint: r.Path})
	return nil, nil
}

// write has the runtime write the checkpoint. An exit that comes of it is told
// afterwards.
func (c *container) write(o checkpoint) error {
	p := c.init
	p.verbs.Lock()
	defer p.verbs.Unlock()
	if err := p.can(doCheckpoint); err != nil {
		return err
	}
	o.work = o.WorkPath
	if o.work == "" {
		o.work = filepath.Join(c.bundle, criuWork)
	}
	if err := c.runtime.checkpoint(o); err != nil {
		return err
	}
	if o.WorkPath == "" {
		return os.RemoveAll(o.work)
	}
	return nil
}

// restore makes the first process of a checkpoint. One that fails is not tried
// again, as with an exec.
func (c *container) restore() (err error) {
	p := c.init
	defer errs.Undo(&err, p.fail)
	err = p.spawn(func(e ends) (*started, error) { return c.runtime.restore(c.checkpoint, e) })
	if err != nil {
		return err
	}
	_, linked := c.runtime.(*linked)
	c.meet(linked)
	return nil
}

// criuWork is where a restore keeps CRIU's log.
func (r record) criuWork(bundle string) string {
	if r.CriuWork != "" {
		return r.CriuWork
	}
	return filepath.Join(bundle, criuWork)
}

// checkpoint holds the reaper, for the runtime waits for CRIU.
func (l *linked) checkpoint(o checkpoint) error {
	l.reaper.hold()
	defer l.reaper.release()
	return l.use(func(c *ociruntime.Container) error {
		return c.Checkpoint(context.Background(), ociruntime.CheckpointOptions{
			ImagePath: o.images, WorkPath: o.work, ParentPath: o.ParentPath,
			LeaveRunning: !o.Exit, TCPEstablished: o.OpenTCP, ExtUnixSockets: o.ExternalSockets, ShellJob: o.Terminal,
			FileLocks: o.FileLocks, ManageCgroups: o.CgroupsMode,
		})
	})
}

// restore lets CRIU have back what a checkpoint may hold: there is nobody to ask.
func (l *linked) restore(images string, e ends) (*started, error) {
	c, err := ociruntime.Restore(context.Background(), ociruntime.CreateOptions{
		ID: l.ID, Bundle: l.bundle, Root: l.Root,
		Stdin: e.in, Stdout: e.out, Stderr: e.err,
		SystemdCgroup: l.SystemdCgroup, Trace: l.Trace, Log: slog.Default(),
	}, ociruntime.CheckpointOptions{
		ImagePath: images, WorkPath: l.criuWork(l.bundle),
		TCPEstablished: true, ExtUnixSockets: true, FileLocks: true,
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.container = c
	l.mu.Unlock()
	p, err := handedOver(c.Pid, c.Console)
	if err != nil {
		return nil, errors.Join(err, l.delete(true))
	}
	return p, nil
}

func (c *command) checkpoint(o checkpoint) error {
	args := []string{"--image-path", o.images, "--work-path", o.work}
	if o.ParentPath != "" {
		args = append(args, "--parent-path", o.ParentPath)
	}
	if o.CgroupsMode != "" {
		args = append(args, "--manage-cgroups-mode", o.CgroupsMode)
	}
	for _, ns := range o.EmptyNamespaces {
		args = append(args, "--empty-ns", ns)
	}
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{!o.Exit, "--leave-running"},
		{o.OpenTCP, "--tcp-established"},
		{o.ExternalSockets, "--ext-unix-sk"},
		{o.Terminal, "--shell-job"},
		{o.FileLocks, "--file-locks"},
	} {
		if f.on {
			args = append(args, f.flag)
		}
	}
	return c.run("checkpoint", append(args, c.ID), ends{}, nil)
}

func (c *command) restore(images string, e ends) (*started, error) {
	return c.spawn("restore", []string{
		"--bundle", c.bundle, "--image-path", images, "--work-path", c.criuWork(c.bundle), "--detach", "--no-subreaper",
		"--tcp-established", "--ext-unix-sk", "--file-locks",
	}, e)
}
