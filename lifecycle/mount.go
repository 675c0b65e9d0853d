package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	api "github.com/containerd/containerd/api/services/mounts/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/internal/mount"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// mounts is containerd.services.mounts.v1.Mounts. An activation is a directory:
//
//	STATE/mounts/NAMESPACE/DIGEST OF NAME/info.json   the ActivationInfo; written last
//	                                     /0, /1, …    what is mounted
//	                                     /lease       with which it ends, if any
//
// Our snapshotter's mounts are the kernel's own, which need no activation: clients
// are told so by Unimplemented, as containerd does, and mount them themselves.
// Temporary mounts are made.
type mounts struct {
	api.UnimplementedMountsServer
	dir string

	mu sync.Mutex // one activation at a time
}

const (
	mountsDir    = "mounts"
	activationOf = "info.json"
	leaseOf      = "lease"
)

// newMounts undoes activations that a predecessor was killed in.
func newMounts(dir string) (*mounts, error) {
	all, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	var failed error
	for _, a := range all {
		if _, err := os.Lstat(filepath.Join(a, activationOf)); errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, deactivate(a))
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("undo mounts: %w", failed)
	}
	return &mounts{dir: dir}, nil
}

// deactivate unmounts what is mounted in a, the last first, and removes it. Cut off,
// it is gone on with at the next start, since the first thing to go is the info.
func deactivate(a string) error {
	if err := os.Remove(filepath.Join(a, activationOf)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(a)
	if err != nil {
		return err
	}
	number := func(e fs.DirEntry) int {
		n, _ := strconv.Atoi(e.Name())
		return n
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return number(b) - number(a) })
	for _, e := range entries {
		path := filepath.Join(a, e.Name())
		if err := mount.Unmount(path); err != nil {
			return err
		}
		// Not RemoveAll: it would eat what is still mounted.
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Remove(a)
}

// at is the directory of an activation.
func (m *mounts) at(ctx context.Context, name string) (string, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return "", err
	}
	if name == "" {
		return "", fmt.Errorf("mounts without a name: %w", errdefs.ErrInvalidArgument)
	}
	return filepath.Join(m.dir, s.Namespace, digest.FromString(name).Encoded()), nil
}

func (m *mounts) Activate(ctx context.Context, r *api.ActivateRequest) (_ *api.ActivateResponse, err error) {
	dir, err := m.at(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	for _, mt := range r.Mounts {
		if strings.Contains(mt.Type, "/") {
			return nil, fmt.Errorf("activate mounts %q: transform of type %s: %w", r.Name, mt.Type, errdefs.ErrNotImplemented)
		}
	}
	if !r.Temporary {
		return nil, fmt.Errorf("activate mounts %q: the kernel mounts them as they are: %w", r.Name, errdefs.ErrNotImplemented)
	}
	if err := meta.CheckLabels(r.Labels); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("mounts %q: %w", r.Name, errdefs.ErrAlreadyExists)
	} else if err != nil {
		return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
	}
	defer errs.Undo(&err, func() error { return deactivate(dir) })
	if lease := header(ctx, leaseHeader); lease != "" {
		if err := os.WriteFile(filepath.Join(dir, leaseOf), []byte(lease), 0o600); err != nil {
			return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
		}
	}
	info := &types.ActivationInfo{Name: r.Name, Labels: r.Labels}
	for i, mt := range r.Mounts {
		active, err := activate(mt, filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
		}
		info.Active = append(info.Active, active)
	}
	if n := len(info.Active); n > 0 {
		// What the client mounts where it wants to have it.
		info.System = []*types.Mount{{Type: "bind", Source: info.Active[n-1].MountPoint, Options: []string{"rbind"}}}
	}
	data, err := protojson.Marshal(info)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, activationOf), data, 0o600); err != nil {
		return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
	}
	return &api.ActivateResponse{Info: info}, nil
}

func activate(mt *types.Mount, point string) (*types.ActiveMount, error) {
	if err := os.Mkdir(point, 0o700); err != nil {
		return nil, err
	}
	if err := mount.All(mountsFromAPI([]*types.Mount{mt}), point); err != nil {
		return nil, err
	}
	return &types.ActiveMount{Mount: mt, MountedAt: timestamppb.Now(), MountPoint: point}, nil
}

func (m *mounts) Deactivate(ctx context.Context, r *api.DeactivateRequest) (*emptypb.Empty, error) {
	dir, err := m.at(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := readActivation(dir); err != nil {
		return nil, fmt.Errorf("mounts %q: %w", r.Name, err)
	}
	if err := deactivate(dir); err != nil {
		return nil, fmt.Errorf("deactivate mounts %q: %w", r.Name, err)
	}
	return &emptypb.Empty{}, nil
}

// endLease deactivates what was activated under a lease that was deleted.
func (m *mounts) endLease(ns, lease string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, err := filepath.Glob(filepath.Join(m.dir, ns, "*", leaseOf))
	for _, file := range all {
		if id, rerr := os.ReadFile(file); rerr == nil && string(id) == lease {
			err = errors.Join(err, deactivate(filepath.Dir(file)))
		}
	}
	if err != nil {
		return fmt.Errorf("deactivate mounts of lease %s: %w", lease, err)
	}
	return nil
}

func (m *mounts) Info(ctx context.Context, r *api.InfoRequest) (*api.InfoResponse, error) {
	dir, err := m.at(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	info, err := readActivation(dir)
	if err != nil {
		return nil, fmt.Errorf("mounts %q: %w", r.Name, err)
	}
	return &api.InfoResponse{Info: info}, nil
}

func readActivation(dir string) (*types.ActivationInfo, error) {
	data, err := os.ReadFile(filepath.Join(dir, activationOf))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errdefs.ErrNotFound
	} else if err != nil {
		return nil, err
	}
	var info types.ActivationInfo
	return &info, protojson.Unmarshal(data, &info)
}

func (m *mounts) List(r *api.ListRequest, srv api.Mounts_ListServer) error {
	s, err := scopeOf(srv.Context())
	if err != nil {
		return err
	}
	f, err := filter.Parse(r.Filters...)
	if err != nil {
		return err
	}
	all, err := filepath.Glob(filepath.Join(m.dir, s.Namespace, "*"))
	if err != nil {
		return err
	}
	for _, dir := range all {
		info, err := readActivation(dir)
		if errdefs.IsNotFound(err) {
			continue // it is being made, or taken away
		} else if err != nil {
			return err
		}
		if !f.Match(activationFields(info)) {
			continue
		}
		if err := srv.Send(&api.ListMessage{Info: info}); err != nil {
			return err
		}
	}
	return nil
}

func activationFields(i *types.ActivationInfo) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return i.Name, true
		case "labels":
			return filter.Labels(i.Labels, path[1:])
		}
		return "", false
	}
}
