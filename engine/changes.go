package engine

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/engine/internal/rootfs"
	"github.com/gantryd/gantry/internal/mount"
)

// getChanges is GET /containers/{id}/changes.
func (c *containers) getChanges(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	changes, err := c.changes(r.Context(), k)
	if err != nil {
		return err
	}
	return replyJSON(w, http.StatusOK, changes)
}

// changes compares what the container wrote, its overlay's upper directory, with
// the layers below, which are mounted for that.
func (c *containers) changes(ctx context.Context, k *ctr) ([]container.FilesystemChange, error) {
	mounts, err := c.rootfs(ctx, k)
	if err != nil {
		return nil, err
	}
	upper, below, ok := splitOverlay(mounts)
	if !ok {
		return nil, because(errdefs.ErrNotImplemented, "changes of container %s: snapshotter %s has no layers to compare", k.id, c.cfg.Snapshotter)
	}
	d := &differ{ctx: ctx, upper: upper, list: []container.FilesystemChange{}, mounted: mountedOn()}
	if below == nil { // an image without layers
		err = d.walk("/")
	} else {
		var root *rootfs.Root
		if root, err = rootfs.Mounted(c.scratch(k.id+"-layers"), below, nil); err != nil {
			return nil, err
		}
		d.lower = root
		err = errors.Join(d.walk("/"), root.Close())
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(d.list, func(a, b container.FilesystemChange) int { return strings.Compare(a.Path, b.Path) })
	return d.list, nil
}

// splitOverlay gives the directory that a snapshot is written to, and the mounts
// of what is below it.
func splitOverlay(mounts []mount.Mount) (upper string, below []mount.Mount, ok bool) {
	if len(mounts) != 1 {
		return "", nil, false
	}
	m := mounts[0]
	if m.Type == "bind" {
		return m.Source, nil, true
	}
	var lower string
	for _, o := range m.Options {
		if v, is := strings.CutPrefix(o, "upperdir="); is {
			upper = v
		}
		if v, is := strings.CutPrefix(o, "lowerdir="); is {
			lower = v
		}
	}
	if m.Type != "overlay" || upper == "" || lower == "" {
		return "", nil, false
	}
	if !strings.Contains(lower, ":") { // an overlay of one directory is none
		return upper, []mount.Mount{{Type: "bind", Source: lower, Options: []string{"ro", "rbind"}}}, true
	}
	return upper, []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + lower}}}, true
}

// differ collects what is in upper and how it differs from lower.
type differ struct {
	ctx   context.Context
	upper string
	lower *rootfs.Root // nil: nothing is below
	list  []container.FilesystemChange

	mounted map[string]bool // what the runtime made to mount on it
}

// mountedOn is where something is mounted in every container.
func mountedOn() map[string]bool {
	on := map[string]bool{}
	for _, name := range []string{
		"/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys", "/sys/fs/cgroup",
		"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/sbin/docker-init",
	} {
		on[name] = true
	}
	return on
}

func (d *differ) add(kind container.ChangeType, name string) {
	d.list = append(d.list, container.FilesystemChange{Kind: kind, Path: name})
}

// walk looks at what is in the directory dir. The upper directory is the
// container's to write: nothing in it is followed.
func (d *differ) walk(dir string) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(d.upper, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it went meanwhile
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.entry(path.Join(dir, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) entry(name string, e fs.DirEntry) error {
	was, had, err := d.below(name)
	if err != nil {
		return err
	}
	full := filepath.Join(d.upper, name)
	switch {
	case isWhiteout(full, e):
		if had {
			d.add(container.ChangeDelete, name)
		}
		return nil
	case !had && d.mounted[name]:
	case !had:
		d.add(container.ChangeAdd, name)
	case !e.IsDir() || !was.Mode.IsDir():
		d.add(container.ChangeModify, name)
	}
	if !e.IsDir() {
		return nil
	}
	inside := len(d.list)
	if had && was.Mode.IsDir() && isOpaque(full) {
		if err := d.hidden(name, full); err != nil {
			return err
		}
	}
	if err := d.walk(name); err != nil {
		return err
	}
	// A directory that is there for what is in it alone has not changed.
	if had && was.Mode.IsDir() && (len(d.list) > inside || !sameAttributes(full, was)) {
		d.add(container.ChangeModify, name)
	}
	return nil
}

// sameAttributes says whether the directory full has the mode and owner that it
// has below.
func sameAttributes(full string, was rootfs.Stat) bool {
	var st unix.Stat_t
	return unix.Lstat(full, &st) == nil && st.Mode == was.Sys.Mode && st.Uid == was.Sys.Uid && st.Gid == was.Sys.Gid
}

// hidden adds what an opaque directory hides and has nothing in the place of.
func (d *differ) hidden(dir, full string) error {
	names, err := d.lower.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, err := os.Lstat(filepath.Join(full, n)); errors.Is(err, fs.ErrNotExist) {
			d.add(container.ChangeDelete, path.Join(dir, n))
		}
	}
	return nil
}

// below tells of name in the layers below.
func (d *differ) below(name string) (st rootfs.Stat, had bool, err error) {
	if d.lower == nil {
		return st, false, nil
	}
	st, err = d.lower.Stat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return st, false, nil
	}
	return st, err == nil, err
}

// isWhiteout says whether name hides a file below: a character device 0/0
// (Documentation/filesystems/overlayfs.rst).
func isWhiteout(name string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeCharDevice == 0 {
		return false
	}
	var st unix.Stat_t
	return unix.Lstat(name, &st) == nil && st.Rdev == 0
}

func isOpaque(name string) bool {
	var v [1]byte
	n, err := unix.Lgetxattr(name, "trusted.overlay.opaque", v[:])
	return err == nil && n == 1 && v[0] == 'y'
}
