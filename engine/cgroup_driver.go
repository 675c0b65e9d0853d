package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// The drivers of cgroups.
const (
	Cgroupfs = "cgroupfs"
	Systemd  = "systemd"
)

// Where containers' cgroups are made unless told, by driver.
const (
	cgroupParent = "/gantry"
	sliceParent  = "system.slice"
	scopePrefix  = "gantry"
)

// checkDriver says whether the machine has a cgroup driver.
func checkDriver(driver string) error {
	switch driver {
	case Cgroupfs:
		return nil
	case Systemd:
		// sd_booted(3)
		if _, err := os.Lstat("/run/systemd/system"); err != nil {
			return fmt.Errorf("cgroup driver systemd: systemd is not process 1 of this machine; use %s", Cgroupfs)
		}
		return nil
	}
	return fmt.Errorf("cgroup driver %q: want %s or %s", driver, Cgroupfs, Systemd)
}

// cgroupsPath is linux.cgroupsPath of a container: a directory, or with systemd
// SLICE:PREFIX:NAME.
func (c *containers) cgroupsPath(id string, host *container.HostConfig) string {
	parent := host.CgroupParent
	if c.cfg.CgroupDriver == Systemd {
		if parent == "" {
			parent = sliceParent
		}
		return parent + ":" + scopePrefix + ":" + id
	}
	if parent == "" {
		parent = cgroupParent
	}
	return filepath.Join("/", parent, id)
}

// checkCgroupParent refuses what systemd would not take.
func (c *containers) checkCgroupParent(parent string) error {
	if parent == "" || c.cfg.CgroupDriver != Systemd {
		return nil
	}
	if strings.Contains(parent, "/") || !strings.HasSuffix(parent, ".slice") || parent == ".slice" {
		return invalid(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}
