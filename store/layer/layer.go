// Package layer turns a layer's tar into a directory and back: Apply extracts
// onto a snapshot, Diff writes what a snapshot changed.
//
// Its input is hostile. Every path is resolved by the kernel below the
// directory that is extracted into (openat2, RESOLVE_IN_ROOT), so that neither
// a name nor a symbolic link, whoever made it and when, leads out.
package layer

import (
	"context"
	"io"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/mount"
)

// Apply extracts the uncompressed tar r onto a snapshot that is given by its
// mounts. An overlay is written by its upper directory, without mounting it.
func Apply(ctx context.Context, mounts []mount.Mount, r io.Reader) error {
	return errdefs.ErrNotImplemented
}

// Diff writes the tar of what upper changed against lower, both given as the
// mounts of snapshots.
func Diff(ctx context.Context, lower, upper []mount.Mount, w io.Writer) error {
	return errdefs.ErrNotImplemented
}

// Decompress reads r as gzip or zstd or as it is, by its first bytes.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	return nil, errdefs.ErrNotImplemented
}
