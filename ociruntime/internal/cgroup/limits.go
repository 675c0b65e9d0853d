package cgroup

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"
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
	for _, s := range settings {
		if err := g.set(s); err != nil {
			return err
		}
	}
	return nil
}

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
			return fmt.Errorf("linux.resources.%s: this machine has no %s controller", s.field, s.controller)
		}
	}
	if !ok {
		return fmt.Errorf("linux.resources.%s: no cgroup hierarchy", s.field)
	}
	if s.file == "memory.limit_in_bytes" || s.file == "memory.memsw.limit_in_bytes" {
		return g.setMemoryV1(dir, s)
	}
	if err := write(dir, s.file, s.value); err != nil && !(s.optional && missing(err)) {
		return fmt.Errorf("linux.resources.%s: %w", s.field, err)
	}
	return nil
}
