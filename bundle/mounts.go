package bundle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
)

const defaultShmSize = 64 << 20

// mounts gives all mounts of c in the order in which they are to be made, and
// the propagation that the root must have for them.
func (c Container) mounts() ([]specs.Mount, string, error) {
	user, err := c.userMounts()
	if err != nil {
		return nil, "", err
	}
	var all []specs.Mount
	for _, m := range c.ownMounts() {
		if !covered(user, m.Destination) {
			all = append(all, m)
		}
	}
	all = append(all, user...)
	for _, f := range c.etcFiles() {
		if !slices.ContainsFunc(user, func(m specs.Mount) bool { return m.Destination == f.Destination }) {
			all = append(all, f)
		}
	}
	propagation, err := rootPropagation(user)
	return all, propagation, err
}

// ownMounts is what every container has.
func (c Container) ownMounts() []specs.Mount {
	access := []string{"ro"}
	if c.Privileged {
		access = nil
	}
	return append([]specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: append([]string{"nosuid", "noexec", "nodev"}, access...)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: append([]string{"nosuid", "noexec", "nodev"}, access...)},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
	}, c.shm()...)
}

func (c Container) shm() []specs.Mount {
	switch {
	case c.ShmPath != "":
		return []specs.Mount{{Destination: "/dev/shm", Type: "bind", Source: c.ShmPath, Options: []string{"rbind", "rprivate"}}}
	case c.ShmSize < 0:
		return nil
	}
	size := c.ShmSize
	if size == 0 {
		size = defaultShmSize
	}
	return []specs.Mount{{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)},
	}}
}

// covered says whether a mount of the user stands in for the own mount at dest:
// at the very place, or at /dev for what lies below it.
func covered(user []specs.Mount, dest string) bool {
	return slices.ContainsFunc(user, func(m specs.Mount) bool {
		return m.Destination == dest || m.Destination == "/dev" && strings.HasPrefix(dest, "/dev/")
	})
}

// userMounts are c.Mounts, the outer before the inner.
func (c Container) userMounts() ([]specs.Mount, error) {
	var user []specs.Mount
	for _, m := range c.Mounts {
		m.Destination = path.Clean(m.Destination)
		if !path.IsAbs(m.Destination) || m.Destination == "/" {
			return nil, refuse("invalid mount path: '%s' mount path must be absolute and not the root", m.Destination)
		}
		if slices.ContainsFunc(user, func(o specs.Mount) bool { return o.Destination == m.Destination }) {
			return nil, refuse("duplicate mount point: %s", m.Destination)
		}
		user = append(user, m)
	}
	if c.Init != "" {
		user = append(user, specs.Mount{Destination: initPath, Type: "bind", Source: c.Init, Options: []string{"bind", "ro"}})
	}
	slices.SortStableFunc(user, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	return user, nil
}

// etcFiles are the three files of the network.
func (c Container) etcFiles() []specs.Mount {
	var files []specs.Mount
	for _, f := range []struct{ source, dest string }{
		{c.EtcResolvConf, "/etc/resolv.conf"},
		{c.EtcHostname, "/etc/hostname"},
		{c.EtcHosts, "/etc/hosts"},
	} {
		if f.source == "" {
			continue
		}
		opts := []string{"rbind", "rprivate"}
		if c.ReadonlyRootfs {
			opts = []string{"rbind", "ro", "rprivate"}
		}
		files = append(files, specs.Mount{Destination: f.dest, Type: "bind", Source: f.source, Options: opts})
	}
	return files
}

// rootPropagation is what the mounts need of the root: a shared mount reaches the
// host only through a shared root, a slave one through a slave root. The source
// must lie on a mount that propagates.
func rootPropagation(mounts []specs.Mount) (string, error) {
	need := ""
	for _, m := range mounts {
		switch {
		case slices.Contains(m.Options, "shared") || slices.Contains(m.Options, "rshared"):
			if err := checkPropagates(m.Source, false); err != nil {
				return "", err
			}
			need = "shared"
		case slices.Contains(m.Options, "slave") || slices.Contains(m.Options, "rslave"):
			if err := checkPropagates(m.Source, true); err != nil {
				return "", err
			}
			if need == "" {
				need = "rslave"
			}
		}
	}
	return need, nil
}

// checkPropagates looks up the mount that source lies on.
func checkPropagates(source string, slaveWillDo bool) error {
	infos, err := mountinfo.GetMounts(mountinfo.ParentsFilter(source))
	if err != nil {
		return fmt.Errorf("find the mount of %s: %w", source, err)
	}
	var on *mountinfo.Info
	for _, i := range infos {
		if on == nil || len(i.Mountpoint) >= len(on.Mountpoint) {
			on = i
		}
	}
	words := "a shared mount"
	if slaveWillDo {
		words = "a shared or slave mount"
	}
	if on == nil {
		return fmt.Errorf("find the mount of %s: %w", source, errdefs.ErrNotFound)
	}
	if strings.Contains(on.Optional, "shared:") || slaveWillDo && strings.Contains(on.Optional, "master:") {
		return nil
	}
	return refuse("path %s is mounted on %s but it is not %s", source, on.Mountpoint, words)
}
