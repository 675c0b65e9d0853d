package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// node is a device node to make.
type node struct {
	path     string
	kind     uint32 // S_IFCHR, S_IFBLK, S_IFIFO
	mode     uint32
	dev      uint64
	uid, gid uint32
}

// defaultNodes are the devices that every container has (runtime-spec,
// config-linux, "Default Devices").
func defaultNodes() []node {
	char := func(p string, major, minor uint32) node {
		return node{path: p, kind: unix.S_IFCHR, mode: 0o666, dev: unix.Mkdev(major, minor)}
	}
	return []node{
		char("/dev/null", 1, 3),
		char("/dev/zero", 1, 5),
		char("/dev/full", 1, 7),
		char("/dev/random", 1, 8),
		char("/dev/urandom", 1, 9),
		char("/dev/tty", 5, 0),
	}
}

// devLinks are the symbolic links of /dev (runtime-spec, runtime-linux, "Dev
// symbolic links", and the pseudo-terminal multiplexer).
var devLinks = []struct{ target, name string }{
	{"/proc/self/fd", "fd"},
	{"/proc/self/fd/0", "stdin"},
	{"/proc/self/fd/1", "stdout"},
	{"/proc/self/fd/2", "stderr"},
	{"/proc/kcore", "core"},
	{"pts/ptmx", "ptmx"},
}

// devices fills /dev, unless it is the host's by a bind mount.
func (c *compiler) devices() error {
	if c.boundDev() {
		return nil
	}
	nodes, err := c.nodes()
	if err != nil {
		return err
	}
	c.stage("open", "/dev")
	dev := c.at("/dev", true, 0)
	// Modes are exact: the caller's umask is not the container's.
	c.call("umask", num(0))
	for _, n := range nodes {
		c.makeNode(dev, n)
	}
	c.stage("link", "/dev")
	for _, l := range devLinks {
		if l.name == "ptmx" {
			// A device node of the image's would be the host's multiplexer.
			c.call("unlinkat", dev, str(l.name), num(0)).fine(unix.ENOENT)
		}
		c.call("symlinkat", str(l.target), dev, str(l.name)).fine(unix.EEXIST)
	}
	return c.terminal(dev)
}

// boundDev says whether /dev is a bind mount: it is then complete.
func (c *compiler) boundDev() bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool {
		o, err := parseMountOptions(m)
		return err == nil && o.bind && path.Clean(m.Destination) == "/dev"
	})
}

// nodes are the default devices and those of the spec, which win.
func (c *compiler) nodes() ([]node, error) {
	nodes := defaultNodes()
	for i, d := range c.linux.Devices {
		n, err := specNode(d)
		if err != nil {
			return nil, fmt.Errorf("linux.devices[%d]: %w", i, err)
		}
		if n.path == "/dev/ptmx" {
			continue // it is a link to the container's own (runtime-spec, "Default Devices")
		}
		nodes = slices.DeleteFunc(nodes, func(old node) bool { return old.path == n.path })
		nodes = append(nodes, n)
	}
	return nodes, nil
}

func specNode(d specs.LinuxDevice) (node, error) {
	n := node{path: path.Clean("/" + d.Path), mode: 0o666, dev: unix.Mkdev(uint32(d.Major), uint32(d.Minor))}
	switch d.Type {
	case "c", "u":
		n.kind = unix.S_IFCHR
	case "b":
		n.kind = unix.S_IFBLK
	case "p":
		n.kind, n.dev = unix.S_IFIFO, 0
	default:
		return n, fmt.Errorf("type %q of %s is none of c, b, u, p", d.Type, d.Path)
	}
	if d.FileMode != nil {
		n.mode = uint32(d.FileMode.Perm())
		if *d.FileMode&os.ModeSetuid != 0 {
			n.mode |= unix.S_ISUID
		}
	}
	if d.UID != nil {
		n.uid = *d.UID
	}
	if d.GID != nil {
		n.gid = *d.GID
	}
	return n, nil
}

// makeNode makes one device, or, where a user namespace may not, shows the
// host's.
func (c *compiler) makeNode(dev Arg, n node) {
	c.stage("make device", n.path)
	if (c.Restricted || c.has(specs.UserNamespace)) && n.kind != unix.S_IFIFO {
		c.attach(c.file(c.hostNode(n)), c.at(n.path, false, 0))
		return
	}
	name := path.Base(n.path)
	if path.Dir(n.path) != "/dev" {
		c.makeParents(n.path[1:])
		dev, name = c.parent(n.path[1:])
	}
	mode := named(n.kind|n.mode, fmt.Sprintf("%s|%#o", kindName(n.kind), n.mode))
	done := c.label()
	c.call("mknodat", dev, str(name), mode, named(n.dev, fmt.Sprintf("%d:%d", unix.Major(n.dev), unix.Minor(n.dev)))).orElse(done, unix.EEXIST)
	if n.uid != 0 || n.gid != 0 {
		c.call("fchownat", dev, str(name), num(int(n.uid)), num(int(n.gid)), named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
	}
	c.mark(done)
}

// hostNode is a device that the parent opens: the host's own, or, where the spec
// describes one and the parent may, a new one.
func (c *compiler) hostNode(n node) File {
	f := File{
		Name: "device", Call: "open_tree", Path: n.path, Flags: treeFlags,
		Attrs: []treeAttr{{attr: unix.MountAttr{
			Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, Attr_clr: unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE,
		}}},
	}
	if !c.Restricted && !slices.Contains(defaultNodes(), n) {
		n.uid, n.gid = hostID(n.uid, c.linux.UIDMappings), hostID(n.gid, c.linux.GIDMappings)
		f.Call, f.Node = "mknod", &n
	}
	return f
}

// nodeFile is where in dir the device of f is, until the child has mounted it.
func (f File) nodeFile(dir string) string {
	return filepath.Join(dir, "device"+strings.ReplaceAll(f.Path, "/", "-"))
}

// makeNode makes the device. A root without the right to (of a user namespace)
// has the host's.
func (f File) makeNode(dir string) (fd int, err error) {
	name := f.nodeFile(dir)
	err = unix.Mknod(name, f.Node.kind|f.Node.mode, int(f.Node.dev))
	if errors.Is(err, unix.EPERM) {
		f.Call = "open_tree"
		return f.open(dir)
	}
	if err != nil {
		return -1, fmt.Errorf("make device %s: mknod %s: %w", f.Path, name, err)
	}
	if err := errors.Join(unix.Lchown(name, int(f.Node.uid), int(f.Node.gid)), unix.Chmod(name, f.Node.mode)); err != nil {
		return -1, fmt.Errorf("make device %s: %w", f.Path, err)
	}
	if fd, err = unix.OpenTree(unix.AT_FDCWD, name, uint(f.Flags)); err != nil {
		return -1, fmt.Errorf("%s: open_tree %s: %w", f.Name, name, err)
	}
	return fd, f.change(fd)
}

// forgetNodes removes the devices of the plan from dir: the mounts of them stay.
func (p *Plan) forgetNodes(dir string) error {
	for _, f := range p.Files {
		if f.Node == nil {
			continue
		}
		if err := os.Remove(f.nodeFile(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget device %s: %w", f.Path, err)
		}
	}
	return nil
}

func kindName(kind uint32) string {
	switch kind {
	case unix.S_IFCHR:
		return "S_IFCHR"
	case unix.S_IFBLK:
		return "S_IFBLK"
	}
	return "S_IFIFO"
}

// terminal opens a pseudo-terminal in the container's devpts, sends the master
// to the parent and shows the other end as /dev/console. The other end is
// opened by its master and never by a path (CVE-2025-52565).
func (c *compiler) terminal(dev Arg) error {
	if !c.process.Terminal {
		return nil
	}
	h, size := how(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS|unix.RESOLVE_NO_SYMLINKS)
	c.stage("open a terminal", "/dev/pts/ptmx")
	c.openTerminal(c.open("openat2", c.root, str("dev/pts/ptmx"), h, size))

	c.stage("show the terminal as", "/dev/console")
	tree := c.open("open_tree", reg(c.peer), str(""), named(treeFlags|unix.AT_EMPTY_PATH, "CLONE|CLOEXEC|AT_EMPTY_PATH"))
	c.call("mknodat", dev, str("console"), named(unix.S_IFREG|0o600, "S_IFREG|0600"), num(0)).fine(unix.EEXIST)
	ch, csize := how(unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_BENEATH)
	console := c.open("openat2", dev, str("console"), ch, csize)
	c.attach(reg(tree), reg(console))
	return nil
}

// openTerminal makes the terminal of master the standard streams and the
// controlling terminal, and sends the master to the parent.
func (c *compiler) openTerminal(master Reg) {
	const tiocsptlck, tiocgptpeer = 0x40045431, 0x5441
	c.call("ioctl", reg(master), named(uint(tiocsptlck), "TIOCSPTLCK"), raw(make([]byte, 4), "0"))
	c.peer = c.open("ioctl", reg(master), named(uint(tiocgptpeer), "TIOCGPTPEER"), named(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, "O_RDWR|O_NOCTTY|O_CLOEXEC"))
	if s := c.process.ConsoleSize; s != nil {
		size := []byte{byte(s.Height), byte(s.Height >> 8), byte(s.Width), byte(s.Width >> 8), 0, 0, 0, 0}
		c.call("ioctl", reg(master), named(unix.TIOCSWINSZ, "TIOCSWINSZ"), raw(size, fmt.Sprintf("%dx%d", s.Width, s.Height)))
	}
	c.sendFD(c.console, master)
	c.call("close", reg(master))
	c.call("ioctl", reg(c.peer), named(unix.TIOCSCTTY, "TIOCSCTTY"), num(0))
	if uid := c.process.User.UID; uid != 0 {
		gid := -1
		c.call("fchown", reg(c.peer), num(int(uid)), num(gid)).fine(unix.EPERM, unix.EINVAL)
	}
	for fd := range 3 {
		c.call("dup3", reg(c.peer), num(fd), num(0))
	}
}

// sendFD sends a descriptor over a socket (unix(7), SCM_RIGHTS). The register
// moves into the control message.
func (c *compiler) sendFD(socket Arg, fd Reg) {
	body := &blob{bytes: []byte{0}}
	iov := &blob{bytes: make([]byte, 16), relocs: []reloc{{0, body}}}
	iov.bytes[8] = 1
	// struct cmsghdr: length 20, SOL_SOCKET, SCM_RIGHTS, the descriptor.
	control := &blob{bytes: make([]byte, 24)}
	control.bytes[0], control.bytes[8], control.bytes[12] = 20, unix.SOL_SOCKET, unix.SCM_RIGHTS
	// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
	msg := &blob{bytes: make([]byte, 56), relocs: []reloc{{16, iov}, {32, control}}}
	msg.bytes[24], msg.bytes[40] = 1, 24
	c.plan.homes[fd] = home{control, 16}
	c.call("sendmsg", socket, Arg{text: fmt.Sprintf("SCM_RIGHTS $%d", fd), data: msg}, num(0))
}
