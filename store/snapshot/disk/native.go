package disk

import (
	"context"
	"os"

	"github.com/containerd/continuity/fs"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/snapshot"
)

// native copies the whole parent into each active snapshot, and needs nothing of
// the kernel: for a store on a filesystem that overlayfs refuses.
//
//	snapshots/ID         all the files
type native struct{}

// Native opens, or makes, containerd's snapshotter native in root.
func Native(root string) (*Snapshotter, error) { return open(root, native{}) }

func (native) rebases() bool           { return false }
func (native) files(dir string) string { return dir }

func (native) make(_ context.Context, dir string, kind snapshot.Kind, parents []string) error {
	if kind == snapshot.Active && len(parents) > 0 {
		return fs.CopyDir(dir, parents[0])
	}
	return os.Chmod(dir, 0o755)
}

func (native) mounts(dir string, kind snapshot.Kind, parents []string) []mount.Mount {
	if kind == snapshot.Active {
		return bind(dir, "rw")
	}
	if len(parents) > 0 {
		dir = parents[0]
	}
	return bind(dir, "ro")
}
