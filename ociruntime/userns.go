package ociruntime

import (
	"fmt"
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// firstID is the id by which the child does its work in a new user namespace:
// root, or where the map has no 0, the first that it has.
func firstID(m []specs.LinuxIDMapping) int {
	least := 0
	for i, e := range m {
		if e.ContainerID == 0 {
			return 0
		}
		if i == 0 || int(e.ContainerID) < least {
			least = int(e.ContainerID)
		}
	}
	return least
}

// hostID is what id is outside of the user namespace, and -1 (as chown(2) has
// it: no change) where it is not mapped. Without a map it is what it is.
func hostID(id uint32, m []specs.LinuxIDMapping) uint32 {
	if len(m) == 0 {
		return id
	}
	for _, e := range m {
		if id >= e.ContainerID && id-e.ContainerID < e.Size {
			return e.HostID + id - e.ContainerID
		}
	}
	return math.MaxUint32
}

// containerID is the id in a user namespace of one outside, if that has any.
func containerID(id uint32, m []specs.LinuxIDMapping) (inside uint32, ok bool) {
	for _, e := range m {
		if id >= e.HostID && id-e.HostID < e.Size {
			return e.ContainerID + id - e.HostID, true
		}
	}
	return 0, false
}

// allCaps are the capabilities that a process has who makes a user namespace. An
// execve as another than root keeps them only as ambient ones.
func allCaps(last int) []uintptr {
	list := make([]uintptr, last+1)
	for i := range list {
		list[i] = uintptr(i)
	}
	return list
}

// raiseLimits sets process.rlimits of a child in a user namespace, who may not
// raise them: CAP_SYS_RESOURCE is wanted in the host's.
func (c *child) raiseLimits(limits []specs.POSIXRlimit) error {
	for i, r := range limits {
		err := unix.Prlimit(c.pid, rlimitNumber[r.Type], &unix.Rlimit{Cur: r.Soft, Max: r.Hard}, nil)
		if err != nil {
			return fmt.Errorf("process.rlimits[%d]: set %s to soft %d hard %d: %w", i, r.Type, r.Soft, r.Hard, err)
		}
	}
	return nil
}
