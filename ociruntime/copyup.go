package ociruntime

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// copyUp is a tmpfs that begins with what lies below it (option tmpcopyup). The
// parent makes and fills it, for the child has no loops; the child attaches it.
type copyUp struct {
	root, dir string   // what is copied: dir, inside root
	data      []string // options of the tmpfs
}

// tmpcopyup is the tmpfs of m, as a file of the child's.
func (c *compiler) tmpcopyup(m specs.Mount, o mountOptions, dest string, earlier []specs.Mount) (Arg, error) {
	if m.Type != "tmpfs" {
		return Arg{}, fmt.Errorf("option tmpcopyup is for a tmpfs, not %q", m.Type)
	}
	if c.Rootless {
		return c.copyInside(m, o, dest), nil
	}
	from := c.under(dest, earlier)
	from.data = o.data
	f := File{Name: "tmpfs", Call: "fsmount", Path: from.root + from.dir, CopyUp: from}
	f.Attrs = append(f.Attrs, treeAttr{attr: o.attr}, treeAttr{attr: unix.MountAttr{Propagation: unix.MS_PRIVATE}})
	return c.file(f), nil
}

// under is what lies below a tmpfs on dest.
func (f *Facts) under(dest string, earlier []specs.Mount) *copyUp {
	u := &copyUp{root: f.Rootfs, dir: dest}
	for _, e := range earlier {
		at := inRootfs(f.Rootfs, e.Destination)
		if moved, ok := f.Moved[at]; ok {
			at = moved
		}
		u.covered(at, e, f.Bundle)
	}
	return u
}

// covered is told of a mount that is made before, on dest: what lies below the
// tmpfs may be in it.
func (u *copyUp) covered(dest string, m specs.Mount, bundle string) {
	rest, below := strings.CutPrefix(u.dir, strings.TrimSuffix(dest, "/"))
	if !below || rest != "" && rest[0] != '/' {
		return
	}
	if o, err := parseMountOptions(m); err != nil || o.remount {
		return
	} else if !o.bind {
		u.root = "" // a new filesystem, which is empty
		return
	}
	u.root, u.dir = m.Source, path.Clean("/"+rest)
	if !filepath.IsAbs(u.root) {
		u.root = filepath.Join(bundle, u.root)
	}
}

// mount makes the tmpfs, and fills it.
func (u *copyUp) mount() (fd int, err error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fs)
	for _, d := range u.data {
		if key, value, ok := strings.Cut(d, "="); ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, d)
		}
		if err != nil {
			return -1, fmt.Errorf("option %s: %w", d, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("fsconfig: %w", err)
	}
	if fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("fsmount: %w", err)
	}
	defer errs.Undo(&err, func() error { return unix.Close(fd) })
	return fd, u.fill(fd)
}

// fill copies into the tmpfs. The source is the image's, who may have put there
// what it likes: it is walked by descriptors, and no link is followed.
func (u *copyUp) fill(tmpfs int) error {
	dir, err := u.open()
	if dir == nil || err != nil {
		return err
	}
	defer dir.Close()
	to, err := unix.Openat(tmpfs, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	target := os.NewFile(uintptr(to), "tmpfs")
	defer target.Close()
	if err := errors.Join(copyDirectory(dir, target), copyAttributes(dir, target)); err != nil {
		return fmt.Errorf("copy %s%s: %w", u.root, u.dir, err)
	}
	return nil
}

// open opens what is copied, nil where nothing is.
func (u *copyUp) open() (*os.File, error) {
	if u.root == "" {
		return nil, nil
	}
	root, err := unix.Open(u.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", u.root, err)
	}
	defer unix.Close(root)
	from := root
	if u.dir != "/" {
		from, err = openIn(root, u.dir, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, nil
		}
	} else {
		from, err = unix.Open(u.root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s%s: %w", u.root, u.dir, err)
	}
	return os.NewFile(uintptr(from), u.dir), nil
}

// copyDirectory copies what is in from, and then whose it is; of its mode the
// mount has decided.
func copyDirectory(from, to *os.File) error {
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(from, to, e.Name()); err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	return unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid))
}

// copyEntry copies one thing. Sockets and whiteouts are left out.
func copyEntry(from, to *os.File, name string) error {
	source, target := int(from.Fd()), int(to.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(source, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err = unix.Mkdirat(target, name, 0o700); err == nil {
			err = inBoth(from, to, name, unix.O_DIRECTORY|unix.O_RDONLY, unix.O_DIRECTORY|unix.O_RDONLY, copyDirectory)
		}
	case unix.S_IFREG:
		err = inBoth(from, to, name, unix.O_RDONLY|unix.O_NONBLOCK, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, copyContent)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(source, name, buf); err == nil {
			err = unix.Symlinkat(string(buf[:n]), target, name)
		}
	case unix.S_IFIFO, unix.S_IFBLK, unix.S_IFCHR:
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return nil
		}
		err = unix.Mknodat(target, name, st.Mode, int(st.Rdev))
	default:
		return nil
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(target, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(target, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	// After the owner and the mode: a change of these takes a file's capabilities.
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		if err := inBoth(from, to, name, unix.O_RDONLY|unix.O_NONBLOCK, unix.O_RDONLY, copyAttributes); err != nil {
			return err
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(target, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// inBoth opens name on both sides for f.
func inBoth(from, to *os.File, name string, flags, toFlags int, f func(from, to *os.File) error) error {
	const always = unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(from.Fd()), name, flags|always, 0)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(fd), name)
	defer source.Close()
	if fd, err = unix.Openat(int(to.Fd()), name, toFlags|always, 0o600); err != nil {
		return err
	}
	target := os.NewFile(uintptr(fd), name)
	return errors.Join(f(source, target), target.Close())
}

// copyAttributes copies extended attributes, where a tmpfs can have them (user.*
// since Linux 6.6). Labels are the mount's, and those of overlayfs mean nothing here.
func copyAttributes(from, to *os.File) error {
	const most = 1 << 16 // bytes of names, and of a value (xattr(7))
	names, value := make([]byte, most), make([]byte, most)
	n, err := unix.Flistxattr(int(from.Fd()), names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" || name == "security.selinux" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("copy extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// copyContent copies a file, if it still is one.
func copyContent(from, to *os.File) error {
	if fi, err := from.Stat(); err != nil || !fi.Mode().IsRegular() {
		return errors.Join(errors.New("it is no file any more"), err)
	}
	_, err := io.Copy(to, from)
	return err
}
