package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle/docker"
	"github.com/gantryd/gantry/engine/internal/rootfs"
)

// copyUp copies what the image has at the place of a new volume into it, with
// owner and mode of the directory itself.
func (c *containers) copyUp(ctx context.Context, k *ctr, p docker.Point) error {
	err := c.withSnapshot(ctx, k, nil, func(root *rootfs.Root) error {
		st, err := root.Stat(p.Destination + "/.")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || err == nil && !st.Mode.IsDir() {
			return nil
		}
		if err != nil {
			return err
		}
		return c.volumes.store.Fill(p.Name, func(dir string) error {
			into, err := rootfs.Directory(dir)
			if err != nil {
				return err
			}
			defer into.Close()
			return copyTree(ctx, root, p.Destination, into)
		})
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

// held are the subpaths of volumes for one start, each mounted at a place of its
// own until the task has it, by the mount's place in the record.
type held map[int]string

// source is where the mount i comes from.
func (h held) source(i int, otherwise string) string {
	if at, ok := h[i]; ok {
		return at
	}
	return otherwise
}

func (h held) close() error {
	var errs error
	for _, at := range h {
		errs = errors.Join(errs, rootfs.Unmount(at))
	}
	return errs
}

// shm stands in held for the /dev/shm of another container, which is no mount of
// this one's record.
const shm = -1

// holdShm makes the /dev/shm of the container whose IPC namespace is shared
// visible on the host: a mount of another namespace cannot be bound.
func (c *containers) holdShm(id string, rec record, subs held) error {
	ref := rec.HostConfig.IpcMode.Container()
	if ref == "" {
		return nil
	}
	pid, err := c.sharer(ref, "ipc")
	if err != nil {
		return err
	}
	at := filepath.Join(c.cfg.State, "roots", id+"-shm")
	if err := rootfs.ShowTask(pid, "/dev/shm", at); err != nil {
		return err
	}
	subs[shm] = at
	return nil
}

// hold makes a directory or file of a volume visible at a place where no container
// can put something else: a volume's content is a container's, and may have links
// in it that lead elsewhere (CVE-2021-30465, CVE-2023-0628 of Kubernetes).
func (c *containers) hold(id string, i int, dir, sub string) (at string, err error) {
	root, err := rootfs.Directory(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	at = filepath.Join(c.cfg.State, "roots", fmt.Sprintf("%s-%d", id, i))
	err = root.Show(sub, at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", invalid("cannot access path %s of volume: no such file or directory", sub)
	case errors.Is(err, unix.EXDEV):
		return "", invalid("path %q leads out of the volume", sub)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		return "", invalid("open %s of volume: %w", sub, err)
	}
	return at, err
}
