package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// whiteouts says what a whiteout does in the directory that is written.
type whiteouts uint8

const (
	ignore  whiteouts = iota // nothing is below: there is nothing to hide
	convert                  // it is an overlayfs upper directory: overlayfs's own form
	remove                   // it shows the parent's files: they are removed
)

// The names of whiteouts in a layer's tar (image-spec, layer.md).
const (
	whiteoutPrefix = ".wh."
	opaqueMarker   = ".wh..wh..opq"
	aufsPrefix     = ".wh..wh." // other names of aufs's own, which mean nothing here
)

// copySize is how many bytes of a file are read from the tar at a time.
const copySize = 256 << 10

// extractor writes one layer.
type extractor struct {
	root   *dirs
	mode   whiteouts
	umask  uint32
	buf    []byte
	times  []dirTime
	made   map[string]struct{} // directories without an entry
	placed map[string]struct{} // what this layer has put there, in mode remove
}

// dirTime is a directory whose time is set when nothing is written into it any more.
type dirTime struct {
	path string
	hdr  *tar.Header
}

// extract writes the tar r below dir and gives the directories that it made
// without an entry for them, parents first.
func extract(ctx context.Context, dir string, mode whiteouts, r io.Reader) ([]string, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.close()
	x := &extractor{root: root, mode: mode, umask: currentUmask(), buf: make([]byte, copySize), made: map[string]struct{}{}}
	if mode == remove {
		x.placed = map[string]struct{}{}
	}
	tr := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		if err := x.entry(hdr, tr); err != nil {
			return nil, fmt.Errorf("extract %q: %w", hdr.Name, errs.Disk(err))
		}
	}
	// What follows the end marker is padding, and part of the layer's digest.
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r}, x.buf); err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	for i := len(x.times) - 1; i >= 0; i-- {
		if err := x.root.setTime(x.times[i].path, x.times[i].hdr); err != nil {
			return nil, fmt.Errorf("set time of %q: %w", x.times[i].path, err)
		}
	}
	return slices.Sorted(maps.Keys(x.made)), nil
}

// entry extracts one entry.
func (x *extractor) entry(hdr *tar.Header, r io.Reader) error {
	name, err := inside(hdr.Name)
	if err != nil {
		return err
	}
	if name == "." {
		return x.rootEntry(hdr)
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if strings.HasPrefix(base, whiteoutPrefix) {
		return x.whiteout(dir, base)
	}
	parent, err := x.parent(dir)
	if err != nil {
		return err
	}
	if err := x.create(parent, base, name, hdr, r); err != nil {
		return err
	}
	x.place(name)
	return nil
}

// inside cleans a name and refuses one that leads out of the layer.
func inside(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", fmt.Errorf("name with a zero byte: %w", errdefs.ErrInvalidArgument)
	}
	clean := path.Clean(strings.TrimLeft(name, "/"))
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("%q leads out of the layer: %w", name, errdefs.ErrInvalidArgument)
	}
	return clean, nil
}

// place notes that this layer has put name there, and so what is above it.
func (x *extractor) place(name string) {
	if x.placed == nil {
		return
	}
	for name != "." {
		if _, ok := x.placed[name]; ok {
			return
		}
		x.placed[name] = struct{}{}
		name = path.Dir(name)
	}
}

// parent opens the directory dir of the layer, and makes it where the tar has no
// entry for it.
func (x *extractor) parent(dir string) (*dir, error) {
	d, err := x.root.open(dir)
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return d, err
	}
	if err := x.mkdirAll(dir, 0); err != nil {
		return nil, err
	}
	return x.root.open(dir)
}

// maxLinks is how many symbolic links mkdirAll follows, as the kernel does.
const maxLinks = 40

// mkdirAll makes dir and what is missing above it. A symbolic link that leads
// nowhere yet has its target made, inside the root.
func (x *extractor) mkdirAll(dir string, links int) error {
	if _, err := x.root.open(dir); err == nil {
		return nil
	}
	if links > maxLinks {
		return unix.ELOOP
	}
	above, base := path.Dir(dir), path.Base(dir)
	if err := x.mkdirAll(above, links); err != nil {
		return err
	}
	parent, err := x.root.open(above)
	if err != nil {
		return err
	}
	err = unix.Mkdirat(parent.fd, base, 0o755)
	if err == nil {
		x.made[dir] = struct{}{}
		return fchmodat(parent.fd, base, 0o755)
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make directory %q: %w", dir, err)
	}
	if target, err := readlinkat(parent.fd, base); err == nil {
		if !path.IsAbs(target) {
			target = path.Join("/", above, target)
		}
		return x.mkdirAll(path.Clean(strings.TrimLeft(path.Clean(target), "/")), links+1)
	}
	if x.mode == convert && isWhiteout(parent.fd, base) {
		// The layer removed it from the parent, and then put a file below it.
		if err := unix.Unlinkat(parent.fd, base, 0); err != nil {
			return err
		}
		if err := unix.Mkdirat(parent.fd, base, 0o755); err != nil {
			return err
		}
		return x.opaque(dir)
	}
	return fmt.Errorf("%q is not a directory: %w", dir, unix.ENOTDIR)
}

// currentUmask reads the mask without changing it, as umask(2) would for the
// whole process.
func currentUmask() uint32 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777 // unknown: every mode is set anew
	}
	for line := range strings.Lines(string(data)) {
		var m uint32
		if n, _ := fmt.Sscanf(line, "Umask: %o", &m); n == 1 {
			return m
		}
	}
	return 0o777
}
