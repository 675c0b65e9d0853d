// Package metrics reads what the cgroups of a container have counted, and
// encodes it as containerd's clients expect: io.containerd.cgroups.v1.Metrics
// where the controllers are on cgroup v1, io.containerd.cgroups.v2.Metrics where
// they are unified.
package metrics

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// Type URLs of the two messages.
const (
	typeV1 = "io.containerd.cgroups.v1.Metrics"
	typeV2 = "io.containerd.cgroups.v2.Metrics"
)

// cgroupRoot is where cgroups are mounted on every Linux.
const cgroupRoot = "/sys/fs/cgroup"

// unified says whether the machine's controllers are all on cgroup v2.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Cgroups are the cgroups of one container.
type Cgroups struct {
	lines string // of /proc/PID/cgroup
}

// Fields lists the fields of Cgroups, for a process that takes over.
func (c *Cgroups) Fields(w *wire.Codec) { w.String(1, &c.lines) }

// Of finds the cgroups that pid is in. errdefs.ErrNotFound when it has ended.
func Of(pid int) (*Cgroups, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("find cgroups of process %d: %w", pid, errdefs.ErrNotFound)
	}
	return &Cgroups{string(data)}, nil
}

// Read reads what the cgroups have counted.
func (c *Cgroups) Read() (*taskapi.Any, error) {
	paths, err := c.paths()
	if err != nil {
		return nil, err
	}
	if unified() {
		return &taskapi.Any{TypeURL: typeV2, Value: wire.Marshal(message(paths.of(unifiedName).v2))}, nil
	}
	return &taskapi.Any{TypeURL: typeV1, Value: wire.Marshal(message(paths.v1))}, nil
}

// message is a message that is only encoded.
type message func(c *wire.Codec)

// Fields encodes the message.
func (m message) Fields(c *wire.Codec) { m(c) }

// unifiedName is the name that the hierarchy of cgroup v2 has among groups.
const unifiedName = ""

// paths are the directories of the cgroups (cgroups(7), "/proc/pid/cgroup").
func (c *Cgroups) paths() (groups, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	paths := groups{}
	for line := range strings.Lines(c.lines) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for name := range strings.SplitSeq(f[1], ",") {
			if m, ok := mounts[name]; ok {
				paths[name] = m.dir(f[2])
			}
		}
	}
	return paths, nil
}

// mountPoint is a mount of a cgroup hierarchy, or of a part of it.
type mountPoint struct{ root, at string }

// dir is where the cgroup path is to be seen.
func (m mountPoint) dir(path string) string {
	return filepath.Join(m.at, strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/")))
}

// mountPoints are the cgroup hierarchies by controller (proc_pid_mountinfo(5)):
//
//	36 35 0:30 / /sys/fs/cgroup/cpu,cpuacct rw … shared:15 - cgroup cgroup rw,cpu,cpuacct
func mountPoints() (map[string]mountPoint, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroup mounts: %w", err)
	}
	mounts := map[string]mountPoint{}
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - cgroup")
		if !ok {
			continue
		}
		f, kind := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(kind) < 2 {
			continue
		}
		m := mountPoint{root: f[3], at: f[4]}
		if kind[0] == "2" {
			mounts[unifiedName] = m
			continue
		}
		for o := range strings.SplitSeq(kind[len(kind)-1], ",") {
			mounts[o] = m
		}
	}
	return mounts, nil
}
