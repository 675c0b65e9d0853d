package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// dirs opens directories below a root and keeps some of them open: most entries
// are in the directory of the one before.
type dirs struct {
	root dir
	have map[string]*dir
	last *dir
}

// dir is an open directory.
type dir struct {
	fd     int
	path   string
	setgid bool // what is made in it gets its group
}

// maxOpen directories are kept.
const maxOpen = 128

func openRoot(name string) (*dirs, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	d := &dirs{root: dir{fd: fd, path: "."}, have: map[string]*dir{}}
	d.last = &d.root
	return d, nil
}

func (d *dirs) close() {
	d.forget(nil)
	unix.Close(d.root.fd)
}

// forget closes all directories but the root and keep, which may be nil. It must
// be called when something goes away that the path of a kept one may lead through.
func (d *dirs) forget(keep *dir) {
	d.last = &d.root
	for name, c := range d.have {
		if c == keep {
			d.last = keep
			continue
		}
		unix.Close(c.fd)
		delete(d.have, name)
	}
}

// open gives the directory of that clean path, until the next call of open or
// forget. Symbolic links are followed inside the root.
func (d *dirs) open(name string) (*dir, error) {
	if name == d.last.path {
		return d.last, nil
	}
	if name == "." {
		return &d.root, nil
	}
	if c, ok := d.have[name]; ok {
		d.last = c
		return c, nil
	}
	fd, err := d.openat2(name, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT)
	if err != nil {
		return nil, fmt.Errorf("open directory %q: %w", name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if len(d.have) >= maxOpen {
		d.forget(nil)
	}
	d.last = &dir{fd: fd, path: name, setgid: st.Mode&unix.S_ISGID != 0}
	d.have[name] = d.last
	return d.last, nil
}

// openat2 resolves name below the root; it tries again where the kernel says that
// a rename elsewhere got in its way.
func (d *dirs) openat2(name string, flags int, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Resolve: resolve | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(d.root.fd, name, &how)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// setTime sets the time of a directory that the layer has an entry for, unless
// something else took its place.
func (d *dirs) setTime(name string, hdr *tar.Header) error {
	fd, err := d.openat2(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, unix.RESOLVE_IN_ROOT)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return futimens(fd, hdr)
}

// times are those of access and change; a tar without an access time means the same.
func times(hdr *tar.Header) [2]unix.Timespec {
	at := hdr.AccessTime
	if at.IsZero() {
		at = hdr.ModTime
	}
	return [2]unix.Timespec{timespec(at), timespec(hdr.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// futimens sets the times of an open file, without a name (Linux 5.8).
func futimens(fd int, hdr *tar.Header) error {
	ts := times(hdr)
	return unix.UtimesNanoAt(fd, "", ts[:], unix.AT_EMPTY_PATH)
}

func readlinkat(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// isWhiteout says whether name is overlayfs's whiteout.
func isWhiteout(fd int, name string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// removeAll removes name and what is below it, never following a link.
func removeAll(fd int, name string) error {
	err := unix.Unlinkat(fd, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	if err := emptyDir(fd, name, func(string) bool { return true }); err != nil {
		return err
	}
	return unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
}

// emptyDir removes what is in the directory name and whose name is chosen.
func emptyDir(fd int, name string, chosen func(string) bool) error {
	sub, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	names, err := readNames(sub)
	if err != nil {
		return err
	}
	for _, n := range names {
		if chosen(n) {
			if err := removeAll(sub, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// readNames lists an open directory, without . and ..
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
