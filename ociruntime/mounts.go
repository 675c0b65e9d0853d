package ociruntime

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mounts builds the tree below the rootfs, which it first makes a mount of its
// own so that it can become the root.
func (c *compiler) mounts() error {
	if c.has(specs.MountNamespace) {
		c.stage(privateMounts, "/")
		c.call("mount", null(), str("/"), null(), named(unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"), null())
	} else if c.Rootless {
		return errors.New("linux.namespaces: an ordinary user needs a mount namespace")
	}
	propagation := uint64(unix.MS_PRIVATE)
	if strings.HasSuffix(c.linux.RootfsPropagation, "slave") {
		propagation = unix.MS_SLAVE // of the mount that the rootfs lies on, if that is shared
	}
	c.root = c.file(File{
		Name: "rootfs", Call: "open_tree", Path: c.Rootfs, Flags: treeFlags | unix.AT_RECURSIVE,
		Attrs: []treeAttr{{attr: unix.MountAttr{Propagation: propagation}, recursive: true}},
	})
	c.stage("mount the rootfs", c.Rootfs)
	emptyPath := named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH")
	done, denied := c.label(), c.label()
	c.call("move_mount", c.root, str(""), cwd(), str(c.Rootfs), emptyPath).goTo(done).orElse(denied, unix.EACCES)
	c.mark(denied)
	// The root of a user namespace may not pass all directories above the rootfs.
	c.call("move_mount", c.root, str(""), cwd(), str("/"), emptyPath)
	c.mark(done)

	for i, m := range c.spec.Mounts {
		if err := c.mount(m, c.spec.Mounts[:i]); err != nil {
			return fmt.Errorf("mounts[%d] on %s: %w", i, m.Destination, err)
		}
	}
	return nil
}

// privateMounts is the name of the first step that changes a mount.
const privateMounts = "keep mounts from the host"

// treeFlags make a detached copy of a mount.
const treeFlags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC

// mount makes one mount of the spec, after the earlier ones.
func (c *compiler) mount(m specs.Mount, earlier []specs.Mount) error {
	o, err := parseMountOptions(m)
	if err != nil {
		return err
	}
	dest := c.destination(m.Destination)
	if err := checkProcMount(dest, m); err != nil {
		return err
	}
	name := m.Type
	if o.bind {
		name = m.Source
	}
	c.stage("mount "+name+" on", dest)
	switch {
	case o.remount:
		return c.remount(dest, o)
	case o.bind:
		return c.bind(m, o, dest, earlier)
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroup(o, dest)
	}
	return c.filesystem(m, o, dest, earlier)
}

// destination is where in the rootfs a mount goes, without the slash. Its
// symlinks are followed by the kernel, inside the rootfs.
func (c *compiler) destination(dest string) string {
	dest = inRootfs(c.Rootfs, dest)
	if moved, ok := c.Moved[dest]; ok {
		dest = moved
	}
	return dest
}

// resolveFor refuses links on the way to /proc and /sys, whatever is mounted
// there: what is written and hidden by these names must be in it (CVE-2023-28642).
func resolveFor(dest string) uint64 {
	if dest == "/proc" || dest == "/sys" {
		return unix.RESOLVE_NO_SYMLINKS
	}
	return 0
}

// rootPropagation is linux.rootfsPropagation for mounts made inside.
func (c *compiler) rootPropagation() uint64 {
	if p, ok := propagationOptions[c.linux.RootfsPropagation]; ok {
		return p.attr.Propagation
	}
	return unix.MS_SLAVE
}

// filesystem makes a new filesystem, or a new view of one, in the child's
// namespaces.
func (c *compiler) filesystem(m specs.Mount, o mountOptions, dest string, earlier []specs.Mount) error {
	mode, inRootfs := c.Mode[dest]
	hasMode := slices.ContainsFunc(o.data, func(s string) bool { return strings.HasPrefix(s, "mode=") })
	if m.Type == "tmpfs" && inRootfs && !hasMode {
		o.data = append(o.data, fmt.Sprintf("mode=%o", mode))
	}
	if c.mountLabel() != "" && (m.Type == "tmpfs" || m.Type == "devpts") {
		o.data = append(o.data, "context="+c.mountLabel())
	}
	if dest == "/dev" {
		// Devices are made in it first; enterRoot makes it read-only.
		o.attr.Attr_set &^= unix.MOUNT_ATTR_RDONLY
	}
	if o.copyUp {
		tree, err := c.tmpcopyup(m, o, dest, earlier)
		if err != nil {
			return err
		}
		c.attach(tree, c.at(dest, true, 0))
		return nil
	}
	tree := c.newFilesystem(m.Type, m.Source, o.data, o.attr.Attr_set)
	if m.Type == "proc" && c.proc == 0 {
		c.proc = tree
	}
	resolve := resolveFor(dest)
	if m.Type == "proc" || m.Type == "sysfs" {
		resolve = unix.RESOLVE_NO_SYMLINKS // CVE-2019-19921, CVE-2023-27561
	}
	if c.mountLabel() != "" && m.Type == "mqueue" {
		c.labelRoot(tree)
	}
	target := c.at(dest, true, resolve)
	c.attach(reg(tree), target)
	for _, p := range o.propagation {
		c.setAttr(reg(tree), p)
	}
	if o.rec.Attr_set|o.rec.Attr_clr != 0 {
		c.setAttr(reg(tree), treeAttr{attr: o.rec, recursive: true})
	}
	return nil
}

// labelRoot labels the root of a filesystem that takes no context: that of the
// queues is the namespace's, which is there before it is mounted.
func (c *compiler) labelRoot(tree Reg) {
	label := c.mountLabel()
	dir := c.open("openat", reg(tree), str("."), named(unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"), num(0))
	c.call("fsetxattr", reg(dir), str("security.selinux"), str(label), num(len(label)), num(0))
	c.call("close", reg(dir))
}

// newFilesystem is fsopen(2) to fsmount(2): a mount that is not attached yet.
func (c *compiler) newFilesystem(fstype, source string, data []string, attrs uint64) Reg {
	const (
		setFlag   = 0
		setString = 1
		create    = 6
	)
	fs := c.open("fsopen", str(fstype), named(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC"))
	if source != "" {
		c.call("fsconfig", reg(fs), named(setString, "SET_STRING"), str("source"), str(source), num(0))
	}
	name := c.name
	for _, d := range data {
		// The kernel does not say which it refuses.
		c.name = strings.TrimSuffix(name, " on") + " with " + d + " on"
		if key, value, ok := strings.Cut(d, "="); ok {
			c.call("fsconfig", reg(fs), named(setString, "SET_STRING"), str(key), str(value), num(0))
		} else {
			c.call("fsconfig", reg(fs), named(setFlag, "SET_FLAG"), str(d), null(), num(0))
		}
	}
	c.name = name
	c.call("fsconfig", reg(fs), named(create, "CMD_CREATE"), null(), null(), num(0))
	tree := c.open("fsmount", reg(fs), named(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), attrArg(attrs))
	c.call("close", reg(fs))
	return tree
}

func attrArg(attrs uint64) Arg {
	if attrs == 0 {
		return num(0)
	}
	return named(attrs, strings.Join(flagNames(attrs, mountAttrs), "|"))
}

// attach puts a detached mount on a place that is open.
func (c *compiler) attach(tree, target Arg) {
	const flags = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	c.call("move_mount", tree, str(""), target, str(""), named(flags, "F_EMPTY_PATH|T_EMPTY_PATH"))
}

// setAttr changes a mount of the child.
func (c *compiler) setAttr(tree Arg, a treeAttr) {
	c.call("mount_setattr", tree, str(""), setattrFlags(a), attrStruct(a), num(unix.MOUNT_ATTR_SIZE_VER0))
}

func setattrFlags(a treeAttr) Arg {
	if a.recursive {
		return named(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE")
	}
	return named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
}

func attrStruct(a treeAttr) Arg {
	text := strings.TrimSuffix(strings.TrimPrefix(describeAttr(treeAttr{attr: a.attr}), "mount_setattr("), ")")
	return words("{"+strings.TrimSpace(text)+"}", a.attr.Attr_set, a.attr.Attr_clr, a.attr.Propagation, a.attr.Userns_fd)
}

// remount changes the attributes of a mount that the rootfs or an earlier
// entry brought.
func (c *compiler) remount(dest string, o mountOptions) error {
	target := c.at(dest, true, 0)
	if o.attr.Attr_set|o.attr.Attr_clr != 0 {
		c.setAttr(target, treeAttr{attr: o.attr})
	}
	for _, p := range o.propagation {
		c.setAttr(target, p)
	}
	return nil
}

// at opens the place dest in the rootfs, and makes it when it is not there: a
// directory, or a file for a bind mount of something else. The kernel resolves
// every path inside the rootfs, whatever symlinks it holds and however another
// process changes them meanwhile (CVE-2021-30465).
func (c *compiler) at(dest string, dir bool, resolve uint64) Arg {
	return c.place(dest, 0, resolve, c.maker(dir))
}

// maker makes a directory, or a file.
func (c *compiler) maker(dir bool) func(parent Arg, name string) {
	if dir {
		return func(parent Arg, name string) { c.makeDir(parent, name) }
	}
	return func(parent Arg, name string) { c.makeFile(parent, name) }
}

func (c *compiler) makeDir(parent Arg, name string) *Step {
	return c.call("mkdirat", parent, str(name), octal(0o755)).fine(unix.EEXIST)
}

func (c *compiler) makeFile(parent Arg, name string) *Step {
	return c.call("mknodat", parent, str(name), named(unix.S_IFREG|0o644, "S_IFREG|0644"), num(0)).fine(unix.EEXIST)
}

// place is at, with flags to open the place and with what makes it.
func (c *compiler) place(dest string, flags int, resolve uint64, make func(parent Arg, name string)) Arg {
	if dest == "/" {
		return c.root
	}
	rel := dest[1:]
	done, missing := c.label(), c.label()
	r := c.reg()
	look := func() *Step {
		h, size := how(flags|unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|resolve)
		s := c.call("openat2", c.root, str(rel), h, size)
		s.Out = r
		return s
	}
	look().goTo(done).orElse(missing, unix.ENOENT)
	c.mark(missing)
	c.makeParents(rel)
	make(c.parent(rel))
	look()
	c.mark(done)
	return reg(r)
}

// makeParents makes the directories above rel.
func (c *compiler) makeParents(rel string) {
	parts := strings.Split(rel, "/")
	for i := 1; i < len(parts); i++ {
		parent, name := c.parent(strings.Join(parts[:i], "/"))
		c.makeDir(parent, name)
	}
}

// parent opens the directory of rel.
func (c *compiler) parent(rel string) (dir Arg, name string) {
	d, name := path.Split(rel)
	if d == "" {
		return c.root, name
	}
	h, size := how(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	return reg(c.open("openat2", c.root, str(strings.TrimSuffix(d, "/")), h, size)), name
}

// mountLabel is linux.mountLabel where it means something.
func (c *compiler) mountLabel() string {
	if c.NoSELinux {
		return ""
	}
	return c.linux.MountLabel
}

// cgroup shows the container's own groups: one directory for each v1 hierarchy
// in a tmpfs, or the v2 group itself.
func (c *compiler) cgroup(o mountOptions, dest string) error {
	if len(c.CgroupMounts) == 1 && c.CgroupMounts[0].Name == "" {
		tree := c.file(c.cgroupTree(c.CgroupMounts[0].Path, o))
		c.attach(tree, c.at(dest, true, 0))
		return nil
	}
	data := []string{"mode=755"}
	if c.mountLabel() != "" {
		data = append(data, "context="+c.mountLabel())
	}
	dir := c.newFilesystem("tmpfs", "cgroup", data, o.attr.Attr_set&^unix.MOUNT_ATTR_RDONLY)
	c.attach(reg(dir), c.at(dest, true, 0))
	for _, g := range c.CgroupMounts {
		tree := c.file(c.cgroupTree(g.Path, o))
		c.call("mkdirat", reg(dir), str(g.Name), octal(0o755))
		c.call("move_mount", tree, str(""), reg(dir), str(g.Name), named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
		for _, l := range g.Links {
			c.call("symlinkat", str(g.Name), reg(dir), str(l)).fine(unix.EEXIST)
		}
	}
	if o.attr.Attr_set&unix.MOUNT_ATTR_RDONLY != 0 {
		c.setAttr(reg(dir), treeAttr{attr: unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}})
	}
	return nil
}

func (c *compiler) cgroupTree(group string, o mountOptions) File {
	f := File{Name: "cgroup", Call: "open_tree", Path: group, Flags: treeFlags}
	f.Attrs = append(f.Attrs, treeAttr{attr: unix.MountAttr{Propagation: unix.MS_PRIVATE}})
	if o.attr.Attr_set|o.attr.Attr_clr != 0 {
		f.Attrs = append(f.Attrs, treeAttr{attr: o.attr})
	}
	return f
}

// procFiles are the files of procfs that may be mounted over, as lxcfs does.
var procFiles = []string{
	"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg",
	"slabinfo", "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
}

// checkProcMount refuses mounts that would let a container forge procfs
// (CVE-2019-16884).
func checkProcMount(dest string, m specs.Mount) error {
	if dest == "/proc" {
		if m.Type == "proc" || m.Source == "/proc" || m.Source == "proc" {
			return nil
		}
		return fmt.Errorf("only a procfs can be mounted on /proc, not %q", m.Source)
	}
	if in, ok := strings.CutPrefix(dest, "/proc/"); ok && !slices.Contains(procFiles, in) {
		return fmt.Errorf("%s lies inside /proc", dest)
	}
	return nil
}
