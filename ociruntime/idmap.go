package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idmap is the id mapping of a mount.
type idmap struct {
	uids, gids []specs.LinuxIDMapping
	namespace  string // user namespace that has the mapping, in place of both
	recursive  bool
}

// mountIDMap is the mapping that a mount asks for: its own, or the container's.
func (c *compiler) mountIDMap(m specs.Mount, o mountOptions) (*idmap, error) {
	im := &idmap{uids: m.UIDMappings, gids: m.GIDMappings, recursive: o.idmap == "ridmap"}
	if len(im.uids) == 0 && len(im.gids) == 0 {
		im.uids, im.gids = c.linux.UIDMappings, c.linux.GIDMappings
		for _, n := range c.linux.Namespaces {
			if n.Type == specs.UserNamespace && n.Path != "" {
				im.namespace = n.Path
				return im, nil
			}
		}
	}
	if len(im.uids) == 0 || len(im.gids) == 0 {
		return nil, fmt.Errorf("option %s: both uidMappings and gidMappings are needed", o.idmap)
	}
	return im, nil
}

// apply maps the ids of the tree fd (mount_setattr(2), "ID-mapped mounts",
// Linux 5.12). The mapping comes from a user namespace, which a process of its
// own makes and which lives on in the mount.
func (im *idmap) apply(fd int) error {
	var ns *os.File
	var err error
	if im.namespace != "" {
		ns, err = os.Open(im.namespace)
	} else {
		ns, err = userNamespace(im.uids, im.gids)
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	flags := uint(unix.AT_EMPTY_PATH)
	if im.recursive {
		flags |= unix.AT_RECURSIVE
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	return unix.MountSetattr(fd, "", flags, &attr)
}

// mapTree maps the ids of the next of the plan's trees, which is the child's fd.
func (c *child) mapTree(fd int) error {
	f := c.plan.toMap[0]
	c.plan.toMap = c.plan.toMap[1:]
	tree, err := unix.PidfdGetfd(int(c.pidfd.Fd()), fd, 0)
	if err != nil {
		return fmt.Errorf("%s: map the ids of %s: pidfd_getfd: %w", f.Name, f.Path, err)
	}
	defer unix.Close(tree)
	if err := f.IDMap.apply(tree); err != nil {
		return fmt.Errorf("%s: map the ids of %s: %w", f.Name, f.Path, err)
	}
	return c.goOn()
}

// userNamespace makes a user namespace with a mapping: a child is born in it,
// and stopped before it runs anything.
func userNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	pidfd := -1
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, PidFD: &pidfd, Ptrace: true, Pdeathsig: syscall.SIGKILL}
	helpers := needsHelpers(&specs.Linux{UIDMappings: uids, GIDMappings: gids})
	if !helpers {
		attr.UidMappings, attr.GidMappings = sysMap(uids), sysMap(gids)
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"gantry-userns"}, &syscall.ProcAttr{Sys: attr})
	if err != nil {
		return nil, fmt.Errorf("make a user namespace: %w", err)
	}
	c := &child{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd")}
	if helpers {
		err = helpersMap(pid, uids, gids)
	}
	var ns *os.File
	if err == nil {
		ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid))
	}
	return ns, errors.Join(err, c.kill())
}
