package ociruntime

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime/internal/netdev"
)

// validateNetDevices checks linux.netDevices: who moves a device needs a
// namespace to move it to.
func validateNetDevices(l *specs.Linux) error {
	if len(l.NetDevices) > 0 && namespaceFlags(l)&unix.CLONE_NEWNET == 0 {
		return errors.New("linux.netDevices: it needs a network namespace in linux.namespaces")
	}
	for host, d := range l.NetDevices {
		for _, name := range []string{host, nameInside(host, d)} {
			ok := name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/: \t\n\x00")
			if !ok {
				return fmt.Errorf("linux.netDevices: %q is no name of a network device", name)
			}
		}
		if strings.Contains(strings.Replace(d.Name, "%d", "", 1), "%") {
			return fmt.Errorf("linux.netDevices: %q: of %% one %%d is allowed", d.Name)
		}
	}
	return nil
}

// nameInside is what a device of the host is called in the container.
func nameInside(host string, d specs.LinuxNetDevice) string {
	if d.Name != "" {
		return d.Name
	}
	return host
}

// tellNetDevices puts the moves into the plan.
func (c *compiler) tellNetDevices() {
	for _, host := range slices.Sorted(maps.Keys(c.linux.NetDevices)) {
		c.aside("moves network device %s into the container as %s", host, nameInside(host, c.linux.NetDevices[host]))
	}
}

// moveNetDevices moves linux.netDevices to where the child is.
func (c *child) moveNetDevices(l *specs.Linux) error {
	if len(l.NetDevices) == 0 {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.pid))
	if err != nil {
		return fmt.Errorf("linux.netDevices: %w", err)
	}
	defer ns.Close()
	for _, host := range slices.Sorted(maps.Keys(l.NetDevices)) {
		if err := netdev.Move(ns, host, nameInside(host, l.NetDevices[host])); err != nil {
			return fmt.Errorf("linux.netDevices: move %s into the container: %w", host, err)
		}
	}
	return nil
}
