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

	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/wire"
)

// Type URLs of the two messages.
const (
	typeV1 = "io.containerd.cgroups.v1.Metrics"
	typeV2 = "io.containerd.cgroups.v2.Metrics"
)

// cgroupRoot is where cgroups are mounted on every Linux.
const cgroupRoot = "/sys/fs/cgroup"

// Unified says whether the machine's controllers are all on cgroup v2.
func Unified() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Read reads the cgroups that pid is in. errdefs.ErrNotFound when it has ended.
func Read(pid int) (*taskapi.Any, error) {
	paths, err := Paths(pid)
	if err != nil {
		return nil, err
	}
	if Unified() {
		return &taskapi.Any{TypeURL: typeV2, Value: wire.Marshal(message(group(paths[""]).v2))}, nil
	}
	return &taskapi.Any{TypeURL: typeV1, Value: wire.Marshal(message(groups(paths).v1))}, nil
}

// message is a message that is only encoded.
type message func(c *wire.Codec)

// Fields encodes the message.
func (m message) Fields(c *wire.Codec) { m(c) }

// Paths are the directories of the cgroups that pid is in, by controller; that of
// cgroup v2 has the name "" (cgroups(7), "/proc/pid/cgroup").
func Paths(pid int) (map[string]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("find cgroups of process %d: %w", pid, errdefs.ErrNotFound)
	}
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	paths := map[string]string{}
	for line := range strings.Lines(string(data)) {
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
			mounts[""] = m
			continue
		}
		for o := range strings.SplitSeq(kind[len(kind)-1], ",") {
			mounts[o] = m
		}
	}
	return mounts, nil
}
