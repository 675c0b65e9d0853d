package ociruntime

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An ordinary user may not make a tmpfs outside of the container's namespaces. So
// the parent looks what there is to copy, and the child, who is root there, copies
// it, in a few steps for each file.

// copied is one thing that a tmpfs begins with.
type copied struct {
	name     string // below the tmpfs; "." is its root
	mode     uint32 // of stat(2)
	uid, gid uint32
	size     int64
	link     string // what a symlink says
}

// list is what lies below the tmpfs, directories before what is in them.
func (u *copyUp) list() ([]copied, error) {
	dir, err := u.open()
	if dir == nil || err != nil {
		return nil, err
	}
	defer dir.Close()
	var all []copied
	top := fmt.Sprintf("/proc/self/fd/%d/", dir.Fd())
	err = filepath.WalkDir(top, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		c := copied{mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size}
		if c.name, err = filepath.Rel(top, name); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if c.link, err = os.Readlink(name); err != nil {
				return err
			}
		}
		all = append(all, c)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look into %s: %s", u.root+u.dir, strings.TrimPrefix(err.Error(), "open "+top))
	}
	return all, nil
}

// copyInside has the child make the tmpfs and fill it.
func (c *compiler) copyInside(m specs.Mount, o mountOptions, dest string) Arg {
	const readonly = unix.MOUNT_ATTR_RDONLY
	list := c.Copied[dest]
	if len(list) == 0 {
		return reg(c.newFilesystem("tmpfs", m.Source, o.data, o.attr.Attr_set))
	}
	tree := reg(c.newFilesystem("tmpfs", m.Source, o.data, o.attr.Attr_set&^readonly))
	h, size := how(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	from := reg(c.open("openat2", c.root, str(dest[1:]), h, size))
	for _, e := range list {
		c.copyOne(from, tree, e)
	}
	c.call("close", from)
	if o.attr.Attr_set&readonly != 0 {
		c.setAttr(tree, treeAttr{attr: unix.MountAttr{Attr_set: readonly}})
	}
	return tree
}

// copyOne copies one thing. Devices, which no ordinary user can make, and sockets
// are left out.
func (c *compiler) copyOne(from, to Arg, e copied) {
	mode := e.mode & 0o7777
	switch e.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if e.name != "." {
			c.call("mkdirat", to, str(e.name), octal(mode))
		}
	case unix.S_IFREG:
		c.copyFile(from, to, e)
	case unix.S_IFLNK:
		c.call("symlinkat", str(e.link), to, str(e.name))
	case unix.S_IFIFO:
		c.call("mknodat", to, str(e.name), named(unix.S_IFIFO|mode, fmt.Sprintf("S_IFIFO|%#o", mode)), num(0))
	default:
		return
	}
	uid, known := containerID(e.uid, c.linux.UIDMappings)
	gid, both := containerID(e.gid, c.linux.GIDMappings)
	if known && both && uid|gid != 0 {
		c.call("fchownat", to, str(e.name), num(int(uid)), num(int(gid)), named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
	}
	if e.name != "." && e.mode&unix.S_IFMT != unix.S_IFLNK {
		c.call("fchmodat", to, str(e.name), octal(mode)) // whatever the umask, and chown, took
	}
}

// copyFile copies a file, if it still is one, and as long as it was.
func (c *compiler) copyFile(from, to Arg, e copied) {
	const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS
	h, size := how(unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0, resolve)
	source := reg(c.open("openat2", from, str(e.name), h, size))
	h, size = how(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600, resolve)
	target := reg(c.open("openat2", to, str(e.name), h, size))
	if e.size > 0 {
		c.call("sendfile", target, source, null(), num(int(e.size))).Min = e.size
	}
	c.call("close", source)
	c.call("close", target)
}
