package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/ociruntime/internal/criu"
	"github.com/gantryd/gantry/ociruntime/internal/netdev"
)

// restored is a container whose first process CRIU is making.
type restored struct {
	*Container
	first    *child // nil until it is there
	terminal uint32 // number of the terminal that Console is of
}

// heard does what CRIU waits for.
func (r *restored) heard(ctx context.Context, n criu.Notice) error {
	switch n.Step {
	case "setup-namespaces":
		if err := r.meet(n.Pid); err != nil {
			return err
		}
		return r.setUp(ctx)
	case "post-restore":
		return r.meet(n.Pid)
	case "orphan-pts-master":
		return r.take(n.File)
	}
	return nil
}

// meet takes hold of the first process, our child.
func (r *restored) meet(pid int) error {
	if r.first != nil {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	r.first = &child{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), reap: r.reap}
	return nil
}

// setUp does for new namespaces what creation does: lo, and the hooks.
func (r *restored) setUp(ctx context.Context) error {
	isOwn := func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace && n.Path == "" }
	if slices.ContainsFunc(r.spec.Linux.Namespaces, isOwn) {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", r.first.pid))
		if err != nil {
			return fmt.Errorf("bring up lo: %w", err)
		}
		defer ns.Close()
		if err := netdev.Up(ns, "lo"); err != nil {
			return fmt.Errorf("bring up lo: %w", err)
		}
	}
	if r.rec.Hooks == nil {
		return nil
	}
	_, err := r.runtimeHooks(ctx, r.first.pid)
	return err
}

// take keeps the master of the container's terminal. Those of execs, which have
// higher numbers, are closed: who had them is gone.
func (r *restored) take(master *os.File) error {
	if master == nil {
		return errors.New("criu sends no terminal")
	}
	n, err := unix.IoctlGetUint32(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return errors.Join(fmt.Errorf("look at the terminal: %w", err), master.Close())
	}
	if r.Console != nil && r.terminal < n {
		return master.Close()
	}
	if r.Console != nil {
		r.Console.Close()
	}
	r.Console, r.terminal = master, n
	return nil
}

// adopt makes the process that CRIU left us the container's first.
func (r *restored) adopt() (err error) {
	if r.first == nil {
		return errors.New("criu did not say which process it restored")
	}
	r.Pid, r.PidFD, r.rec.Pid = r.first.pid, r.first.pidfd, r.first.pid
	if r.rec.StartTime, err = startTime(r.Pid); err != nil {
		return fmt.Errorf("read the start time of %d: %w", r.Pid, err)
	}
	if err := r.keepTime(); err != nil {
		return err
	}
	return r.rec.write(r.dir)
}

// keepTime has execs join the time namespace that CRIU restores into, so that
// clocks go on from where they were.
func (r *restored) keepTime() error {
	if namespaceFlags(r.spec.Linux)&unix.CLONE_NEWTIME != 0 {
		return nil
	}
	ours, err := os.Readlink("/proc/self/ns/time")
	if errors.Is(err, os.ErrNotExist) {
		return nil // before Linux 5.6
	}
	theirs, terr := os.Readlink(fmt.Sprintf("/proc/%d/ns/time", r.Pid))
	if err := errors.Join(err, terr); err != nil {
		return fmt.Errorf("look at the time namespace: %w", err)
	}
	if ours == theirs {
		return nil
	}
	spec, linux := *r.spec, *r.spec.Linux
	linux.Namespaces = append(slices.Clip(linux.Namespaces), specs.LinuxNamespace{Type: specs.TimeNamespace})
	spec.Linux, r.spec = &linux, &spec
	r.rec.Namespaces |= unix.CLONE_NEWTIME
	config, err := specjson.Marshal(r.spec)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(r.dir, specFile), config, 0o600)
}

// discard ends a restore that failed: CRIU kills what it made, but the first
// process is ours to reap.
func (r *restored) discard() (err error) {
	if r.Console != nil {
		err = r.Console.Close()
	}
	if r.first != nil {
		err = errors.Join(err, r.first.kill())
	}
	return err
}
