package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/criu"
)

// What a container has of the host is not in a checkpoint: it has a name there,
// and restore says what it is then. The names are those of runc.
const (
	descriptorsFile = "descriptors.json" // beside CRIU's images: what the standard streams were
	maskedFile      = "/dev/null"
	maskedDir       = "masked directory" // runc has a filesystem each in their place, which CRIU writes
)

// namespaceName is the name of a namespace that was given by path. CRIU can leave
// out these two; it has the processes join others.
var namespaceName = map[specs.LinuxNamespaceType]string{
	specs.NetworkNamespace: "extRootNetNS",
	specs.PIDNamespace:     "extRootPidNS",
}

// criuName is what CRIU calls a kind of namespace.
var criuName = map[specs.LinuxNamespaceType]string{
	specs.NetworkNamespace: "net",
	specs.PIDNamespace:     "pid",
	specs.MountNamespace:   "mnt",
	specs.IPCNamespace:     "ipc",
	specs.UTSNamespace:     "uts",
	specs.UserNamespace:    "user",
	specs.TimeNamespace:    "time",
}

// externalNamespaces names those that were given by path.
func (c *Container) externalNamespaces(spec *specs.Spec) (list []string, err error) {
	for _, n := range spec.Linux.Namespaces {
		name, ok := namespaceName[n.Type]
		if n.Path == "" || !ok {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", c.Pid, criuName[n.Type]), &st); err != nil {
			return nil, fmt.Errorf("checkpoint: %s namespace: %w", n.Type, err)
		}
		list = append(list, fmt.Sprintf("%s[%d]:%s", criuName[n.Type], st.Ino, name))
	}
	return list, nil
}

// dumpExternals names the mounts and streams that are the host's.
func (c *Container) dumpExternals(o *criu.Options, spec *specs.Spec, images string) error {
	binds, err := bindMounts(spec, c.rec.Bundle, c.rec.Rootfs)
	if err != nil {
		return err
	}
	for _, b := range binds {
		o.Mounts = append(o.Mounts, criu.External{Key: b.Key, Value: b.Key})
	}
	mounts, err := mountsOf(c.Pid)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		switch {
		case m.fstype == "cgroup" || m.fstype == "cgroup2":
			o.Mounts = append(o.Mounts, criu.External{Key: m.at, Value: m.at})
		case !slices.ContainsFunc(spec.Linux.MaskedPaths, func(p string) bool { return path.Clean(p) == m.at }):
		case path.Base(m.root) == "null":
			o.Mounts = append(o.Mounts, criu.External{Key: m.at, Value: maskedFile})
		default:
			o.Mounts = append(o.Mounts, criu.External{Key: m.at, Value: maskedDir})
		}
	}
	names, err := streamNames(c.Pid, mounts)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "file[") {
			o.External = append(o.External, n)
		}
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, descriptorsFile), data, 0o600)
}

// bindMounts are the mounts that the spec takes from the host: where they are in
// the container, and what they show.
func bindMounts(spec *specs.Spec, bundle, rootfs string) (list []criu.External, err error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root.path %s: %w", rootfs, err)
	}
	defer unix.Close(root)
	for _, m := range spec.Mounts {
		o, err := parseMountOptions(m)
		if err != nil {
			return nil, err
		}
		if !o.bind || o.remount {
			continue
		}
		at, err := followLinks(root, m.Destination)
		if err != nil {
			return nil, err
		}
		// CRIU keeps "mnt[KEY]:VALUE" as one text: a key must not end it early.
		if at == "/" || strings.Contains(at, "]:") {
			return nil, errs.Because(errdefs.ErrInvalidArgument, "criu: invalid external mount destination %q", at)
		}
		src := m.Source
		if !filepath.IsAbs(src) {
			src = filepath.Join(bundle, src)
		}
		list = append(list, criu.External{Key: at, Value: src})
	}
	if namespaceFlags(spec.Linux)&unix.CLONE_NEWUSER != 0 { // its root may make no devices: they are the host's
		for _, n := range defaultNodes() {
			list = append(list, criu.External{Key: n.path, Value: n.path})
		}
		for _, d := range spec.Linux.Devices {
			list = append(list, criu.External{Key: path.Clean(d.Path), Value: d.Path})
		}
	}
	return list, nil
}

// mountPoint is a mount of a process (proc_pid_mountinfo(5)).
type mountPoint struct{ id, root, at, fstype string }

func mountsOf(pid int) (list []mountPoint, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of %d: %w", pid, err)
	}
	for line := range strings.Lines(string(info)) {
		before, after, _ := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) >= 5 && len(a) >= 1 {
			list = append(list, mountPoint{b[0], octalEscapes.Replace(b[3]), octalEscapes.Replace(b[4]), a[0]})
		}
	}
	return list, nil
}

// streamNames are what the standard streams are: "pipe:[INODE]", whose other end is
// another's, or "file[MOUNT:INODE]", one of the host's. At a restore the new
// streams come in their place. Any other is the container's own.
func streamNames(pid int, mounts []mountPoint) (names [3]string, err error) {
	for fd := range names {
		link := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
		name, err := os.Readlink(link)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed
		}
		if err != nil {
			return names, fmt.Errorf("read the standard streams: %w", err)
		}
		names[fd] = name
		if !path.IsAbs(name) {
			continue
		}
		id, ino, err := describeFile(pid, fd)
		if err != nil {
			return names, err
		}
		if !slices.ContainsFunc(mounts, func(m mountPoint) bool { return m.id == fmt.Sprint(id) }) {
			names[fd] = fmt.Sprintf("file[%x:%x]", id, ino)
		}
	}
	return names, nil
}

// describeFile is the mount that a file was opened on (proc_pid_fdinfo(5)), and
// its inode.
func describeFile(pid, fd int) (mount int, inode uint64, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, 0, fmt.Errorf("read the standard streams: %w", err)
	}
	_, rest, _ := strings.Cut(string(info), "mnt_id:")
	if _, err := fmt.Sscan(rest, &mount); err != nil {
		return 0, 0, fmt.Errorf("read the standard streams: find mnt_id: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd), &st); err != nil {
		return 0, 0, fmt.Errorf("read the standard streams: %w", err)
	}
	return mount, st.Ino, nil
}

// inheritStreams gives the caller's streams in the place of what is not the container's.
func inheritStreams(images string) (list []criu.InheritFd, err error) {
	data, err := os.ReadFile(filepath.Join(images, descriptorsFile))
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return nil, fmt.Errorf("restore: parse %s: %w", descriptorsFile, err)
	}
	for fd, name := range names[:min(len(names), 3)] {
		ours := strings.HasPrefix(name, "pipe:") || strings.HasPrefix(name, "file[")
		if ours && !slices.Contains(names[:fd], name) {
			list = append(list, criu.InheritFd{Name: name, FD: int32(fd)})
		}
	}
	return list, nil
}
