package ociruntime

import (
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A container without a mount namespace has its mounts in the runtime's
// (runtime-spec, config-linux, "Namespaces": what is not named is inherited).
// They all lie on one mount, which covers the rootfs and with which they go:
// chroot(2) is what is left to put a process there.

// mountID is the mount on which a path leads to (statx(2)).
func mountID(path string) (uint64, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("find the mount of %s: %w", path, err)
	}
	return st.Mnt_id, nil
}

// hostMounts notes what lies at the rootfs before the container's mounts do.
func (r *record) hostMounts(l *specs.Linux) (err error) {
	if namespaceFlags(l)&unix.CLONE_NEWNS == 0 {
		r.Covered, err = mountID(r.Rootfs)
	}
	return err
}

// uncover takes the container's mounts off the rootfs, when they are there.
func (r *record) uncover() error {
	if r.Covered == 0 {
		return nil
	}
	id, err := mountID(r.Rootfs)
	if err != nil || id == r.Covered {
		return nil // nothing of ours is there
	}
	if err := unix.Unmount(r.Rootfs, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w", r.Rootfs, err)
	}
	return nil
}

// containerRoot is the name of the directory that the processes of a container
// without a mount namespace have for their root.
const containerRoot = "container's root"

// openRoot opens the root of process pid.
func openRoot(pid int) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("open the container's root", err)
	}
	return fd, nil
}

// enterRootOf makes the root of a container that is there the child's.
func (c *compiler) enterRootOf() {
	c.stage("enter the container's root", "")
	c.call("fchdir", c.file(File{Name: containerRoot}))
	c.call("chroot", str("."))
	c.call("chdir", str("/"))
}
