package ociruntime

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bind attaches a tree that the parent opened, so that neither the rootfs nor
// the container's user namespace has a say in what the source is. Only what an
// earlier mount brings is opened by the child.
func (c *compiler) bind(m specs.Mount, o mountOptions, dest string, earlier []specs.Mount) error {
	src := bindSource(c.Bundle, m)
	if target, ok := c.Links[src]; ok && o.links.copied {
		c.link(target, dest)
		return nil
	}
	flags := treeFlags
	if o.links.source {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	if o.recursive {
		flags |= unix.AT_RECURSIVE
	}
	f := File{Name: "mount source", Call: "open_tree", Path: src, Flags: flags}
	if o.idmap != "" || len(m.UIDMappings) > 0 {
		im, err := c.mountIDMap(m, o)
		if err != nil {
			return err
		}
		f.IDMap = im
	}
	// A mount made inside takes the propagation that the container's root has.
	f.Attrs = append(f.Attrs, treeAttr{attr: unix.MountAttr{Propagation: c.rootPropagation()}, recursive: true})
	if o.flags {
		a := c.bindFlags(o.attr)
		f.Attrs = append(f.Attrs, treeAttr{attr: a})
		if c.has(specs.UserNamespace) {
			f.Locked = &a
		}
	}
	if o.rec.Attr_set|o.rec.Attr_clr != 0 {
		f.Attrs = append(f.Attrs, treeAttr{attr: o.rec, recursive: true})
	}
	f.Attrs = append(f.Attrs, o.propagation...)
	if i := slices.IndexFunc(o.propagation, func(p treeAttr) bool { return p.attr.Propagation == unix.MS_SHARED }); i >= 0 {
		// It stays in the host's peer group: that is what "shared" is for.
		f.Attrs = slices.DeleteFunc(f.Attrs, func(a treeAttr) bool {
			return a.attr.Propagation == c.rootPropagation() && a.attr.Propagation != unix.MS_SHARED
		})
	}
	if broughtBy(earlier, c.Rootfs, src) {
		c.bindInside(f, dest, o.links)
		return nil
	}
	tree := c.file(f)
	c.attach(tree, c.place(dest, o.links.flags(), resolveFor(dest), c.maker(!c.NotDir[src])))
	return nil
}

// flags are those to open the destination with.
func (l links) flags() int {
	if l.dest {
		return unix.O_NOFOLLOW
	}
	return 0
}

// link makes a symlink in the rootfs, unless it is there.
func (c *compiler) link(target, dest string) {
	rel := dest[1:]
	if c.Linked[dest] {
		return
	}
	c.makeParents(rel)
	parent, name := c.parent(rel)
	c.call("symlinkat", str(target), parent, str(name))
}

// bindSource is the source of a bind mount, on the host.
func bindSource(bundle string, m specs.Mount) string {
	if filepath.IsAbs(m.Source) {
		return filepath.Clean(m.Source)
	}
	return filepath.Join(bundle, m.Source)
}

// inRootfs is the place of name in the rootfs. As with runc it may also be told
// by its path on the host.
func inRootfs(rootfs, name string) string {
	name = path.Clean("/" + name)
	if rest, ok := strings.CutPrefix(name, path.Clean(rootfs)+"/"); ok {
		return "/" + rest
	}
	return name
}

// broughtBy says that src, a path of the host, is where one of the mounts will be:
// it is there only when that is made.
func broughtBy(mounts []specs.Mount, rootfs, src string) bool {
	in := inRootfs(rootfs, src)
	return in != src && slices.ContainsFunc(mounts, func(m specs.Mount) bool {
		dest := inRootfs(rootfs, m.Destination)
		return in == dest || strings.HasPrefix(in, strings.TrimSuffix(dest, "/")+"/")
	})
}

// bindInside is bind where the child opens the source: below the rootfs, and with
// its own rights.
func (c *compiler) bindInside(f File, dest string, l links) {
	rel := inRootfs(c.Rootfs, f.Path)[1:]
	look := func(flags int) *Step {
		if l.source {
			flags |= unix.O_NOFOLLOW
		}
		h, size := how(flags|unix.O_PATH|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
		s := c.call("openat2", c.root, str(rel), h, size)
		s.Out = c.reg()
		return s
	}
	source := reg(look(0).Out)
	text := "CLONE|CLOEXEC|AT_EMPTY_PATH"
	if f.Flags&unix.AT_RECURSIVE != 0 {
		text += "|AT_RECURSIVE"
	}
	tree := c.open("open_tree", source, str(""), named(f.Flags|unix.AT_EMPTY_PATH, text))
	if f.IDMap != nil {
		c.mapByParent(tree, f)
	}
	for _, a := range f.Attrs {
		c.setAttr(reg(tree), a)
	}
	c.attach(reg(tree), c.place(dest, l.flags(), resolveFor(dest), func(parent Arg, name string) {
		file, made := c.label(), c.label()
		look(unix.O_DIRECTORY).orElse(file, unix.ENOTDIR)
		c.makeDir(parent, name).goTo(made)
		c.mark(file)
		c.makeFile(parent, name)
		c.mark(made)
	}))
}

// mapByParent has the parent map the ids of a tree: who may do so is root where the
// filesystem was mounted.
func (c *compiler) mapByParent(tree Reg, f File) {
	c.plan.toMap = append(c.plan.toMap, f)
	c.aside("maps the ids of %s", f.Path)
	c.tellOf(statusTree, tree)
	c.await()
}

// bindFlags are the flags of a bind mount whose options name any: as mount(2) has
// it, those that they do not name are not set. In a user namespace they stay,
// for there mount(2) may not take them away; but for nosymfollow.
func (c *compiler) bindFlags(a unix.MountAttr) unix.MountAttr {
	clears := uint64(unix.MOUNT_ATTR_NOSYMFOLLOW)
	if !c.has(specs.UserNamespace) {
		clears |= unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	}
	a.Attr_clr |= clears &^ a.Attr_set
	if atime := uint64(unix.MOUNT_ATTR__ATIME); a.Attr_set&unix.MOUNT_ATTR_NODIRATIME != 0 && a.Attr_clr&atime == 0 {
		a.Attr_clr |= atime // which leaves relatime
	} else if a.Attr_clr&atime != 0 && a.Attr_set&unix.MOUNT_ATTR_NODIRATIME == 0 {
		a.Attr_clr |= unix.MOUNT_ATTR_NODIRATIME
	}
	return a
}
