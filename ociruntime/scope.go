package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
	"github.com/gantryd/gantry/ociruntime/internal/systemd"
)

// With the systemd cgroup driver a container's groups are those of a transient
// scope. systemd makes no scope without a process in it, and the child is to be
// born in its group: so the scope begins around a process of ours that waits.
//
//	this process           systemd            seat       child
//	 │ clone ─────────────────────────────────▶│
//	 │ StartTransientUnit ──▶ │ scope: its pid
//	 │ ◀───────── JobRemoved ─┤
//	 │ limits, written into the groups
//	 │ clone into the group ──────────────────────────────▶│
//	 │ close ─────────────────────────────────▶ ends       │ holds the scope

// scopeGroup is the cgroup of a scope.
func scopeGroup(l *cgroup.Layout, name systemd.Name) (*cgroup.Group, error) {
	group, err := name.Group()
	if err != nil {
		return nil, err
	}
	if systemd.User() == 0 {
		return l.Group(group)
	}
	// The user's own systemd runs its units below itself.
	c, err := systemd.Connect()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	base, err := c.Group()
	if err != nil {
		return nil, err
	}
	return l.Group(path.Join("/", base, group))
}

// scopeName is the unit that linux.cgroupsPath names.
func scopeName(spec *specs.Spec, id string) (systemd.Name, error) {
	slice := "system.slice"
	if systemd.User() != 0 {
		slice = "user.slice"
	}
	name, err := systemd.ParseName(spec.Linux.CgroupsPath, slice, id)
	if err != nil {
		return name, errs.Because(errdefs.ErrInvalidArgument, "config.json: %w", err)
	}
	return name, nil
}

// startScope makes the scope. The seat in it is left when the child is there.
func (c *Container) startScope(name systemd.Name) (s *seat, err error) {
	props, err := scopeProperties(c.spec, c.group.V2Only())
	if err != nil {
		return nil, err
	}
	if s, err = takeSeat(name.Unit, c.reap); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return s.leave() })
	conn, err := systemd.Connect()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return s, conn.Start(name, "container "+c.ID, s.child.pid, props)
}

// scopeProperties are what systemd must know of the limits.
func scopeProperties(spec *specs.Spec, v2 bool) ([]systemd.Property, error) {
	r := limits(spec)
	set, err := systemd.Limits(r, v2)
	if err != nil {
		return nil, fmt.Errorf("linux.resources: %w", err)
	}
	asked, err := systemd.Annotated(spec.Annotations)
	if err != nil {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "config.json: %w", err)
	}
	props := append(systemd.Accounting(v2), systemd.Devices(r.Devices)...)
	return append(append(props, set...), asked...), nil
}

// updateScope tells systemd of new limits, or it would write the old ones again.
func (c *Container) updateScope(r *specs.LinuxResources) error {
	if c.rec.Unit == "" {
		return nil
	}
	props, err := systemd.Limits(r, c.group.V2Only())
	if err != nil {
		return fmt.Errorf("linux.resources: %w", err)
	}
	conn, err := systemd.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Set(c.rec.Unit, props)
}

// stopScope ends a scope, which has no process any more, and its unit.
func stopScope(unit string) error {
	if unit == "" {
		return nil
	}
	conn, err := systemd.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Stop(unit)
}

// seat is a process that waits, in a scope, until we leave it or die.
type seat struct {
	child *child
	end   *os.File // it waits for the end of this pipe
}

// takeSeat starts the process. It is a plan of two steps: nothing of this
// program is in its memory, and hardly anything is charged to the group.
func takeSeat(unit string, reap func(pid int) (syscall.WaitStatus, error)) (_ *seat, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(p[0])
	s := &seat{end: os.NewFile(uintptr(p[1]), "pipe")}
	defer errs.Undo(&err, s.end.Close)
	b := newBuilder(0)
	pipe := b.file(File{Name: "pipe"})
	b.stage("hold the scope", unit)
	b.call("read", pipe, raw(make([]byte, 8), "byte"), num(1))
	b.call("exit_group", num(0))
	l := &launch{plan: b.finish(), given: map[string]int{"pipe": p[0]}, cgroup: -1, reap: reap}
	s.child, err = l.run()
	return s, err
}

// leave ends the process, the first time.
func (s *seat) leave() error {
	if s == nil || s.child == nil {
		return nil
	}
	child := s.child
	s.child = nil
	return errors.Join(s.end.Close(), child.kill())
}
