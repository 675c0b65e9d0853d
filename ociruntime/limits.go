package ociruntime

import (
	"errors"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// groupOf names the cgroup of a new container: linux.cgroupsPath, and without
// one the container's id at the root of each hierarchy.
func (c *Container) groupOf(l *cgroup.Layout, o CreateOptions) (g *cgroup.Group, err error) {
	if o.NoCgroup {
		return &cgroup.Group{}, nil
	}
	if o.SystemdCgroup {
		if c.scope, err = scopeName(c.spec, o.ID); err != nil {
			return nil, err
		}
		return scopeGroup(l, c.scope)
	}
	path := c.spec.Linux.CgroupsPath
	switch {
	case path == "" && o.Rootless:
		return permittedGroup(l, o.ID)
	case path == "":
		path = "/" + o.ID
	}
	return l.Group(path)
}

// cgroupMounts is what a mount of type cgroup shows of group.
func cgroupMounts(l *cgroup.Layout, group *cgroup.Group) []CgroupMount {
	if dir, ok := group.Unified(); ok && l.V2Only() {
		return []CgroupMount{{Path: dir}}
	}
	var list []CgroupMount
	for _, d := range group.Dirs {
		if d.V2 {
			continue
		}
		m := CgroupMount{Name: filepath.Base(d.Mount), Path: d.Path}
		if len(d.Controllers) > 1 {
			m.Links = d.Controllers
		}
		list = append(list, m)
	}
	return list
}

// makeGroup makes the cgroups and sets the limits, or leaves nothing behind.
func (c *Container) makeGroup() (undo func() error, err error) {
	if c.scope.Unit == "" {
		if err := c.group.Vacant(); err != nil {
			return nil, err
		}
	} else {
		if c.seat, err = c.startScope(c.scope); err != nil {
			return nil, err
		}
	}
	made, err := c.group.Create()
	undo = func() error {
		return errors.Join(c.seat.leave(), stopScope(c.scope.Unit), cgroup.Remove(made))
	}
	if err == nil {
		err = c.group.Set(limits(c.spec))
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// limits are linux.resources with the devices that every container has: what the
// spec does not allow is denied, but for these.
func limits(spec *specs.Spec) *specs.LinuxResources {
	r := specs.LinuxResources{}
	if spec.Linux.Resources != nil {
		r = *spec.Linux.Resources
	}
	everything := specs.LinuxDeviceCgroup{Access: "rwm"}
	r.Devices = append(append([]specs.LinuxDeviceCgroup{everything}, r.Devices...), defaultDeviceRules()...)
	return &r
}

// defaultDeviceRules allow to make any node, and to use the devices of
// runtime-spec, config-linux, "Default Devices", and pseudo-terminals.
func defaultDeviceRules() []specs.LinuxDeviceCgroup {
	rule := func(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: kind, Major: &major, Minor: &minor, Access: access}
	}
	const any = -1
	rules := []specs.LinuxDeviceCgroup{
		rule("c", any, any, "m"),
		rule("b", any, any, "m"),
		rule("c", 5, 1, "rwm"), // console
		rule("c", 136, any, "rwm"),
		rule("c", 5, 2, "rwm"), // ptmx
	}
	for _, n := range defaultNodes() {
		rules = append(rules, rule("c", int64(unix.Major(n.dev)), int64(unix.Minor(n.dev)), "rwm"))
	}
	return rules
}
