package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Root is a container's root file system as the directories of its layers, the
// topmost first: an overlay's upperdir and lowerdirs, or the one directory of a
// mounted root. It is read as overlayfs would show it, without mounting it.
type Root []string

// The bounds of a lookup: of a file in bytes, and of symbolic links and ".." on
// the way.
const (
	maxFile  = 16 << 20
	maxLinks = 255
)

// RootOf gives the Root that a snapshotter's mount of the type with the options
// would show: an overlay, or a bind of one directory. It is false for others,
// which must be mounted and read as Root{MOUNTPOINT}.
func RootOf(fstype, source string, options []string) (Root, bool) {
	switch fstype {
	case "bind", "rbind":
		return Root{source}, true
	case "overlay":
	default:
		return nil, false
	}
	var upper, lower []string
	for _, o := range options {
		if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
			upper = []string{dir}
		}
		if dirs, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lower = strings.Split(dirs, ":")
		}
	}
	return append(upper, lower...), true
}

// ReadFile reads the regular file name. Symbolic links are followed inside the
// root; no step of the way leaves a layer, since each opens one name, never
// "..", in a directory that is held open, and follows nothing.
func (r Root) ReadFile(name string) ([]byte, error) {
	links := 0
	for {
		data, link, err := r.read(clean(name))
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if link == "" {
			return data, nil
		}
		if links++; links > maxLinks {
			return nil, &fs.PathError{Op: "read", Path: name, Err: unix.ELOOP}
		}
		name = link
	}
}

// clean splits name into its elements below the root.
func clean(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(e string) bool { return e == "" || e == "." })
}

// read walks to elems and reads the file there, or says by which path it goes on
// behind the symbolic link that is in the way.
func (r Root) read(elems []string) (data []byte, link string, err error) {
	if len(elems) == 0 {
		return nil, "", unix.EISDIR
	}
	dirs, err := openAll(r)
	defer func() { closeAll(dirs) }()
	if err != nil {
		return nil, "", err
	}
	for i, e := range elems {
		if e == ".." { // what is before it was walked, and has no link any more
			return nil, "/" + strings.Join(slices.Concat(elems[:max(0, i-1)], elems[i+1:]), "/"), nil
		}
		last := i == len(elems)-1
		found, err := lookup(dirs, e)
		if err != nil {
			return nil, "", err
		}
		closeAll(dirs)
		dirs = found.dirs
		switch {
		case found.link != "":
			base := elems[:i]
			if strings.HasPrefix(found.link, "/") {
				base = nil
			}
			return nil, strings.Join(slices.Concat(base, []string{found.link}, elems[i+1:]), "/"), nil
		case found.file != nil && last:
			data, err := readAll(found.file)
			return data, "", err
		case found.file != nil:
			found.file.Close()
			return nil, "", unix.ENOTDIR
		case last:
			return nil, "", unix.EISDIR
		}
	}
	return nil, "", unix.ENOENT
}

// entry is what one name is in the merged tree: a directory (of several layers),
// a file, or a symbolic link.
type entry struct {
	dirs []int
	file *os.File
	link string
}

// lookup finds name in the layers' directories, the topmost first, by the rules
// of overlayfs: a whiteout (character device 0:0) hides what is below it, and so
// does a directory that is opaque or anything that is no directory.
func lookup(dirs []int, name string) (e entry, err error) {
	for _, dir := range dirs {
		var st unix.Stat_t
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			closeAll(e.dirs)
			return entry{}, err
		}
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFCHR && st.Rdev == 0 || kind != unix.S_IFDIR && e.dirs != nil {
			break
		}
		if kind != unix.S_IFDIR {
			return leaf(dir, name, kind)
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			closeAll(e.dirs)
			return entry{}, err
		}
		e.dirs = append(e.dirs, fd)
		if opaque(fd) {
			break
		}
	}
	if e.dirs == nil {
		return entry{}, unix.ENOENT
	}
	return e, nil
}

// leaf opens what is no directory.
func leaf(dir int, name string, kind uint32) (entry, error) {
	switch kind {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return entry{}, err
		}
		return entry{link: string(buf[:n])}, nil
	case unix.S_IFREG:
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return entry{}, err
		}
		return entry{file: os.NewFile(uintptr(fd), name)}, nil
	}
	return entry{}, fmt.Errorf("not a regular file: %w", unix.EINVAL)
}

// opaque says whether the directory hides those below it.
func opaque(fd int) bool {
	var value [1]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, attr, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// readAll reads and closes f, which is as large as the image's maker liked.
func readAll(f *os.File) ([]byte, error) {
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = unix.EFBIG
	}
	return data, err
}

func openAll(names []string) (fds []int, err error) {
	for _, n := range names {
		fd, err := unix.Open(n, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fds, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
