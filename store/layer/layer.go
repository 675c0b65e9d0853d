// Package layer turns a layer's tar into a directory and back: Apply extracts
// onto a snapshot, Diff writes what a snapshot changed.
//
// Its input is hostile. Every path is resolved by the kernel below the directory
// that is extracted into (openat2, RESOLVE_IN_ROOT, Linux 5.6), so that neither a
// name nor a symbolic link, whoever made it and when, leads out.
//
// A layer is written as an overlayfs upper directory wherever that is what a
// snapshot is: a whiteout becomes a character device 0/0, an opaque directory has
// the xattr trusted.overlay.opaque. It then does not need its parent to be
// written, only to be shown; the parent is asked for one thing, the attributes of
// directories that the tar goes through without an entry for them (Inherit).
package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gantryd/gantry/internal/mount"
)

// Apply extracts the uncompressed tar r onto an active snapshot that is given by
// its mounts. An overlay is written by its upper directory, without mounting it.
func Apply(ctx context.Context, mounts []mount.Mount, r io.Reader) error {
	upper, lower := overlayDirs(mounts)
	if upper != "" {
		implicit, err := extract(ctx, upper, convert, r)
		if err != nil {
			return err
		}
		return inherit(upper, lower, implicit)
	}
	return within(mounts, func(dir string) error {
		_, err := extract(ctx, dir, remove, r)
		return err
	})
}

// ApplyAlone extracts the layer onto a snapshot that was prepared without its
// parent and gets it at commit. base says that the layer has none, so that there
// is nothing for a whiteout to hide. The directories that it gives need Inherit
// before the commit.
func ApplyAlone(ctx context.Context, mounts []mount.Mount, base bool, r io.Reader) (implicit []string, err error) {
	mode := convert
	if base {
		mode = ignore
	}
	err = within(mounts, func(dir string) error {
		implicit, err = extract(ctx, dir, mode, r)
		return err
	})
	return implicit, err
}

// Inherit gives directories that ApplyAlone made without an entry for them the
// owner, mode and xattrs that they have in the parent, which is given by the
// mounts of a view.
func Inherit(mounts []mount.Mount, implicit []string, parent []mount.Mount) error {
	_, lower := overlayDirs(parent)
	if len(parent) == 1 && parent[0].Type == "bind" {
		lower = []string{parent[0].Source}
	}
	return within(mounts, func(dir string) error { return inherit(dir, lower, implicit) })
}

// overlayDirs reads an overlay mount's options; upper is empty if mounts is
// another thing, or read-only. lower has the topmost first.
func overlayDirs(mounts []mount.Mount) (upper string, lower []string) {
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return "", nil
	}
	for _, o := range mounts[0].Options {
		if v, ok := strings.CutPrefix(o, "upperdir="); ok {
			upper = v
		}
		if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
			lower = strings.Split(v, ":")
		}
	}
	return upper, lower
}

// within calls fn with a directory that shows mounts: the source of a single
// bind, else a temporary mount point.
func within(mounts []mount.Mount, fn func(dir string) error) (err error) {
	if len(mounts) == 1 && (mounts[0].Type == "bind" || mounts[0].Type == "rbind") {
		return fn(mounts[0].Source)
	}
	dir, err := os.MkdirTemp("", "gantry-layer-")
	if err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	// Remove, not RemoveAll: were it still mounted, that would eat the layer.
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := mount.All(mounts, dir); err != nil {
		return err
	}
	defer func() {
		for range mounts {
			err = errors.Join(err, mount.Unmount(dir))
		}
	}()
	return fn(dir)
}
