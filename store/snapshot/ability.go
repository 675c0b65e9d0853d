package snapshot

import "context"

// Rebaser is an optional ability of a Snapshotter. With it the layers of an
// image can be extracted side by side: each is prepared without a parent, and
// finds its parent only when it is committed. (On the wire it is the field
// parent of containerd's CommitSnapshotRequest.)
type Rebaser interface {
	// Rebases says whether the snapshotter below has the ability too.
	Rebases() bool
	// CommitOnto is Commit for an active snapshot that was prepared without a
	// parent; parent, a committed snapshot, becomes the parent of name.
	CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error
}

// Cleaner is an optional ability of a Snapshotter whose Remove only makes a
// snapshot unreachable.
type Cleaner interface {
	// Cleanup frees what removed snapshots, or a crash, left behind.
	Cleanup(ctx context.Context) error
}
