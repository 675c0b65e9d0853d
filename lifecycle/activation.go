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

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/mount"
)

// An activation is a directory:
//
//	STATE/mounts/NAMESPACE/DIGEST OF NAME/info.json   the ActivationInfo; written last
//	                                     /0, /1, …    what is mounted, or a link to a loop device
//	                                     /lease       the lease that holds it, if any
const (
	mountsDir    = "mounts"
	activationOf = "info.json"
	leaseOf      = "lease"
)

// loopType is the type of a mount that is a loop device and no more.
const loopType = "loop"

// plan says how many mounts are mounted here: all before the last with a transform,
// which is given back transformed, all up to the last loop device, or all of a
// temporary activation. The kernel mounts the rest, by the client's call. With ok
// false that is all of them, as they are.
func plan(all []*types.Mount, temporary bool) (here int, ok bool) {
	for i, mt := range all {
		names, rest := transformsOf(mt.Type)
		if len(names) > 0 {
			here, ok = i, true
		}
		if rest == loopType || temporary {
			here, ok = i+1, true
		}
	}
	return here, ok
}

// undoMounts undoes the activations below dir that a predecessor was killed in.
func undoMounts(dir string) error {
	all, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	for _, a := range all {
		if _, lerr := os.Lstat(filepath.Join(a, activationOf)); errors.Is(lerr, fs.ErrNotExist) {
			err = errors.Join(err, deactivate(a))
		}
	}
	if err != nil {
		return fmt.Errorf("undo mounts: %w", err)
	}
	return nil
}

// activate makes an activation in dir, or leaves nothing behind.
func (m *mounts) activate(ctx context.Context, dir, lease string, info *types.ActivationInfo, all []*types.Mount, here int, temporary bool) (err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
		return errdefs.ErrAlreadyExists
	} else if err != nil {
		return err
	}
	defer errs.Undo(&err, func() error { return deactivate(dir) })
	if lease != "" {
		if !m.leased(filepath.Base(filepath.Dir(dir)), lease) {
			return fmt.Errorf("lease %s: %w", lease, errdefs.ErrNotFound)
		}
		if err := os.WriteFile(filepath.Join(dir, leaseOf), []byte(lease), 0o600); err != nil {
			return err
		}
	}
	mounting := mounting{root: m.root}
	for i, mt := range all[:here] {
		if mt, err = mounting.transform(ctx, mt); err != nil {
			return err
		}
		point := filepath.Join(dir, strconv.Itoa(i))
		if err := mountAt(mt, point); err != nil {
			return err
		}
		mounting.active = append(mounting.active, &types.ActiveMount{Mount: mt, MountedAt: timestamppb.Now(), MountPoint: point})
	}
	info.Active = mounting.active
	if info.System = slices.Clone(all[here:]); len(info.System) > 0 {
		if info.System[0], err = mounting.transform(ctx, all[here]); err != nil {
			return err
		}
	} else if temporary {
		// What the client mounts where it wants to have it.
		info.System = []*types.Mount{{Type: "bind", Source: info.Active[here-1].MountPoint, Options: []string{"rbind"}}}
	}
	return writeActivation(dir, info)
}

func mountAt(mt *types.Mount, point string) error {
	if mt.Type == loopType {
		readOnly, direct := slices.Contains(mt.Options, "ro"), slices.Contains(mt.Options, "direct-io")
		return mount.Attach(mt.Source, point, loopName(point), readOnly, direct)
	}
	if err := os.Mkdir(point, 0o700); err != nil {
		return err
	}
	return mount.All(mountsFromAPI([]*types.Mount{mt}), point)
}

// loopName is what a loop device of an activation is known by.
func loopName(point string) string {
	return fmt.Sprintf("%.48s/%s", filepath.Base(filepath.Dir(point)), filepath.Base(point))
}

// deactivate unmounts what is mounted in dir, the last first, and removes it. Cut off,
// it is gone on with at the next start, since the first thing to go is the info.
func deactivate(dir string) error {
	if err := os.Remove(filepath.Join(dir, activationOf)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	number := func(e fs.DirEntry) int {
		n, _ := strconv.Atoi(e.Name())
		return n
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return number(b) - number(a) })
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type() == fs.ModeSymlink {
			err = mount.Detach(path, loopName(path))
		} else if err = mount.Unmount(path); err == nil {
			err = os.Remove(path) // not RemoveAll: it would eat what is still mounted
		}
		if err != nil {
			return err
		}
	}
	return os.Remove(dir)
}

func writeActivation(dir string, info *types.ActivationInfo) error {
	data, err := protojson.Marshal(info)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, activationOf), data, 0o600)
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
