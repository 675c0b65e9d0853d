package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// UnpackOptions say how Unpack writes.
type UnpackOptions struct {
	// KeepKind refuses to replace a directory by something else, and the other way
	// round.
	KeepKind bool
	// Owner gives everything to one user and group, not to those of the tar.
	Owner *Owner
}

// Owner is a user and a group by number.
type Owner struct{ UID, GID int }

// Unpack extracts a tar into the directory dir. Its names lead to where a process
// in the root would come with them; ".." at their beginning is nothing. Errors:
// fs.ErrNotExist and unix.ENOTDIR (dir), InvalidArgument (the tar, KeepKind).
func (r *Root) Unpack(ctx context.Context, dir string, in io.Reader, o UnpackOptions) error {
	fd, err := r.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	unix.Close(fd)
	u := &unpacker{root: r, dir: clean(dir), o: o}
	tr := tar.NewReader(in)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read tar: %w: %w", err, errdefs.ErrInvalidArgument)
		}
		if err := u.entry(hdr, tr); err != nil {
			return fmt.Errorf("unpack %s: %w", hdr.Name, err)
		}
	}
}

type unpacker struct {
	root *Root
	dir  string
	o    UnpackOptions
	made []made // directories, whose times are set at the end
}

type made struct {
	path  string
	mtime time.Time
}

// entry writes one entry of the tar.
func (u *unpacker) entry(hdr *tar.Header, in io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // says nothing about a file
	}
	full := path.Join(u.dir, clean(hdr.Name))
	parent, err := u.root.reach(path.Dir(full))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	base := path.Base(full)
	if full == "/" || clean(hdr.Name) == "/" {
		if hdr.Typeflag != tar.TypeDir {
			return fmt.Errorf("it has no name: %w", errdefs.ErrInvalidArgument)
		}
		return u.own(full, hdr)
	}
	exists, err := u.clear(parent, base, full, hdr)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeDir {
		if !exists {
			if err := unix.Mkdirat(parent, base, 0o700); err != nil {
				return err
			}
		}
		return u.directory(parent, base, full, hdr)
	}
	return u.create(parent, base, hdr, in)
}

// reach opens a directory of the root, and makes what is missing of it.
func (r *Root) reach(name string) (int, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || name == "/" {
		return fd, err
	}
	above, err := r.reach(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(name), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat(above, path.Base(name), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// own sets the attributes of the directory that is extracted into.
func (u *unpacker) own(full string, hdr *tar.Header) error {
	fd, err := u.root.open(full, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	u.made = append(u.made, made{full, hdr.ModTime})
	return u.attributes(fd, hdr)
}

// clear makes room for an entry; exists says that a directory is there that stays.
func (u *unpacker) clear(parent int, base, full string, hdr *tar.Header) (exists bool, err error) {
	st, err := statAt(parent, base)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	wasDir, isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR, hdr.Typeflag == tar.TypeDir
	switch {
	case wasDir && isDir:
		return true, nil
	case u.o.KeepKind && wasDir:
		return false, fmt.Errorf("cannot overwrite directory %q with non-directory: %w", full, errdefs.ErrInvalidArgument)
	case u.o.KeepKind && isDir:
		return false, fmt.Errorf("cannot overwrite non-directory %q with directory: %w", full, errdefs.ErrInvalidArgument)
	}
	return false, removeAll(parent, base)
}

// removeAll removes base in dir and all below it, following nothing.
func removeAll(dir int, base string) error {
	err := unix.Unlinkat(dir, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := removeAll(fd, n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(dir, base, unix.AT_REMOVEDIR)
}

func (u *unpacker) directory(parent int, base, full string, hdr *tar.Header) error {
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	u.made = append(u.made, made{full, hdr.ModTime})
	return u.attributes(fd, hdr)
}

// create makes anything but a directory.
func (u *unpacker) create(parent int, base string, hdr *tar.Header, in io.Reader) (err error) {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return u.file(parent, base, hdr, in)
	case tar.TypeLink:
		return u.link(parent, base, hdr)
	case tar.TypeSymlink:
		err = unix.Symlinkat(hdr.Linkname, parent, base)
	case tar.TypeFifo:
		err = unix.Mknodat(parent, base, unix.S_IFIFO, 0)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if hdr.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		err = unix.Mknodat(parent, base, kind, int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))))
	default:
		return fmt.Errorf("unknown type %q: %w", hdr.Typeflag, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return err
	}
	uid, gid := u.owner(hdr)
	if err := unix.Fchownat(parent, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		if err := chmodAt(parent, base, uint32(hdr.Mode)&0o7777); err != nil {
			return err
		}
	}
	return setTimes(parent, base, hdr.ModTime)
}

// chmodAt changes the mode of a node without opening it: by its O_PATH descriptor,
// which cannot be exchanged for a link.
func chmodAt(dir int, base string, mode uint32) error {
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return unix.ELOOP
	}
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode)
}

func (u *unpacker) file(parent int, base string, hdr *tar.Header, in io.Reader) error {
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if _, err := io.Copy(f, in); err != nil {
		return err
	}
	if err := u.attributes(fd, hdr); err != nil {
		return err
	}
	return setTimes(parent, base, hdr.ModTime)
}

// link makes a hard link to what another entry of the tar is; its name leads where
// an entry of that name would have gone.
func (u *unpacker) link(parent int, base string, hdr *tar.Header) error {
	target := path.Join(u.dir, clean(hdr.Linkname))
	dir, err := u.root.open(path.Dir(target), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, path.Base(target), parent, base, 0)
}

func (u *unpacker) owner(hdr *tar.Header) (uid, gid int) {
	if u.o.Owner != nil {
		return u.o.Owner.UID, u.o.Owner.GID
	}
	return hdr.Uid, hdr.Gid
}

// attributes sets owner, mode and xattrs. The owner comes first: its change takes
// set-user-ID bits and capabilities away.
func (u *unpacker) attributes(fd int, hdr *tar.Header) error {
	uid, gid := u.owner(hdr)
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return err
	}
	for key, value := range hdr.PAXRecords {
		name, is := strings.CutPrefix(key, paxXattr)
		if !is || name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}

func setTimes(dir int, base string, mtime time.Time) error {
	ts := unix.NsecToTimespec(mtime.UnixNano())
	return unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish sets the times of directories, which every entry in them had changed.
func (u *unpacker) finish() error {
	for i := len(u.made) - 1; i >= 0; i-- {
		fd, err := u.root.open(u.made[i].path, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // a later entry took its place
		}
		if err != nil {
			return err
		}
		err = setTimes(fd, ".", u.made[i].mtime)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}
