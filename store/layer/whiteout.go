package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// opaqueXattr marks a directory that hides the parent's of the same name.
const opaqueXattr = "trusted.overlay.opaque"

func setOpaque(fd int) error {
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark directory opaque: %w", err)
	}
	return nil
}

// whiteout carries out an entry whose name begins with .wh.; it is about the
// parent's files only, never about this layer's.
func (x *extractor) whiteout(dir, base string) error {
	if base == opaqueMarker {
		return x.opaque(dir)
	}
	if strings.HasPrefix(base, aufsPrefix) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return fmt.Errorf("whiteout of %q: %w", hidden, errdefs.ErrInvalidArgument)
	}
	switch x.mode {
	case convert:
		return x.hide(dir, hidden)
	case remove:
		return x.removeHidden(dir, hidden)
	}
	return nil
}

// hide makes overlayfs's whiteout. A directory that this layer already put there
// stays and hides the parent's; a file does so anyway.
func (x *extractor) hide(dir, hidden string) error {
	parent, err := x.parent(dir)
	if err != nil {
		return err
	}
	err = unix.Mknodat(parent.fd, hidden, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if isDir(parent.fd, hidden) {
		return x.opaque(path.Join(dir, hidden))
	}
	return nil
}

func (x *extractor) removeHidden(dir, hidden string) error {
	if _, ours := x.placed[path.Join(dir, hidden)]; ours {
		return nil
	}
	parent, err := x.root.open(dir)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := removeAll(parent.fd, hidden); err != nil {
		return err
	}
	x.root.forget(nil)
	return nil
}

// opaque hides all that the parent has in dir.
func (x *extractor) opaque(dir string) error {
	switch x.mode {
	case convert:
		d, err := x.parent(dir)
		if err != nil {
			return err
		}
		return setOpaque(d.fd)
	case remove:
		return x.emptyHidden(dir)
	}
	return nil
}

func (x *extractor) emptyHidden(name string) error {
	d, err := x.root.open(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	var kept []string
	err = emptyDir(d.fd, ".", func(base string) bool {
		_, ours := x.placed[path.Join(name, base)]
		if ours {
			kept = append(kept, base)
		}
		return !ours
	})
	if err != nil {
		return err
	}
	x.root.forget(nil)
	for _, base := range kept {
		// Of a directory that is in both, only what this layer has stays.
		if d, err := x.root.open(name); err == nil && isDir(d.fd, base) {
			if err := x.emptyHidden(path.Join(name, base)); err != nil {
				return err
			}
		}
	}
	return nil
}
