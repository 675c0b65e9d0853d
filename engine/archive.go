package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle"
	"github.com/gantryd/gantry/bundle/docker"
	"github.com/gantryd/gantry/engine/internal/rootfs"
	"github.com/gantryd/gantry/store/layer"
)

// statHeader carries what is known of the path that an archive is of.
const statHeader = "X-Docker-Container-Path-Stat"

// headArchive is HEAD /containers/{id}/archive?path=…
func (c *containers) headArchive(w http.ResponseWriter, r *http.Request) error {
	return c.atPath(r, func(k *ctr, root *rootfs.Root, path string) error {
		if err := tellStat(w, root, path); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	})
}

// getArchive is GET /containers/{id}/archive?path=…
func (c *containers) getArchive(w http.ResponseWriter, r *http.Request) error {
	return c.atPath(r, func(k *ctr, root *rootfs.Root, path string) error {
		if err := tellStat(w, root, path); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/x-tar")
		return c.sendTar(w, k, func(w *begunWriter) error { return root.Pack(r.Context(), w, path) })
	})
}

// sendTar writes a tar as the answer. One that breaks off must not look whole: the
// connection is cut.
func (c *containers) sendTar(w http.ResponseWriter, k *ctr, pack func(*begunWriter) error) error {
	begun := &begunWriter{w: w}
	err := pack(begun)
	if err == nil || !begun.begun {
		return err
	}
	c.cfg.Log.Warn("archive breaks off", "container", k.id, "err", err)
	panic(http.ErrAbortHandler)
}

// putArchive is PUT /containers/{id}/archive?path=…
func (c *containers) putArchive(w http.ResponseWriter, r *http.Request) error {
	return c.atPath(r, func(k *ctr, root *rootfs.Root, path string) error {
		o := rootfs.UnpackOptions{KeepKind: boolValue(r, "noOverwriteDirNonDir")}
		var err error
		if boolValue(r, "copyUIDGID") {
			if o.Owner, err = c.ownerOf(r.Context(), k); err != nil {
				return err
			}
		}
		if k.snapshot().HostConfig.ReadonlyRootfs && !inVolume(k.snapshot(), path) {
			return because(errdefs.ErrPermissionDenied, "container rootfs is marked read-only")
		}
		k.notReady()
		plain, _, err := layer.Decompress(r.Body)
		if err != nil {
			return invalid("read archive: %w", err)
		}
		defer plain.Close()
		err = root.Unpack(r.Context(), path, plain, o)
		switch {
		case errors.Is(err, unix.ENOTDIR):
			return invalid("extraction point is not a directory")
		case errors.Is(err, unix.EROFS):
			return because(errdefs.ErrPermissionDenied, "mounted volume is marked read-only")
		case err != nil:
			return err
		}
		w.WriteHeader(http.StatusOK)
		return nil
	})
}

// inVolume says whether path is below something that is mounted in the container.
func inVolume(rec record, path string) bool {
	path = filepath.Clean("/" + path)
	for _, p := range rec.Mounts {
		if rel, err := filepath.Rel(p.Destination, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

// atPath runs f on the root of the container that r names, and on the path in it.
func (c *containers) atPath(r *http.Request, f func(k *ctr, root *rootfs.Root, path string) error) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	path := r.FormValue("path")
	if path == "" {
		return invalid("missing required parameter: path")
	}
	err = c.withRoot(r.Context(), k, func(root *rootfs.Root) error { return f(k, root, path) })
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("Could not find the file %s in container %s", path, r.PathValue("id"))
	}
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENAMETOOLONG) {
		return invalid("%w", err)
	}
	return err
}

// withRoot runs f on the root of k: as its processes see it, where it runs, else
// its snapshot and volumes, which nothing starts meanwhile.
func (c *containers) withRoot(ctx context.Context, k *ctr, f func(*rootfs.Root) error) (err error) {
	if root, ok, err := taskRoot(k, rootfs.Task); err != nil {
		return err
	} else if ok {
		defer root.Close()
		return f(root)
	}
	k.life.Lock()
	defer k.life.Unlock()
	if k.live() != nil { // it was started while we waited
		root, _, err := taskRoot(k, rootfs.Task)
		if err != nil {
			return err
		}
		defer root.Close()
		return f(root)
	}
	rec := k.snapshot()
	subs, err := c.mountVolumes(ctx, k, rec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.unmountVolumes(ctx, k)) }()
	defer func() { err = errors.Join(err, subs.close()) }()
	var binds []rootfs.Bind
	for i, p := range rec.Mounts {
		if p.Type == mount.TypeVolume || p.Type == mount.TypeBind {
			binds = append(binds, rootfs.Bind{Source: subs.source(i, p.Source), Destination: p.Destination, ReadOnly: !p.RW})
		}
	}
	return c.withSnapshot(ctx, k, binds, f)
}

// taskRoot opens the root of the task that runs, if one does, and makes sure that
// it is that of this task: a process ID may be another's by now.
func taskRoot(k *ctr, open func(pid int) (*rootfs.Root, error)) (root *rootfs.Root, runs bool, err error) {
	r := k.live()
	if r == nil || r.pid == 0 {
		return nil, false, nil
	}
	root, err = open(r.pid)
	if r.over() {
		if err == nil {
			root.Close()
		}
		return nil, false, nil
	}
	return root, err == nil, err
}

// withSnapshot mounts the snapshot of k, which does not run, for f.
func (c *containers) withSnapshot(ctx context.Context, k *ctr, binds []rootfs.Bind, f func(*rootfs.Root) error) (err error) {
	mounts, err := c.rootfs(ctx, k)
	if err != nil {
		return err
	}
	root, err := rootfs.Mounted(c.scratch(k.id), mounts, binds)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	return f(root)
}

// scratch is where the root of a container that does not run is mounted for a
// moment.
func (c *containers) scratch(id string) string { return filepath.Join(c.cfg.State, "roots", id) }

// tellStat sets the header that says what is at path.
func tellStat(w http.ResponseWriter, root *rootfs.Root, path string) error {
	st, err := root.Stat(path)
	if err != nil {
		return err
	}
	data, err := json.Marshal(container.PathStat{
		Name: st.Name, Size: st.Size, Mode: st.Mode, Mtime: st.ModTime, LinkTarget: st.Link,
	})
	if err != nil {
		return fmt.Errorf("stat %s: %w", path, err)
	}
	w.Header().Set(statHeader, base64.StdEncoding.EncodeToString(data))
	return nil
}

// ownerOf is the user that the container runs as.
func (c *containers) ownerOf(ctx context.Context, k *ctr) (*rootfs.Owner, error) {
	rec := k.snapshot()
	if rec.Config.User == "" {
		return nil, nil
	}
	mounts, err := c.rootfs(ctx, k)
	if err != nil {
		return nil, err
	}
	layers, err := layersOf(mounts)
	if err != nil {
		return nil, err
	}
	wishes, err := docker.Container(rec.Config, rec.HostConfig)
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	p, err := bundle.Process(wishes, layers)
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	return &rootfs.Owner{UID: int(p.User.UID), GID: int(p.User.GID)}, nil
}

// getExport is GET /containers/{id}/export: the container's own files, without
// what is mounted there.
func (c *containers) getExport(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	export := func(root *rootfs.Root) error {
		w.Header().Set("Content-Type", "application/octet-stream")
		return c.sendTar(w, k, func(w *begunWriter) error { return root.PackRoot(r.Context(), w) })
	}
	root, runs, err := taskRoot(k, rootfs.TaskLayers)
	if err != nil {
		return err
	}
	if runs {
		defer root.Close()
		return export(root)
	}
	k.life.Lock()
	defer k.life.Unlock()
	if k.live() != nil {
		return conflict("container %s was started meanwhile", k.id)
	}
	return c.withSnapshot(r.Context(), k, nil, export)
}
