package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle/docker"
	"github.com/gantryd/gantry/engine/internal/rootfs"
)

// copyUp copies what the image has at the place of a new volume into it, with
// owner and mode of the directory itself.
func (c *containers) copyUp(ctx context.Context, k *ctr, p docker.Point) error {
	into, err := rootfs.Directory(p.Source)
	if err != nil {
		return err
	}
	defer into.Close()
	err = c.withSnapshot(ctx, k, nil, func(root *rootfs.Root) error {
		st, err := root.Stat(p.Destination + "/.")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || err == nil && !st.Mode.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		return copyTree(ctx, root, p.Destination, into)
	})
	if err != nil {
		return fmt.Errorf("copy %s of the image into volume %s: %w", p.Destination, p.Name, err)
	}
	return nil
}

// copyTree copies the content of the directory dir into the root into.
func copyTree(ctx context.Context, from *rootfs.Root, dir string, into *rootfs.Root) error {
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := from.Pack(ctx, w, dir+"/.")
		w.CloseWithError(err)
		packed <- err
	}()
	err := into.Unpack(ctx, "/", r, rootfs.UnpackOptions{})
	r.CloseWithError(err)
	return errors.Join(err, <-packed)
}

// openSubpath opens a directory or file of a volume, whose content is a
// container's and may have links in it that lead elsewhere (CVE-2021-30465): the
// mount is made by the descriptor, not by a path.
func openSubpath(dir, sub string) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open volume", Path: dir, Err: err}
	}
	defer unix.Close(at)
	for {
		fd, err := unix.Openat2(at, sub, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOENT):
			return nil, invalid("cannot access path %s/%s: no such file or directory", dir, sub)
		case errors.Is(err, unix.EXDEV):
			return nil, invalid("path %q leads out of the volume", sub)
		case err != nil:
			return nil, invalid("open %s of volume: %w", sub, err)
		}
		return os.NewFile(uintptr(fd), sub), nil
	}
}

// held are the subpaths of volumes for one start, by the mount's place in the
// record, open until the task has them mounted.
type held map[int]*os.File

func (h held) close() {
	for _, f := range h {
		f.Close()
	}
}

// source is where the mount i comes from: by our descriptor, which another process
// of this host can open too (proc(5)).
func (h held) source(i int, otherwise string) string {
	f := h[i]
	if f == nil {
		return otherwise
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}
