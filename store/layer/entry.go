package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// paxXattr begins the PAX records that carry xattrs.
const paxXattr = "SCHILY.xattr."

// create makes the entry base in parent. What is there already is replaced, but
// for a directory by a directory.
func (x *extractor) create(parent *dir, base, name string, hdr *tar.Header, r io.Reader) error {
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(parent, base, name, hdr)
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(parent, base, hdr, r)
	case tar.TypeLink:
		return x.link(parent, base, hdr)
	case tar.TypeSymlink:
		return x.special(parent, base, hdr, func() error {
			return unix.Symlinkat(hdr.Linkname, parent.fd, base)
		})
	case tar.TypeChar:
		return x.node(parent, base, hdr, unix.S_IFCHR)
	case tar.TypeBlock:
		return x.node(parent, base, hdr, unix.S_IFBLK)
	case tar.TypeFifo:
		return x.node(parent, base, hdr, unix.S_IFIFO)
	case tar.TypeXGlobalHeader:
		return nil // says nothing about a file
	}
	return fmt.Errorf("entry of unknown type %q: %w", hdr.Typeflag, errdefs.ErrInvalidArgument)
}

// replacing calls make, and once more after it has removed what is in the way.
func (x *extractor) replacing(parent *dir, base string, make func() error) error {
	err := make()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := removeAll(parent.fd, base); err != nil {
		return err
	}
	x.root.forget(parent)
	return make()
}

func (x *extractor) directory(parent *dir, base, name string, hdr *tar.Header) error {
	replaced := false
	err := unix.Mkdirat(parent.fd, base, 0o700)
	if errors.Is(err, unix.EEXIST) && !isDir(parent.fd, base) {
		replaced = true
		err = x.replacing(parent, base, func() error { return unix.Mkdirat(parent.fd, base, 0o700) })
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := unix.Openat(parent.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if replaced && x.mode == convert {
		// What this layer had there before, a whiteout or a file, hid the parent's directory.
		if err := setOpaque(fd); err != nil {
			return err
		}
	}
	x.times = append(x.times, dirTime{name, hdr})
	delete(x.made, name)
	// A new directory has the group of a setgid parent: always say whose it is.
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode(hdr)); err != nil {
		return err
	}
	return setXattrs(fd, hdr)
}

// rootEntry sets the attributes of the layer's root.
func (x *extractor) rootEntry(hdr *tar.Header) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if hdr.Typeflag != tar.TypeDir {
		return fmt.Errorf("the root is not a directory: %w", errdefs.ErrInvalidArgument)
	}
	fd := x.root.root.fd
	x.times = append(x.times, dirTime{".", hdr})
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode(hdr)); err != nil {
		return err
	}
	return setXattrs(fd, hdr)
}

func isDir(fd int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// mode is what chmod(2) takes.
func mode(hdr *tar.Header) uint32 { return uint32(hdr.Mode) & 0o7777 }

func (x *extractor) file(parent *dir, base string, hdr *tar.Header, r io.Reader) (err error) {
	var fd int
	perm := mode(hdr)
	err = x.replacing(parent, base, func() (err error) {
		fd, err = unix.Openat(parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm&0o777)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
	}()
	if err := x.fill(fd, hdr, r); err != nil {
		return err
	}
	// chown takes setuid, setgid and capabilities away: it comes first.
	owned := hdr.Uid == 0 && hdr.Gid == 0 && !parent.setgid
	if !owned {
		if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
			return err
		}
	}
	if perm&0o7000 != 0 || perm&x.umask != 0 {
		if err := unix.Fchmod(fd, perm); err != nil {
			return err
		}
	}
	if err := setXattrs(fd, hdr); err != nil {
		return err
	}
	return futimens(fd, hdr)
}

// fill copies the entry's bytes to fd.
func (x *extractor) fill(fd int, hdr *tar.Header, r io.Reader) error {
	if hdr.Size == 0 {
		return nil
	}
	if sparse(hdr) {
		return x.fillSparse(fd, hdr, r)
	}
	for left := hdr.Size; left > 0; {
		n, err := io.ReadFull(r, x.buf[:min(int64(len(x.buf)), left)])
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if err := writeAll(fd, x.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// sparse says whether the entry has holes, in one of GNU tar's forms.
func sparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// holeSize is the length of the zeros that become a hole.
const holeSize = 64 << 10

// fillSparse leaves zeros out. The size comes first: one that the file system
// cannot have is refused before terabytes of zeros are read.
func (x *extractor) fillSparse(fd int, hdr *tar.Header, r io.Reader) error {
	if err := unix.Ftruncate(fd, hdr.Size); err != nil {
		return err
	}
	var zeros [holeSize]byte
	for off := int64(0); off < hdr.Size; {
		p := x.buf[:min(holeSize, hdr.Size-off)]
		if _, err := io.ReadFull(r, p); err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if string(p) != string(zeros[:len(p)]) {
			if _, err := unix.Seek(fd, off, io.SeekStart); err != nil {
				return err
			}
			if err := writeAll(fd, p); err != nil {
				return err
			}
		}
		off += int64(len(p))
	}
	return nil
}

// link makes a hard link to what the layer has at Linkname, never through a
// symbolic link at its end.
func (x *extractor) link(parent *dir, base string, hdr *tar.Header) error {
	target, err := inside(hdr.Linkname)
	if err != nil {
		return err
	}
	tdir, tbase := path.Split(target)
	from := parent.fd
	if tdir = path.Clean(tdir); tdir == parent.path {
		if tbase == base {
			return fmt.Errorf("hard link to itself: %w", errdefs.ErrInvalidArgument)
		}
	} else {
		// Not by x.root.open: that may close parent.
		from, err = x.root.openat2(tdir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT)
		if err == nil {
			defer unix.Close(from)
		}
	}
	if err == nil {
		err = x.replacing(parent, base, func() error { return unix.Linkat(from, tbase, parent.fd, base, 0) })
	}
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hard link to %q, which this layer does not have: %w", hdr.Linkname, err)
	}
	return err
}

func (x *extractor) node(parent *dir, base string, hdr *tar.Header, kind uint32) error {
	return x.special(parent, base, hdr, func() error {
		dev := unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor))
		if err := unix.Mknodat(parent.fd, base, kind|mode(hdr)&0o777, int(dev)); err != nil {
			return err
		}
		return fchmodat(parent.fd, base, mode(hdr))
	})
}

// special makes what has no content, with owner and times. It has no descriptor,
// so it goes by its name in parent, where nobody else writes.
func (x *extractor) special(parent *dir, base string, hdr *tar.Header, make func() error) error {
	if err := x.replacing(parent, base, make); err != nil {
		return err
	}
	if err := unix.Fchownat(parent.fd, base, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := setXattrsOf(parent.fd, base, hdr); err != nil {
		return err
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(parent.fd, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

func fchmodat(fd int, name string, mode uint32) error {
	return unix.Fchmodat(fd, name, mode, 0)
}

// xattrs of an entry, in order. overlayfs's own are not an image's to say: they
// would make it look elsewhere for a file.
func xattrs(hdr *tar.Header) []string {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	var names []string
	for _, k := range slices.Sorted(maps.Keys(hdr.PAXRecords)) {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		names = append(names, name)
	}
	return names
}

func setXattrs(fd int, hdr *tar.Header) error {
	for _, name := range xattrs(hdr) {
		if err := unix.Fsetxattr(fd, name, []byte(hdr.PAXRecords[paxXattr+name]), 0); err != nil && !tolerable(name, err) {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}

// setXattrsOf is for what cannot be opened: by /proc, as there is no lsetxattrat
// before Linux 6.13.
func setXattrsOf(fd int, base string, hdr *tar.Header) error {
	for _, name := range xattrs(hdr) {
		p := fmt.Sprintf("/proc/self/fd/%d/%s", fd, base)
		if err := unix.Lsetxattr(p, name, []byte(hdr.PAXRecords[paxXattr+name]), 0); err != nil && !tolerable(name, err) {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}

// tolerable says whether an image works without that xattr where the file system
// or the kernel refuses it. Without its capabilities a program does not.
func tolerable(name string, err error) bool {
	refused := errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL)
	return refused && name != "security.capability"
}
