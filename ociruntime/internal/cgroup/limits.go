package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Set writes the limits of r. What r leaves out stays as it is.
func (g *Group) Set(r *specs.LinuxResources) error {
	if r == nil {
		return nil
	}
	var settings []setting
	var err error
	if g.V2Only() {
		settings, err = settingsV2(r)
	} else {
		settings, err = settingsV1(r)
	}
	if err != nil {
		return err
	}
	if dir, ok := g.Unified(); ok && g.V2Only() && len(r.Devices) > 0 {
		if err := setDevicesV2(dir, r.Devices); err != nil {
			return err
		}
	}
	for _, s := range settings {
		err := g.set(s)
		if first := before[s.file]; errors.Is(err, unix.EINVAL) && first != "" {
			if i := slices.IndexFunc(settings, func(s setting) bool { return s.file == first }); i >= 0 {
				if err = g.set(settings[i]); err == nil {
					err = g.set(s)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// before is the file to write first where one is refused: of two limits that
// bound each other the old value of one may not go with the new value of the other.
var before = map[string]string{
	memoryLimitV1:       swapLimitV1,
	"cpu.cfs_period_us": "cpu.cfs_quota_us",
	"cpu.rt_period_us":  "cpu.rt_runtime_us",
}

const (
	memoryLimitV1 = "memory.limit_in_bytes"
	swapLimitV1   = "memory.memsw.limit_in_bytes"
)

// setting is one value of one file. On v1 controller says whose file it is.
type setting struct {
	field      string // of config.json, below linux.resources
	controller string
	file       string
	value      string
	optional   bool // a kernel without the file is as good
}

func (g *Group) set(s setting) error {
	dir, ok := g.Unified()
	if !g.V2Only() {
		if dir, ok = g.Of(s.controller); !ok {
			if s.optional {
				return nil
			}
			return fmt.Errorf("linux.resources.%s: there is no %s cgroup here, or none that this user may make", s.field, s.controller)
		}
	}
	if !ok {
		return fmt.Errorf("linux.resources.%s: no cgroup hierarchy", s.field)
	}
	if s.file == memoryLimitV1 || s.file == swapLimitV1 {
		return g.setMemoryV1(dir, s)
	}
	if err := write(dir, s.file, s.value); err != nil && !(s.optional && missing(err)) {
		return fmt.Errorf("linux.resources.%s: %w", s.field, err)
	}
	return nil
}
