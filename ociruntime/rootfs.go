package ociruntime

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// procfs is a procfs of the container's namespaces that no process of it could
// have changed (CVE-2025-52881).
func (c *compiler) procfs() Arg {
	if c.inside {
		return c.file(File{Name: "procfs", Call: "open", Path: "/proc", Flags: unix.O_PATH | unix.O_DIRECTORY, Magic: unix.PROC_SUPER_MAGIC})
	}
	if c.proc == 0 {
		c.proc = c.newFilesystem("proc", "proc", nil, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	}
	return reg(c.proc)
}

// writeProc writes a file of procfs.
func (c *compiler) writeProc(name, value string) {
	h, size := how(unix.O_WRONLY|unix.O_CLOEXEC, 0, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV|unix.RESOLVE_NO_MAGICLINKS)
	fd := c.open("openat2", c.procfs(), str(name), h, size)
	c.call("write", reg(fd), str(value), num(len(value))).Min = int64(len(value))
	c.call("close", reg(fd))
}

// sysctls sets linux.sysctl.
func (c *compiler) sysctls() error {
	keys := make([]string, 0, len(c.linux.Sysctl))
	for k := range c.linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := c.checkSysctl(k); err != nil {
			return err
		}
		c.stage("set sysctl "+k+" to", c.linux.Sysctl[k])
		c.writeProc("sys/"+sysctlPath(k), c.linux.Sysctl[k])
	}
	return nil
}

// sysctlPath is the file of a sysctl: dots part its name, unless slashes do, as
// in net/ipv4/conf/eth0.1/forwarding (sysctl.d(5)).
func sysctlPath(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '/' {
		return key
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

// ipcSysctls belong to the ipc namespace.
var ipcSysctls = []string{
	"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall",
	"kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
}

// checkSysctl refuses what is not the container's own: the host's would change.
func (c *compiler) checkSysctl(key string) error {
	p := path.Clean(sysctlPath(key))
	kind := specs.LinuxNamespaceType("")
	switch {
	case strings.HasPrefix(p, "../") || strings.Contains(key, "\x00"):
		return fmt.Errorf("linux.sysctl: %q is not a sysctl", key)
	case slices.Contains(ipcSysctls, p), strings.HasPrefix(p, "fs/mqueue/"):
		kind = specs.IPCNamespace
	case strings.HasPrefix(p, "net/"):
		kind = specs.NetworkNamespace
	case p == "kernel/domainname", p == "kernel/hostname":
		kind = specs.UTSNamespace
	case strings.HasPrefix(p, "user/"):
		kind = specs.UserNamespace
	}
	if kind == "" {
		return fmt.Errorf("linux.sysctl: %q is not in a separate kernel namespace", key)
	}
	if !c.has(kind) {
		return fmt.Errorf("linux.sysctl: %q needs a separate %s namespace", key, kind)
	}
	return nil
}

// enterRoot makes the rootfs the root and drops the host's tree
// (pivot_root(2), "pivot_root(".", ".")").
func (c *compiler) enterRoot() error {
	c.stage("enter the rootfs", c.Rootfs)
	c.call("fchdir", c.root)
	switch {
	case !c.has(specs.MountNamespace):
		c.call("chroot", str("."))
	case c.NoPivot:
		// The host's tree stays below. With a whole procfs or sysfs in it the kernel
		// would let any user namespace in the container mount another, without masks.
		for _, p := range c.Revealing {
			c.hideBelow(p)
		}
		c.call("fchdir", c.root)
		c.call("mount", str("."), str("/"), null(), named(unix.MS_MOVE, "MS_MOVE"), null())
		c.call("chroot", str("."))
	default:
		c.call("pivot_root", str("."), str("."))
		c.call("umount2", str("."), named(unix.MNT_DETACH, "MNT_DETACH"))
	}
	c.call("chdir", str("/"))
	if p, ok := propagationOptions[c.linux.RootfsPropagation]; ok && p.attr.Propagation != unix.MS_PRIVATE {
		flags := p.attr.Propagation
		if p.recursive {
			flags |= unix.MS_REC
		}
		c.stage("set rootfsPropagation", c.linux.RootfsPropagation)
		c.call("mount", null(), str("/"), null(), named(flags, "MS_"+strings.ToUpper(c.linux.RootfsPropagation)), null())
	}
	return c.makeReadonly()
}

// hideBelow takes a mount of the host out of the child's namespace, or covers it.
func (c *compiler) hideBelow(p string) {
	busy, done := c.label(), c.label()
	c.stage("hide the host's", p)
	c.call("umount2", str(p), named(unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW, "MNT_DETACH|UMOUNT_NOFOLLOW")).goTo(done).orElse(busy, unix.EINVAL, unix.EPERM)
	c.mark(busy)
	c.call("mount", str("tmpfs"), str(p), str("tmpfs"), num(0), null()).fine(unix.ENOENT, unix.ENOTDIR)
	c.mark(done)
	c.stage("enter the rootfs", c.Rootfs)
}

// makeReadonly is process.cwd made, /dev and the root made read-only, in that
// order: all of them wrote until now.
func (c *compiler) makeReadonly() error {
	if dir := path.Clean(c.process.Cwd); dir != "/" {
		c.stage("make the working directory", dir)
		c.at(dir, true, 0)
	}
	for _, m := range c.spec.Mounts {
		if path.Clean(m.Destination) == "/dev" && !slices.Contains(m.Options, "bind") && !slices.Contains(m.Options, "rbind") {
			if o, _ := parseMountOptions(m); o.attr.Attr_set&unix.MOUNT_ATTR_RDONLY != 0 {
				c.stage("make read-only", "/dev")
				c.setAttr(c.at("/dev", true, 0), treeAttr{attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}})
			}
		}
	}
	if c.spec.Root.Readonly {
		c.stage("make read-only", "/")
		c.setAttr(c.root, treeAttr{attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}})
	}
	return nil
}

// hidePaths makes linux.readonlyPaths read-only and covers linux.maskedPaths.
func (c *compiler) hidePaths() error {
	for _, p := range c.linux.ReadonlyPaths {
		c.readonlyPath(p)
	}
	if len(c.linux.MaskedPaths) == 0 {
		return nil
	}
	// What covers a file is the host's /dev/null and never the container's,
	// which could be anything (CVE-2025-31133).
	null := c.file(File{Name: "mask for files", Call: "open_tree", Path: "/dev/null", Flags: treeFlags, Device: nullDevice, Attrs: []treeAttr{
		{attr: unix.MountAttr{Propagation: unix.MS_PRIVATE}},
	}})
	// Only a mount that is attached can be copied (before Linux 6.15), so both
	// masks lie on the root, where no path leads, as long as they are copied.
	c.stage("make the masks", "")
	masks := c.newFilesystem("tmpfs", "tmpfs", []string{"nr_blocks=1", "nr_inodes=8", "mode=755"}, 0)
	c.attach(reg(masks), c.root)
	c.call("mkdirat", reg(masks), str("empty"), octal(0o755))
	c.call("mknodat", reg(masks), str("null"), named(unix.S_IFREG|0o600, "S_IFREG|0600"), num(0))
	c.call("move_mount", null, str(""), reg(masks), str("null"), named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
	c.setAttr(reg(masks), treeAttr{attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}})
	masked := map[string]bool{}
	for _, p := range c.linux.MaskedPaths {
		if p = path.Clean(p); !masked[p] {
			masked[p] = true
			c.maskPath(p, reg(masks))
		}
	}
	c.stage("put the masks away", "")
	c.call("fchdir", reg(masks))
	c.call("umount2", str("."), named(unix.MNT_DETACH, "MNT_DETACH"))
	c.call("chdir", str("/"))
	return nil
}

// nullDevice is the number of the null device, 1:3.
const nullDevice = 1<<8 | 3

// readonlyPath puts a read-only copy of the mount tree at p onto p.
func (c *compiler) readonlyPath(p string) {
	done := c.label()
	c.stage("make read-only", p)
	target := c.inRoot(p, done)
	tree := c.open("open_tree", target, str(""), named(treeFlags|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "CLONE|CLOEXEC|AT_EMPTY_PATH|AT_RECURSIVE"))
	c.setAttr(reg(tree), treeAttr{attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}})
	c.attach(reg(tree), target)
	c.call("close", reg(tree))
	c.mark(done)
}

// maskPath covers p: a file with the null device, a directory with an empty
// filesystem. What is not there needs no mask.
func (c *compiler) maskPath(p string, masks Arg) {
	done, dir := c.label(), c.label()
	c.stage("mask", p)
	target := c.inRoot(p, done)
	clone := func(name string) Reg {
		return c.open("open_tree", masks, str(name), named(treeFlags, "CLONE|CLOEXEC"))
	}
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	c.call("move_mount", reg(clone("null")), str(""), target, str(""), named(flags, "F_EMPTY_PATH|T_EMPTY_PATH")).goTo(done).orElse(dir, unix.ENOTDIR, unix.EINVAL)
	c.mark(dir)
	c.attach(reg(clone("empty")), target)
	c.mark(done)
}

// inRoot opens p in the container's root; when it is not there the table goes
// on at absent.
func (c *compiler) inRoot(p string, absent label) Arg {
	h, size := how(unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	s := c.call("openat2", c.root, str(strings.TrimPrefix(path.Clean("/"+p), "/")), h, size).orElse(absent, unix.ENOENT, unix.ENOTDIR)
	s.Out = c.reg()
	return reg(s.Out)
}
