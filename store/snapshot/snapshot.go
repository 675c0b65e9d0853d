// Package snapshot is the door to layers as filesystems. disk keeps them with
// the layouts of containerd's snapshotters overlayfs and native, proxy asks a containerd over
// gRPC, and snapshottest holds every implementation to the same behaviour.
//
// A snapshot is committed (read-only, can be a parent), active (being written)
// or a view. Names are unique; lifecycle makes them per namespace. Kinds of error
// are those of errdefs: NotFound, AlreadyExists, FailedPrecondition (removing a
// parent that has children), InvalidArgument.
package snapshot

import (
	"context"
	"time"

	"github.com/gantryd/gantry/internal/mount"
)

// Kind of a snapshot.
type Kind uint8

// The kinds, with the numbers of containerd's database.
const (
	Unknown   Kind = 0
	View      Kind = 1
	Active    Kind = 2
	Committed Kind = 3
)

// Info is what a snapshotter knows of one snapshot.
type Info struct {
	Kind    Kind
	Name    string
	Parent  string
	Labels  map[string]string
	Created time.Time
	Updated time.Time
}

// Usage of a snapshot itself, without its parents.
type Usage struct {
	Inodes int64
	Size   int64 // bytes
}

// Snapshotter is the door.
type Snapshotter interface {
	Stat(ctx context.Context, key string) (Info, error)
	Update(ctx context.Context, info Info, fieldpaths ...string) (Info, error)
	Usage(ctx context.Context, key string) (Usage, error)
	// Mounts of an active snapshot or a view; it mounts nothing itself.
	Mounts(ctx context.Context, key string) ([]mount.Mount, error)
	Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error)
	View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error)
	// Commit turns active key into committed name; key is gone then.
	Commit(ctx context.Context, name, key string, labels map[string]string) error
	Remove(ctx context.Context, key string) error
	Walk(ctx context.Context, fn func(Info) error, filters ...string) error
	Close() error
}
