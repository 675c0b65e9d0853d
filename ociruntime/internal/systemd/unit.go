package systemd

import (
	"fmt"
	"path"
	"strings"
)

// Name is a container's unit, as cgroupsPath names it: "slice:prefix:name".
type Name struct {
	Slice string // "system.slice"
	Unit  string // "prefix-name.scope"
}

// ParseName reads cgroupsPath. Without one the container's id is the name, below
// otherwise.
func ParseName(cgroupsPath, otherwise, id string) (Name, error) {
	slice, prefix, name := otherwise, "gantry", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return Name{}, fmt.Errorf("linux.cgroupsPath %q: the systemd cgroup driver wants slice:prefix:name", cgroupsPath)
		}
		if parts[0] != "" {
			slice = parts[0]
		}
		prefix, name = parts[1], parts[2]
	}
	n := Name{Slice: slice, Unit: name + ".scope"}
	if prefix != "" {
		n.Unit = prefix + "-" + n.Unit
	}
	if name == "" || strings.ContainsAny(n.Unit, "/\x00") {
		return Name{}, fmt.Errorf("linux.cgroupsPath %q: it names no unit", cgroupsPath)
	}
	if _, err := n.Group(); err != nil {
		return Name{}, fmt.Errorf("linux.cgroupsPath %q: %w", cgroupsPath, err)
	}
	return n, nil
}

// Group is the unit's cgroup below that of its systemd. A slice "a-b.slice" lies
// in "a.slice" (systemd.slice(5)).
func (n Name) Group() (string, error) {
	name, ok := strings.CutSuffix(n.Slice, ".slice")
	if !ok || strings.ContainsRune(name, '/') {
		return "", fmt.Errorf("%q is no slice", n.Slice)
	}
	group := "/"
	if name != "-" {
		upper := ""
		for part := range strings.SplitSeq(name, "-") {
			if part == "" {
				return "", fmt.Errorf("%q is no slice", n.Slice)
			}
			upper += part
			group = path.Join(group, upper+".slice")
			upper += "-"
		}
	}
	return path.Join(group, n.Unit), nil
}

// Start makes the scope n around the process pid. The processes and cgroups in it
// are the caller's to manage (Delegate); it goes when its last process ends,
// failed or not.
func (c *Conn) Start(n Name, description string, pid int, props []Property) error {
	all := append([]Property{
		{"Description", description},
		{"Slice", n.Slice},
		{"Delegate", true},
		{"DefaultDependencies", false},
		{"CollectMode", "inactive-or-failed"},
		{"PIDs", []uint32{uint32(pid)}},
	}, props...)
	const mode = "fail" // a unit of that name that is there already is somebody else's
	return c.job("StartTransientUnit", n.Unit, mode, all, []unit(nil))
}

// Set changes properties of a running unit.
func (c *Conn) Set(unit string, props []Property) error {
	const untilReboot = true
	_, err := c.do(busName, managerPath, managerName, "SetUnitProperties", unit, untilReboot, props)
	return err
}

// Stop ends a unit and forgets it, failed or not. One that is not there is no
// error.
func (c *Conn) Stop(unit string) error {
	if err := c.job("StopUnit", unit, "replace"); err != nil && !noSuchUnit(err) {
		return err
	}
	if _, err := c.do(busName, managerPath, managerName, "ResetFailedUnit", unit); err != nil && !noSuchUnit(err) {
		return err
	}
	return nil
}

// Group is the cgroup in which this systemd runs its units: "" for the system's.
func (c *Conn) Group() (string, error) {
	m, err := c.do(busName, managerPath, "org.freedesktop.DBus.Properties", "Get", managerName, "ControlGroup")
	if err != nil {
		return "", err
	}
	if s := m.body.sig(); s != "s" {
		return "", fmt.Errorf("systemd: ControlGroup has type %q", s)
	}
	return m.body.str(), m.body.err
}
