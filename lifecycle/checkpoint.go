package lifecycle

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	shim "github.com/containerd/containerd/api/runtime/task/v3"
	api "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/errs"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// A checkpoint is two blobs, as containerd has them: a tar of CRIU's images, and
// the container's specification in its Any. Clients put them into an index beside
// the image and a diff of the writable layer.
const (
	mediaTypeCheckpoint       = "application/vnd.containerd.container.criu.checkpoint.criu.tar"
	mediaTypeCheckpointConfig = "application/vnd.containerd.container.checkpoint.config.v1+proto"
)

// Checkpoint has the shim write the task's processes to files, and keeps those as
// content; a client that names a directory has the files there alone.
func (t *tasks) Checkpoint(ctx context.Context, r *api.CheckpointTaskRequest) (_ *api.CheckpointTaskResponse, err error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	c, err := t.db.Containers(s.Namespace).Get(r.ContainerID)
	if err != nil {
		return nil, err
	}
	tk, err := t.shims.Task(ctx, s.Namespace, r.ContainerID)
	if err != nil {
		return nil, err
	}
	var o options.CheckpointOptions
	if err := optionsInto(r.Options, &o); err != nil {
		return nil, fmt.Errorf("checkpoint task %s: %w", r.ContainerID, err)
	}
	write := func(dir string) error {
		return tk.Call(ctx, "Checkpoint", &shim.CheckpointTaskRequest{ID: r.ContainerID, Path: dir, Options: r.Options}, &emptypb.Empty{})
	}
	if o.ImagePath != "" {
		return &api.CheckpointTaskResponse{}, write(o.ImagePath)
	}
	dir, err := os.MkdirTemp(tk.WorkDir(), "checkpoint-")
	if err != nil {
		return nil, fmt.Errorf("checkpoint task %s: %w", r.ContainerID, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := write(dir); err != nil {
		return nil, err
	}
	spec, err := proto.Marshal(c.Spec)
	if err != nil {
		return nil, err
	}
	var resp api.CheckpointTaskResponse
	for _, blob := range []struct {
		mediaType string
		fill      func(io.Writer) error
	}{
		{mediaTypeCheckpoint, func(w io.Writer) error { return pack(w, dir) }},
		{mediaTypeCheckpointConfig, func(w io.Writer) error { _, err := w.Write(spec); return err }},
	} {
		desc, err := keepBlob(ctx, t.db.Content(s), blob.mediaType, blob.fill)
		if err != nil {
			return nil, fmt.Errorf("keep the checkpoint of %s: %w", r.ContainerID, err)
		}
		resp.Descriptors = append(resp.Descriptors, descriptorToAPI(desc))
	}
	return &resp, nil
}

// optionsInto reads options of runc's shim; none are as good.
func optionsInto(a *anypb.Any, m proto.Message) error {
	if a == nil {
		return nil
	}
	if string(m.ProtoReflect().Descriptor().FullName()) != string(a.MessageName()) {
		return errs.Because(errdefs.ErrInvalidArgument, "options of type %s are not %s", a.TypeUrl, m.ProtoReflect().Descriptor().FullName())
	}
	if err := proto.Unmarshal(a.Value, m); err != nil {
		return errs.Because(errdefs.ErrInvalidArgument, "parse options: %w", err)
	}
	return nil
}

// keepBlob writes a blob whose digest nobody knows yet.
func keepBlob(ctx context.Context, store meta.Content, mediaType string, fill func(io.Writer) error) (_ ocispec.Descriptor, err error) {
	ref := "checkpoint-" + rand.Text()
	w, err := store.Writer(ctx, ref, ocispec.Descriptor{MediaType: mediaType})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer errs.Undo(&err, func() error { return store.Abort(context.WithoutCancel(ctx), ref) })
	defer w.Close() // before the abort: an open ingest cannot be aborted
	if err := fill(w); err != nil {
		return ocispec.Descriptor{}, err
	}
	return keep(ctx, store, w, mediaType, nil)
}

// pack writes the files of dir as a tar.
func pack(w io.Writer, dir string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil || fi.Mode()&(fs.ModeSocket|fs.ModeNamedPipe) != 0 {
			return err
		}
		link := ""
		if fi.Mode()&fs.ModeSymlink != 0 { // to the images of an earlier pre-dump
			if link, err = os.Readlink(name); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(fi, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(dir, name); err != nil {
			return err
		}
		if err := out.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(out, f)
		return err
	})
	return errors.Join(err, out.Close())
}

// unpack reads what pack wrote into dir, which is new. It may come from anywhere:
// nothing leads out of dir, and links are refused.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.Because(errdefs.ErrInvalidArgument, "read the tar: %w", err)
		}
		name := filepath.Clean(h.Name)
		switch {
		case !filepath.IsLocal(name):
			err = errs.Because(errdefs.ErrInvalidArgument, "it leads out of the directory")
		case h.Typeflag == tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
		case h.Typeflag == tar.TypeReg:
			err = unpackFile(root, name, in)
		default:
			err = errs.Because(errdefs.ErrInvalidArgument, "it is no file (type %q)", h.Typeflag)
		}
		if err != nil {
			return fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

func unpackFile(root *os.Root, name string, r io.Reader) (err error) {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return errs.Because(errdefs.ErrInvalidArgument, "it comes twice")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, r)
	return err
}

// images are those that a task is created from: a directory of the client's, or
// the checkpoint desc, which fill unpacks into a directory of the task. Without
// either both are nothing.
func (t *tasks) images(ctx context.Context, s meta.Scope, r *api.CreateTaskRequest) (dir string, fill func(dir string) error, err error) {
	var o options.Options
	if r.Options.MessageIs(&o) {
		if err := optionsInto(r.Options, &o); err != nil {
			return "", nil, err
		}
	}
	desc := r.Checkpoint
	switch {
	case o.CriuImagePath != "" || desc.GetDigest() == "":
		return o.CriuImagePath, nil, nil
	case desc.MediaType != mediaTypeCheckpoint:
		return "", nil, errs.Because(errdefs.ErrInvalidArgument, "a checkpoint of type %q: %s is due", desc.MediaType, mediaTypeCheckpoint)
	}
	return "", func(dir string) error { return t.unpackImages(ctx, s, desc, dir) }, nil
}

func (t *tasks) unpackImages(ctx context.Context, s meta.Scope, desc *types.Descriptor, dir string) error {
	ra, err := t.db.Content(s).ReaderAt(ctx, descriptorFromAPI(desc))
	if err != nil {
		return err
	}
	defer ra.Close()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := unpack(io.NewSectionReader(ra, 0, ra.Size()), dir); err != nil {
		return fmt.Errorf("checkpoint %s: %w", desc.Digest, errs.Disk(err))
	}
	return nil
}
