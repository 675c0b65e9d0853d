package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// devices that c has beside those that every OCI runtime makes, and the rules of
// its devices cgroup.
func (c Container) devices() ([]specs.LinuxDevice, []specs.LinuxDeviceCgroup, error) {
	if c.Privileged {
		nodes, err := nodesBelow("/dev", "/dev")
		if err != nil {
			return nil, nil, err
		}
		more, _, err := c.asked()
		return append(nodes, more...), []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, err
	}
	nodes, rules, err := c.asked()
	return nodes, slices.Concat(defaultRules(), rules, c.DeviceRules), err
}

// defaultRules deny all but zero, null, urandom, random, tty and console.
func defaultRules() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, n := range [][2]int64{{1, 5}, {1, 3}, {1, 9}, {1, 8}, {5, 0}, {5, 1}} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &n[0], Minor: &n[1], Access: "rwm"})
	}
	return rules
}

// asked finds the nodes of c.Devices.
func (c Container) asked() (nodes []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, err error) {
	for _, d := range c.Devices {
		if d.Path == "" {
			d.Path = d.HostPath
		}
		if d.Access == "" {
			d.Access = "rwm"
		}
		found, err := d.nodes()
		if err != nil {
			return nil, nil, err
		}
		for _, n := range found {
			rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: n.Type, Major: &n.Major, Minor: &n.Minor, Access: d.Access})
		}
		nodes = append(nodes, found...)
	}
	return nodes, rules, nil
}

// nodes is d itself, or where it is a directory, every device below it.
func (d Device) nodes() ([]specs.LinuxDevice, error) {
	host, err := filepath.EvalSymlinks(d.HostPath)
	if err != nil {
		return nil, refuse("error gathering device information while adding custom device %q: no such file or directory", d.HostPath)
	}
	if n, err := node(host, d.Path); err == nil {
		return []specs.LinuxDevice{n}, nil
	}
	found, err := nodesBelow(host, d.Path)
	if err != nil || len(found) == 0 {
		return nil, refuse("error gathering device information while adding custom device %q: not a device node", d.HostPath)
	}
	return found, nil
}

// notDevices are directories of /dev that hold no device of the machine, and
// nodes that each container has of its own.
var notDevices = []string{"pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"}

// nodesBelow lists the device nodes below host as they appear below dest. What
// vanishes meanwhile was never there.
func nodesBelow(host, dest string) ([]specs.LinuxDevice, error) {
	var nodes []specs.LinuxDevice
	err := filepath.WalkDir(host, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if name != host && filepath.Dir(name) == "/dev" && slices.Contains(notDevices, e.Name()) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 {
			return nil
		}
		if n, err := node(name, dest+strings.TrimPrefix(name, host)); err == nil {
			nodes = append(nodes, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the devices below %s: %w", host, err)
	}
	return nodes, nil
}

// node describes the device node name as it is to appear at dest.
func node(name, dest string) (specs.LinuxDevice, error) {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("stat %s: %w", name, err)
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b", unix.S_IFIFO: "p"}[st.Mode&unix.S_IFMT]
	if kind == "" {
		return specs.LinuxDevice{}, refuse("stat %s: not a device node", name)
	}
	mode := os.FileMode(st.Mode &^ unix.S_IFMT)
	return specs.LinuxDevice{
		Path: dest, Type: kind, FileMode: &mode, UID: &st.Uid, GID: &st.Gid,
		Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
	}, nil
}
