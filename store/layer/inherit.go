package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// inherit gives each directory of implicit, below upper, the owner, mode and
// xattrs of the directory that lower (topmost first) shows at its path. One that
// lower does not have stays root's, 0755.
func inherit(upper string, lower, implicit []string) error {
	if len(implicit) == 0 || len(lower) == 0 {
		return nil
	}
	root, err := openRoot(upper)
	if err != nil {
		return err
	}
	defer root.close()
	for _, name := range implicit {
		if err := inheritOne(root, lower, name); err != nil {
			return fmt.Errorf("take attributes of %q over: %w", name, err)
		}
	}
	return nil
}

func inheritOne(root *dirs, lower []string, name string) error {
	for _, layer := range lower {
		from, hides, err := lookup(layer, name)
		if err != nil {
			return err
		}
		if from >= 0 {
			defer unix.Close(from)
			to, err := root.openat2(name, unix.O_RDONLY|unix.O_DIRECTORY, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
			if err != nil {
				return err
			}
			defer unix.Close(to)
			return copyAttributes(to, from)
		}
		if hides {
			return nil
		}
	}
	return nil
}

// lookup opens the directory name in one layer, -1 where it has none; hides says
// that the layers below do not show theirs either.
func lookup(layer, name string) (fd int, hides bool, err error) {
	fd, err = unix.Open(layer, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, err
	}
	for _, part := range strings.Split(path.Clean(name), "/") {
		sub, err := unix.Openat(fd, part, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) {
			return -1, hides, nil
		}
		if err != nil {
			return -1, true, nil // a whiteout, or a file
		}
		fd = sub
		var mark [1]byte
		if n, err := unix.Fgetxattr(fd, opaqueXattr, mark[:]); err == nil && n == 1 && mark[0] == 'y' {
			hides = true
		}
	}
	return fd, hides, nil
}

func copyAttributes(to, from int) error {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names, err := listXattrs(func(b []byte) (int, error) { return unix.Flistxattr(from, b) })
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value, err := readXattr(func(b []byte) (int, error) { return unix.Fgetxattr(from, name, b) })
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(to, name, value, 0); err != nil && !tolerable(name, err) {
			return err
		}
	}
	return nil
}

// listXattrs splits what a listxattr call fills in; a file system without them
// has none.
func listXattrs(call func([]byte) (int, error)) ([]string, error) {
	data, err := readXattr(call)
	if errors.Is(err, unix.ENOTSUP) || len(data) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), err
}

// readXattr calls with a buffer that is large enough.
func readXattr(call func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := call(buf)
		if !errors.Is(err, unix.ERANGE) {
			return buf[:max(n, 0)], err
		}
		if n, err = call(nil); err != nil {
			return nil, err
		}
		buf = make([]byte, n+64)
	}
}
