package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	api "github.com/containerd/containerd/api/services/mounts/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/filter"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// mounts is containerd.services.mounts.v1.Mounts. Mounts that the kernel can mount as
// they are need no activation: clients are told so by Unimplemented, as containerd
// does, and mount them themselves. What has transforms, is a loop device, or is to be
// temporary is mounted here.
type mounts struct {
	api.UnimplementedMountsServer
	dir  string
	root string // lifecycle's data
	db   *meta.DB
	log  *slog.Logger

	mu sync.Mutex // one activation at a time
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
	return m.in(s.Namespace, name), nil
}

// all are the directories of the activations in a namespace.
func (m *mounts) all(ns string) ([]string, error) {
	return filepath.Glob(filepath.Join(m.dir, ns, "*"))
}

func (m *mounts) in(ns, name string) string {
	return filepath.Join(m.dir, ns, digest.FromString(name).Encoded())
}

func (m *mounts) Activate(ctx context.Context, r *api.ActivateRequest) (*api.ActivateResponse, error) {
	dir, err := m.at(ctx, r.Name)
	if err != nil {
		return nil, err
	}
	here, ok := plan(r.Mounts, r.Temporary)
	if !ok {
		return nil, fmt.Errorf("activate mounts %q: the kernel mounts them as they are: %w", r.Name, errdefs.ErrNotImplemented)
	}
	if err := meta.CheckLabels(r.Labels); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := &types.ActivationInfo{Name: r.Name, Labels: r.Labels}
	if err := m.activate(ctx, dir, header(ctx, leaseHeader), info, r.Mounts, here, r.Temporary); err != nil {
		return nil, fmt.Errorf("activate mounts %q: %w", r.Name, err)
	}
	return &api.ActivateResponse{Info: info}, nil
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

// rootfs activates the mounts of a task's root filesystem where that is needed, and
// gives what the shim is to mount. They end with the task, or with its container.
func (m *mounts) rootfs(ctx context.Context, ns, id string, all []*types.Mount) (rest []*types.Mount, activated bool, err error) {
	here, ok := plan(all, false)
	if !ok {
		return all, false, nil
	}
	// It would be of a task that is gone: there is no other.
	if err := m.endTask(ns, id); err != nil {
		return nil, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info := &types.ActivationInfo{Name: id, Labels: map[string]string{labelTask: id}}
	err = m.activate(ctx, m.in(ns, id), "", info, all, here, false)
	if errdefs.IsAlreadyExists(err) { // the client's own, made for this task
		info, err = readActivation(m.in(ns, id))
		return info.GetSystem(), false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("activate mounts of task %s: %w", id, err)
	}
	return info.System, true, nil
}

// endTask deactivates what was activated for a task.
func (m *mounts) endTask(ns, id string) error {
	dir := m.in(ns, id)
	// Most tasks have none.
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := readActivation(dir)
	if errdefs.IsNotFound(err) || err == nil && info.Labels[labelTask] != id {
		return nil
	} else if err != nil {
		return err
	}
	if err := deactivate(dir); err != nil {
		return fmt.Errorf("deactivate mounts of task %s: %w", id, err)
	}
	return nil
}

// labelBackRef, with a kind and a name of the client's after it, says what keeps an
// activation; a lease does too (containerd, docs/garbage-collection.md).
const labelBackRef = "containerd.io/gc.bref."

// labelTask is the one on the activation of a task's mounts.
const labelTask = labelBackRef + "container"

// collect deactivates what nothing keeps. It is called when garbage was collected.
func (m *mounts) collect(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, err := m.all("*")
	for _, dir := range all {
		info, rerr := readActivation(dir)
		if errdefs.IsNotFound(rerr) {
			continue // a deactivation that failed, for the next start
		}
		if rerr == nil && !m.kept(ctx, filepath.Base(filepath.Dir(dir)), dir, info) {
			rerr = deactivate(dir)
		}
		err = errors.Join(err, rerr)
	}
	if err != nil {
		m.log.Error("deactivate mounts that nothing needs", "err", err)
	}
}

func (m *mounts) kept(ctx context.Context, ns, dir string, info *types.ActivationInfo) bool {
	scope := meta.Scope{Namespace: ns}
	if lease, err := os.ReadFile(filepath.Join(dir, leaseOf)); err == nil && m.leased(ns, string(lease)) {
		return true
	}
	for label, value := range info.Labels {
		kind, ok := strings.CutPrefix(label, labelBackRef)
		if !ok {
			continue
		}
		kind, rest, _ := strings.Cut(strings.ReplaceAll(kind, "/", "."), ".")
		var err error
		switch kind {
		case "container":
			_, err = m.db.Containers(ns).Get(value)
		case "image":
			_, err = m.db.Images(ns).Get(ctx, value)
		case "content":
			_, err = m.db.Content(scope).Info(ctx, digest.Digest(value))
		case "snapshot":
			snapshotter, _, _ := strings.Cut(rest, ".")
			err = m.snapshot(ctx, scope, snapshotter, value)
		default:
			continue
		}
		if !errdefs.IsNotFound(err) {
			return true
		}
	}
	return false
}

// leased says whether there is a lease, or that is not known.
func (m *mounts) leased(ns, id string) bool {
	all, err := m.db.Leases(ns).List(fmt.Sprintf("id==%q", id))
	return err != nil || len(all) > 0
}

func (m *mounts) snapshot(ctx context.Context, s meta.Scope, snapshotter, key string) error {
	store, err := m.db.Snapshots(s, snapshotter)
	if err != nil {
		return err
	}
	_, err = store.Stat(ctx, key)
	return err
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

// Update writes labels, all of them where the mask names none.
func (m *mounts) Update(ctx context.Context, r *api.UpdateRequest) (*api.UpdateResponse, error) {
	dir, err := m.at(ctx, r.Info.GetName())
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := readActivation(dir)
	if err != nil {
		return nil, fmt.Errorf("mounts %q: %w", r.Info.Name, err)
	}
	if info.Labels, err = meta.EditLabels(info.Labels, r.Info.Labels, r.UpdateMask.GetPaths()); err != nil {
		return nil, fmt.Errorf("update mounts %q: %w", r.Info.Name, err)
	}
	if err := writeActivation(dir, info); err != nil {
		return nil, fmt.Errorf("update mounts %q: %w", r.Info.Name, err)
	}
	return &api.UpdateResponse{Info: info}, nil
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
	all, err := m.all(s.Namespace)
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
