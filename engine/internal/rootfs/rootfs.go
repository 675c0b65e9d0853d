// Package rootfs reads and writes files below a container's root: what docker cp,
// export and a new volume need.
//
// The container is hostile, and may run meanwhile. Every path is resolved by the
// kernel in that root (openat2 with RESOLVE_IN_ROOT, Linux 5.6), whatever symbolic
// links are there and whoever changes them; what is found is then worked on by its
// descriptor, never by its path again. (CVE-2018-15664, CVE-2019-14271.)
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/mount"
)

// Root is a directory that nothing leads out of.
type Root struct {
	dir  int // O_PATH descriptor
	undo func() error
}

// Close lets go of the root; what was mounted for it is unmounted.
func (r *Root) Close() error { return errors.Join(unix.Close(r.dir), r.undo()) }

func nothing() error { return nil }

// Task is the root of a running container as its process pid sees it, with all
// that is mounted there.
func Task(pid int) (*Root, error) { return Directory(fmt.Sprintf("/proc/%d/root", pid)) }

// Directory is a directory of the host as a root.
func Directory(name string) (*Root, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open root", Path: name, Err: err}
	}
	return &Root{fd, nothing}, nil
}

// TaskLayers is the file system at the root of a running container without
// anything that is mounted on it.
func TaskLayers(pid int) (*Root, error) { return taskMount(pid, "/") }

// ShowTask binds the directory name of a running container to the place at, which
// is made. Unmount ends it.
func ShowTask(pid int, name, at string) (err error) {
	root, err := taskMount(pid, name)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := os.MkdirAll(at, 0o700); err != nil {
		return fmt.Errorf("show %s: %w", name, err)
	}
	defer errs.Undo(&err, func() error { return Unmount(at) })
	if err := unix.MoveMount(root.dir, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "move_mount", Path: at, Err: err}
	}
	return nil
}

// taskMount is what is mounted at name in a running container, without what is
// mounted below. The clone is made in the container's mount namespace, where alone
// the kernel lets it be made, on a thread that ends with that.
func taskMount(pid int, name string) (*Root, error) {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open mount namespace of process %d: %w", pid, err)
	}
	defer unix.Close(ns)
	type clone struct {
		fd  int
		err error
	}
	made := make(chan clone)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := cloneIn(ns, name)
		made <- clone{fd, err}
	}()
	c := <-made
	if c.err != nil {
		return nil, fmt.Errorf("clone mount %s of process %d: %w", name, pid, c.err)
	}
	return &Root{c.fd, nothing}, nil
}

func cloneIn(ns int, name string) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // setns(2) asks for it
		return -1, fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("setns: %w", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	return fd, nil
}

// Bind shows a directory or file of the host at a place in a root.
type Bind struct {
	Source, Destination string
	ReadOnly            bool
}

// Mounted mounts a snapshot at the directory scratch, which is made, and binds on
// it in their order. The place of a directory is made, as the container's start
// would; a file whose place is not there is left out.
func Mounted(scratch string, mounts []mount.Mount, binds []Bind) (r *Root, err error) {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return nil, fmt.Errorf("mount root: %w", err)
	}
	undo := func() error { return Unmount(scratch) }
	defer errs.Undo(&err, undo)
	if err := mount.All(mounts, scratch); err != nil {
		return nil, err
	}
	if r, err = Directory(scratch); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return unix.Close(r.dir) })
	for _, b := range binds {
		if err := r.bind(b); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	r.undo = undo
	return r, nil
}

// Show binds what is at name to the place at, which is made. Nothing on the way may
// lead out of the root, not even to come back (RESOLVE_BENEATH). Unmount ends it.
func (r *Root) Show(name, at string) (err error) {
	fd, err := r.resolve(name, unix.O_PATH, unix.RESOLVE_BENEATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return fmt.Errorf("show %s: %w", name, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = os.Mkdir(at, 0o700)
	} else {
		err = os.WriteFile(at, nil, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("show %s: %w", name, err)
	}
	defer errs.Undo(&err, func() error { return Unmount(at) })
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &fs.PathError{Op: "bind", Path: name, Err: err}
	}
	return nil
}

// Unmount takes away what Mounted or Show left at scratch, also where a killed
// daemon did not.
func Unmount(scratch string) error {
	// A detached mount takes what is mounted on it along.
	if err := unix.Unmount(scratch, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "unmount", Path: scratch, Err: err}
	}
	// Remove, not RemoveAll: were it still mounted, that would eat the container.
	if err := os.Remove(scratch); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *Root) bind(b Bind) error {
	at, err := r.open(b.Destination, unix.O_PATH)
	if st, missing := os.Stat(b.Source); errors.Is(err, fs.ErrNotExist) && missing == nil && st.IsDir() {
		at, err = r.reach(clean(b.Destination))
	}
	if err != nil {
		return err
	}
	defer unix.Close(at)
	target := fmt.Sprintf("/proc/self/fd/%d", at)
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return &fs.PathError{Op: "bind", Path: b.Source, Err: err}
	}
	if !b.ReadOnly {
		return nil
	}
	// The descriptor shows what is below the bind: find it anew.
	over, err := r.open(b.Destination, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(over)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(over, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return &fs.PathError{Op: "make read-only", Path: b.Destination, Err: err}
	}
	return nil
}

// open resolves name in the root and opens it.
func (r *Root) open(name string, flags int) (int, error) {
	return r.resolve(clean(name), flags, unix.RESOLVE_IN_ROOT)
}

func (r *Root) resolve(name string, flags int, how uint64) (int, error) {
	o := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: how | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(r.dir, name, &o)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			// Something was renamed while the kernel looked (openat2(2)).
			continue
		case err != nil:
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

// clean makes name one that openat2 takes: not empty.
func clean(name string) string { return path.Clean("/" + name) }

// Stat is what is known of a file.
type Stat struct {
	Name    string
	Size    int64
	Mode    fs.FileMode
	ModTime time.Time
	Link    string // where a symbolic link leads to, as a path in the root
	Sys     unix.Stat_t
}

// Stat tells of what is at name. A symbolic link is not followed, unless name ends
// in a slash or "/.". Errors: fs.ErrNotExist.
func (r *Root) Stat(name string) (Stat, error) {
	parent, base, err := r.find(name)
	if err != nil {
		return Stat{}, err
	}
	defer unix.Close(parent)
	st, err := statAt(parent, base)
	if err != nil {
		return Stat{}, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	out := Stat{Name: path.Base(clean(name)), Size: st.Size, Mode: fileMode(st.Mode), ModTime: time.Unix(st.Mtim.Unix()), Sys: st}
	if out.Mode&fs.ModeSymlink == 0 {
		return out, nil
	}
	target, err := readlinkAt(parent, base)
	if err != nil {
		return Stat{}, &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(clean(name)), target)
	}
	out.Link = r.resolved(target)
	return out, nil
}

// resolved is the path in the root that name leads to; one that leads nowhere is
// given as it is.
func (r *Root) resolved(name string) string {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return clean(name)
	}
	defer unix.Close(fd)
	own, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", r.dir))
	if err != nil {
		return clean(name)
	}
	full, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || own != "/" && !strings.HasPrefix(full, own) {
		return clean(name)
	}
	return clean(strings.TrimPrefix(full, strings.TrimSuffix(own, "/")))
}

// find gives the directory of name, resolved, and the name in it, "." for one that
// is to be followed.
func (r *Root) find(name string) (parent int, base string, err error) {
	full := clean(name)
	if follows(name) {
		parent, err = r.open(full, unix.O_PATH|unix.O_DIRECTORY)
		return parent, ".", err
	}
	parent, err = r.open(path.Dir(full), unix.O_PATH|unix.O_DIRECTORY)
	return parent, path.Base(full), err
}

// follows says whether name is of what a symbolic link leads to, and of a
// directory.
func follows(name string) bool {
	return clean(name) == "/" || strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") || name == "."
}

func statAt(dir int, base string) (st unix.Stat_t, err error) {
	for {
		err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if !errors.Is(err, unix.EINTR) {
			return st, err
		}
	}
}

func readlinkAt(dir int, base string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// fileMode is a mode of stat(2) in Go's words.
func fileMode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	}
	for bit, as := range map[uint32]fs.FileMode{
		unix.S_ISUID: fs.ModeSetuid, unix.S_ISGID: fs.ModeSetgid, unix.S_ISVTX: fs.ModeSticky,
	} {
		if m&bit != 0 {
			mode |= as
		}
	}
	return mode
}

// List gives the names in the directory dir.
func (r *Root) List(dir string) ([]string, error) {
	fd, err := r.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), dir)
	defer d.Close()
	return d.Readdirnames(-1)
}
