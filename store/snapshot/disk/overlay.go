package disk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/snapshot"
)

// overlay stacks the directories of a snapshot and its parents by overlayfs.
//
//	snapshots/ID/fs      the layer, an upper or lower directory
//	snapshots/ID/work    overlayfs's own, beside fs
type overlay struct {
	options []string // of every overlay mount
}

// Overlay opens, or makes, containerd's snapshotter overlayfs in root.
func Overlay(root string) (*Snapshotter, error) {
	var o overlay
	// Lower directories are shared by many mounts and copied between machines: an
	// index of their inodes would refuse both (kernel: overlayfs.rst, "Inode index").
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		o.options = append(o.options, "index=off")
	}
	if inUserNamespace() {
		o.options = append(o.options, "userxattr") // trusted.* is for the initial one (5.11)
	}
	return open(root, o)
}

// inUserNamespace says whether this process is root of a part of the ids only.
func inUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(data))
	return err == nil && len(f) >= 3 && f[2] != "4294967295"
}

func (overlay) rebases() bool           { return true }
func (overlay) files(dir string) string { return filepath.Join(dir, "fs") }

func (o overlay) make(_ context.Context, dir string, kind snapshot.Kind, parents []string) error {
	if err := os.Mkdir(o.files(dir), 0o755); err != nil {
		return err
	}
	if kind == snapshot.Active {
		if err := os.Mkdir(filepath.Join(dir, "work"), 0o711); err != nil {
			return err
		}
	}
	if len(parents) == 0 {
		return nil
	}
	// The root directory of the merged tree is that of the upper directory.
	fi, err := os.Stat(o.files(parents[0]))
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 && st.Gid == 0 {
		return nil
	}
	return os.Chown(o.files(dir), int(st.Uid), int(st.Gid))
}

// mounts is a bind where one directory is all there is, else an overlay.
func (o overlay) mounts(dir string, kind snapshot.Kind, parents []string) []mount.Mount {
	if kind == snapshot.Active && len(parents) == 0 {
		return bind(o.files(dir), "rw")
	}
	if len(parents) == 0 {
		return bind(o.files(dir), "ro")
	}
	if kind == snapshot.View && len(parents) == 1 {
		return bind(o.files(parents[0]), "ro")
	}
	options := append([]string(nil), o.options...)
	if kind == snapshot.Active {
		options = append(options, "workdir="+filepath.Join(dir, "work"), "upperdir="+o.files(dir))
	}
	lower := make([]string, len(parents))
	for i, parent := range parents {
		lower[i] = o.files(parent)
	}
	options = append(options, "lowerdir="+strings.Join(lower, ":"))
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}
