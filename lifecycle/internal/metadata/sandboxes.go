package metadata

import (
	"fmt"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/filter"
)

// Sandboxes is the sandboxes of one namespace: what is known of a pod beside its
// containers.
type Sandboxes struct {
	db *DB
	ns string
}

// Sandboxes gives the sandboxes of ns.
func (db *DB) Sandboxes(ns string) Sandboxes { return Sandboxes{db, ns} }

// Get reads one.
func (s Sandboxes) Get(id string) (*types.Sandbox, error) {
	return readOne(s.db, s.ns, sandboxes, "sandbox", id, readSandbox)
}

// List reads those that match one of the filters.
func (s Sandboxes) List(filters ...string) ([]*types.Sandbox, error) {
	return readAll(s.db, s.ns, sandboxes, filters, readSandbox, sandboxFields)
}

// Create records a sandbox.
func (s Sandboxes) Create(sb *types.Sandbox) (*types.Sandbox, error) {
	if err := checkSandbox(sb); err != nil {
		return nil, err
	}
	sb = proto.Clone(sb).(*types.Sandbox)
	now := time.Now()
	sb.CreatedAt, sb.UpdatedAt = timestamppb.New(now), timestamppb.New(now)
	err := s.db.update(func(tx *bolt.Tx) error {
		set, err := makeAt(tx, s.ns, sandboxes)
		if err != nil {
			return err
		}
		b, err := makeNew(set, "sandbox", sb.SandboxID)
		if err != nil {
			return err
		}
		if err := writeTime(b, keyCreatedAt, now); err != nil {
			return err
		}
		return writeSandbox(b, sb, now)
	})
	if err != nil {
		return nil, err
	}
	return sb, nil
}

// Update writes what paths name of a sandbox, where there is no path all that may
// be changed.
func (s Sandboxes) Update(next *types.Sandbox, paths []string) (out *types.Sandbox, err error) {
	if err := checkPaths(paths, "labels.", "extensions.", "runtime", "spec"); err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		paths = []string{"labels", "extensions", "runtime", "spec"}
	}
	err = s.db.update(func(tx *bolt.Tx) error {
		b := at(tx, s.ns, sandboxes, next.GetSandboxID())
		if b == nil {
			return notFound("sandbox", next.GetSandboxID())
		}
		out = readSandbox(b, next.SandboxID)
		if name := next.GetRuntime().GetName(); name != "" && name != out.Runtime.Name {
			return fmt.Errorf("sandbox %q: runtime %s cannot be changed to %s: %w", next.SandboxID, out.Runtime.Name, name, errdefs.ErrInvalidArgument)
		}
		out.Labels = editLabels(out.Labels, next.Labels, paths)
		out.Extensions = editMap(out.Extensions, next.Extensions, "extensions", paths)
		for _, p := range paths {
			switch p {
			case "runtime":
				out.Runtime.Options = next.GetRuntime().GetOptions()
			case "spec":
				out.Spec = next.Spec
			}
		}
		now := time.Now()
		out.UpdatedAt = timestamppb.New(now)
		return writeSandbox(b, out, now)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Delete forgets a sandbox.
func (s Sandboxes) Delete(id string) error {
	return s.db.delete(func(tx *bolt.Tx) error {
		set := at(tx, s.ns, sandboxes)
		if below(set, id) == nil {
			return notFound("sandbox", id)
		}
		return set.DeleteBucket([]byte(id))
	})
}

func checkSandbox(sb *types.Sandbox) error {
	if err := CheckIdentifier("sandbox", sb.GetSandboxID()); err != nil {
		return err
	}
	if sb.GetRuntime().GetName() == "" {
		return fmt.Errorf("sandbox %q: no runtime name: %w", sb.SandboxID, errdefs.ErrInvalidArgument)
	}
	return checkLabels(sb.Labels)
}

func sandboxFields(sb *types.Sandbox) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return sb.SandboxID, true
		case "runtime":
			return sb.Runtime.GetName(), len(path) == 1 || path[1] == "name"
		case "sandboxer":
			return sb.Sandboxer, sb.Sandboxer != ""
		case "labels":
			return filter.Labels(sb.Labels, path[1:])
		}
		return "", false
	}
}

func readSandbox(b *bolt.Bucket, id string) *types.Sandbox {
	sb := &types.Sandbox{
		SandboxID: id,
		Runtime:   &types.Sandbox_Runtime{},
		Spec:      readAny(b, keySpec),
		Labels:    labelsOf(b),
		CreatedAt: stampOf(b, keyCreatedAt),
		UpdatedAt: stampOf(b, keyUpdatedAt),
		Sandboxer: string(b.Get(keySandboxer)),
	}
	if rb := b.Bucket(keyRuntime); rb != nil {
		sb.Runtime.Name = string(rb.Get(keyName))
		sb.Runtime.Options = readAny(rb, keyOptions)
	}
	if eb := b.Bucket(keyExtensions); eb != nil {
		sb.Extensions = map[string]*anypb.Any{}
		eachKey(eb, func(k string) { sb.Extensions[k] = readAny(eb, []byte(k)) })
	}
	return sb
}

func writeSandbox(b *bolt.Bucket, sb *types.Sandbox, now time.Time) error {
	if err := writeTime(b, keyUpdatedAt, now); err != nil {
		return err
	}
	if err := writeLabels(b, sb.Labels); err != nil {
		return err
	}
	if err := b.Put(keySandboxer, []byte(sb.Sandboxer)); err != nil {
		return err
	}
	if err := writeAny(b, keySpec, sb.Spec); err != nil {
		return err
	}
	rb, err := b.CreateBucketIfNotExists(keyRuntime)
	if err != nil {
		return err
	}
	if err := set(rb, keyName, sb.Runtime.Name); err != nil {
		return err
	}
	if err := writeAny(rb, keyOptions, sb.Runtime.Options); err != nil {
		return err
	}
	return writeExtensions(b, sb.Extensions)
}
