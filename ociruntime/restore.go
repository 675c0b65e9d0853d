package ociruntime

import (
	"context"
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
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
	"github.com/gantryd/gantry/ociruntime/internal/criu"
)

// Restore makes a container of the images that [Container.Checkpoint], or runc,
// wrote. Its processes go on where they were; the first is a direct child of the
// caller. The hooks prestart and createRuntime run when its namespaces are made;
// of a terminal a new master is in Console.
func Restore(ctx context.Context, o CreateOptions, cp CheckpointOptions) (_ *Container, err error) {
	if fi, err := os.Stat(cp.ImagePath); err != nil || !fi.IsDir() {
		return nil, errs.Because(errdefs.ErrNotFound, "restore %s: there is no checkpoint in %s", o.ID, cp.ImagePath)
	}
	if err := cp.prepare(); err != nil {
		return nil, err
	}
	c, err := newContainer(&o)
	if err != nil {
		return nil, err
	}
	if c.dir, err = claim(o.Root, o.ID); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return abandon(c.dir) })
	facts, err := c.prepare(o)
	if err != nil {
		return nil, err
	}
	removeGroup, err := c.makeGroup()
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, removeGroup)
	if err := c.restore(ctx, o, cp, facts); err != nil {
		return nil, err
	}
	if err := c.seat.leave(); err != nil {
		return nil, err
	}
	// Nobody waits for a start.
	return c, os.Remove(filepath.Join(c.dir, startFifo))
}

// restore runs CRIU in the container's groups, whose processes are born there,
// and in a mount namespace of its own, where the rootfs is a mount.
func (c *Container) restore(ctx context.Context, o CreateOptions, cp CheckpointOptions, facts Facts) (err error) {
	r, err := cp.request("restore", c.spec)
	if err != nil {
		return err
	}
	defer r.close()
	r.Root, r.Sibling, r.EvasiveDevices, r.CgroupRoots = c.rec.Rootfs, true, true, cgroupRoots(c.group)
	if r.InheritFds, err = inheritStreams(cp.ImagePath); err != nil {
		return err
	}
	if r.Mounts, err = c.restoreMounts(o.Bundle); err != nil {
		return err
	}
	conn, theirs, err := criu.Pair()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer theirs.Close()
	plan, err := c.planOfCriu(&r.Options, cp.Criu, facts)
	if err != nil {
		return err
	}
	l := &launch{plan: plan, stdio: [3]*os.File{o.Stdin, o.Stdout, o.Stderr}, extra: []*os.File{theirs}, reap: o.Reap}
	closeGroup, err := l.bornIn(c.group)
	if err != nil {
		return err
	}
	defer closeGroup()
	child, err := l.run()
	if err != nil {
		return err
	}
	theirs.Close()
	defer child.pidfd.Close()
	stop := context.AfterFunc(ctx, func() { _ = unix.PidfdSendSignal(int(child.pidfd.Fd()), unix.SIGKILL, nil, 0) })
	defer stop()
	first := &restored{Container: c}
	if err = r.enter(child.pid, cp); err == nil {
		err = conn.Ask(criu.Restore, &r.Options, func(n criu.Notice) error { return first.heard(ctx, n) })
	}
	conn.Close()
	if _, werr := child.wait(); werr != nil {
		err = errors.Join(err, werr)
	}
	if err == nil {
		err = first.adopt()
	}
	if err != nil {
		return errors.Join(cp.explain("restore", err), first.discard())
	}
	return nil
}

// enter opens the directories anew in the mount namespace of process pid: CRIU
// mounts below the one that it works in.
func (r *request) enter(pid int, cp CheckpointOptions) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("enter the mount namespace of criu: %w", err)
	}
	defer unix.Close(root)
	for _, dir := range []struct {
		name string
		file **os.File
		fd   *int32
	}{{cp.ImagePath, &r.images, &r.Images}, {cp.WorkPath, &r.work, &r.Work}} {
		fd, err := openIn(root, dir.name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fmt.Errorf("open %s for criu: %w", dir.name, err)
		}
		(*dir.file).Close()
		*dir.file, *dir.fd = os.NewFile(uintptr(fd), dir.name), int32(fd)
	}
	return nil
}

// extra is the descriptor of CRIU's end of the connection.
const extra = 3

// planOfCriu runs CRIU: a plan like a container's, whose program is CRIU.
func (c *Container) planOfCriu(o *criu.Options, program string, facts Facts) (*Plan, error) {
	p := &compiler{builder: newBuilder(1), spec: c.spec, linux: c.spec.Linux, process: c.spec.Process, Facts: facts}
	for _, n := range c.spec.Linux.Namespaces {
		name, external := namespaceName[n.Type]
		switch {
		case n.Path == "":
		case external:
			o.InheritFds = append(o.InheritFds, criu.InheritFd{Name: name, FD: int32(p.namespaceFile(n).num)})
		case criuName[n.Type] == "":
			return nil, errs.Because(errdefs.ErrNotImplemented, "restore: criu cannot join a %s namespace", n.Type)
		default:
			o.JoinNs = append(o.JoinNs, criu.JoinNs{Kind: criuName[n.Type], Path: n.Path})
		}
	}
	p.joinCgroups()
	p.plan.Clone = unix.CLONE_NEWNS
	p.stage("keep mounts from the host", "/")
	// Nothing goes back to the host, and what binds is still shared: CRIU makes
	// the container's mounts slaves again of what they show.
	p.call("mount", null(), str("/"), null(), named(unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"), null())
	p.call("mount", null(), str("/"), null(), named(unix.MS_REC|unix.MS_SHARED, "MS_REC|MS_SHARED"), null())
	if err := p.mountPoints(); err != nil {
		return nil, err
	}
	p.stage("make the rootfs a mount", c.rec.Rootfs)
	p.call("mount", str(c.rec.Rootfs), str(c.rec.Rootfs), null(), named(unix.MS_BIND|unix.MS_REC, "MS_BIND|MS_REC"), null())
	p.stage("make the mask for directories", c.emptyDir())
	p.call("mount", str("tmpfs"), str(c.emptyDir()), str("tmpfs"), named(unix.MS_RDONLY, "MS_RDONLY"), str("nr_blocks=1,nr_inodes=2,mode=755"))
	p.stage("execute criu", program)
	p.call("execve", str(program), strs([]string{"criu", "swrk", fmt.Sprint(extra)}), strs(os.Environ()))
	return p.finish(), nil
}

// emptyDir is what covers masked directories, in CRIU's mount namespace.
func (c *Container) emptyDir() string { return filepath.Join(c.dir, "empty") }

// mountPoints makes the places that the spec's mounts lie on, where they are
// missing, as creation does: on a tree that nothing else sees and that is taken
// down again.
func (c *compiler) mountPoints() error {
	c.stage("make mount points", c.Rootfs)
	c.root = reg(c.open("open_tree", cwd(), str(c.Rootfs), named(treeFlags|unix.AT_RECURSIVE, "CLONE|CLOEXEC|AT_RECURSIVE")))
	c.call("move_mount", c.root, str(""), cwd(), str(c.Rootfs), named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
	for _, m := range c.spec.Mounts {
		o, err := parseMountOptions(m)
		if err != nil {
			return err
		}
		dest := c.destination(m.Destination)
		// What lies on a filesystem of the container's own is made when that is.
		if dest == "/" || o.remount || isCgroup(m) || slices.ContainsFunc(c.spec.Mounts, func(on specs.Mount) bool { return covers(on, dest) }) {
			continue
		}
		if !o.bind {
			c.at(dest, true, 0)
			continue
		}
		src := m.Source
		if !filepath.IsAbs(src) {
			src = filepath.Join(c.Bundle, src)
		}
		target := c.at(dest, !c.NotDir[src], 0)
		// Read-only ones had no places made on them when they were mounted, either.
		if o.attr.Attr_set&unix.MOUNT_ATTR_RDONLY != 0 || c.NotDir[src] {
			continue
		}
		tree := c.open("open_tree", cwd(), str(src), named(treeFlags|unix.AT_RECURSIVE, "CLONE|CLOEXEC|AT_RECURSIVE"))
		c.attach(reg(tree), target)
		c.call("close", reg(tree))
	}
	c.call("umount2", str(c.Rootfs), named(unix.MNT_DETACH, "MNT_DETACH"))
	return nil
}

func isCgroup(m specs.Mount) bool { return m.Type == "cgroup" || m.Type == "cgroup2" }

// covers says whether dest lies on m, which is no bind mount.
func covers(m specs.Mount, dest string) bool {
	o, err := parseMountOptions(m)
	return err == nil && !o.bind && strings.HasPrefix(dest, path.Clean("/"+m.Destination)+"/")
}

// restoreMounts says what of the host is mounted where: the spec may name other
// sources than at the checkpoint.
func (c *Container) restoreMounts(bundle string) ([]criu.External, error) {
	list, err := bindMounts(c.spec, bundle, c.rec.Rootfs)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.emptyDir(), 0o755); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	list = append(list, criu.External{Key: maskedFile, Value: maskedFile}, criu.External{Key: maskedDir, Value: c.emptyDir()})
	for _, m := range c.spec.Mounts {
		if !isCgroup(m) {
			continue
		}
		for _, d := range c.group.Dirs {
			if c.group.V2Only() {
				list = append(list, criu.External{Key: path.Clean(m.Destination), Value: d.Path})
			} else if !d.V2 {
				list = append(list, criu.External{Key: path.Join(m.Destination, filepath.Base(d.Mount)), Value: d.Path})
			}
		}
	}
	return list, nil
}

// cgroupRoots are the groups of the container, which may have another name now.
func cgroupRoots(g *cgroup.Group) (list []criu.CgroupRoot) {
	l, err := cgroup.Discover()
	if err != nil {
		return nil
	}
	for _, d := range g.Dirs {
		if rel, ok := l.Rel(d); ok {
			list = append(list, criu.CgroupRoot{Controllers: strings.Join(d.Controllers, ","), Path: rel})
		}
	}
	return list
}
