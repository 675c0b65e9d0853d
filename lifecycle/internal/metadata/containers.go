package metadata

import (
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/filter"
)

// Containers is the containers of one namespace.
type Containers struct {
	db *DB
	ns string
}

// Containers gives the containers of ns.
func (db *DB) Containers(ns string) Containers { return Containers{db, ns} }

// Get reads one.
func (c Containers) Get(id string) (*api.Container, error) {
	return readOne(c.db, c.ns, containers, "container", id, readContainer)
}

// List reads those that match one of the filters.
func (c Containers) List(filters ...string) ([]*api.Container, error) {
	return readAll(c.db, c.ns, containers, filters, readContainer, containerFields)
}

// Labelled gives the labels, by id, of those that have the label key. It reads
// nothing else of the others, and may be asked often.
func (c Containers) Labelled(key string) map[string]map[string]string {
	out := map[string]map[string]string{}
	// Neither a view nor the function below has an error of its own.
	_ = c.db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx, c.ns, containers), func(id string, b *bolt.Bucket) error {
			if lb := b.Bucket(keyLabels); lb != nil && lb.Get([]byte(key)) != nil {
				out[id] = labelsOf(b)
			}
			return nil
		})
	})
	return out
}

// Create records a container.
func (c Containers) Create(ctr *api.Container) (*api.Container, error) {
	if err := checkContainer(ctr); err != nil {
		return nil, err
	}
	ctr = proto.Clone(ctr).(*api.Container)
	now := time.Now()
	ctr.CreatedAt, ctr.UpdatedAt = timestamppb.New(now), timestamppb.New(now)
	err := c.db.update(func(tx *bolt.Tx) error {
		set, err := makeAt(tx, c.ns, containers)
		if err != nil {
			return err
		}
		b, err := makeNew(set, "container", ctr.ID)
		if err != nil {
			return err
		}
		if err := writeTime(b, keyCreatedAt, now); err != nil {
			return err
		}
		return writeContainer(b, ctr, now)
	})
	if err != nil {
		return nil, err
	}
	c.db.publish(c.ns, "/containers/create", &events.ContainerCreate{
		ID: ctr.ID, Image: ctr.Image,
		Runtime: &events.ContainerCreate_Runtime{Name: ctr.Runtime.Name, Options: ctr.Runtime.Options},
	})
	return ctr, nil
}

// changeable is what Update may change of a container.
var changeable = []string{"labels.", "spec", "extensions.", "image", "snapshotkey"}

// Update writes what paths name of a container, where there is no path all that
// may be changed.
func (c Containers) Update(next *api.Container, paths []string) (out *api.Container, err error) {
	if err := checkPaths(paths, changeable...); err != nil {
		return nil, err
	}
	all := len(paths) == 0
	if all {
		paths = []string{"labels", "spec", "extensions", "image", "snapshotkey"}
	}
	err = c.db.update(func(tx *bolt.Tx) error {
		b := at(tx, c.ns, containers, next.GetID())
		if b == nil {
			return notFound("container", next.GetID())
		}
		out = readContainer(b, next.ID)
		if all && (next.Snapshotter != out.Snapshotter || next.GetRuntime().GetName() != out.Runtime.Name) {
			return fmt.Errorf("container %q: snapshotter and runtime cannot be changed: %w", next.ID, errdefs.ErrInvalidArgument)
		}
		editContainer(out, next, paths)
		if err := checkContainer(out); err != nil {
			return err
		}
		now := time.Now()
		out.UpdatedAt = timestamppb.New(now)
		return writeContainer(b, out, now)
	})
	if err != nil {
		return nil, err
	}
	c.db.publish(c.ns, "/containers/update", &events.ContainerUpdate{
		ID: out.ID, Image: out.Image, Labels: out.Labels, SnapshotKey: out.SnapshotKey,
	})
	c.db.collections.later()
	return out, nil
}

func editContainer(now, next *api.Container, paths []string) {
	now.Labels = editLabels(now.Labels, next.Labels, paths)
	now.Extensions = editMap(now.Extensions, next.Extensions, "extensions", paths)
	for _, p := range paths {
		switch p {
		case "spec":
			now.Spec = next.Spec
		case "image":
			now.Image = next.Image
		case "snapshotkey":
			now.SnapshotKey = next.SnapshotKey
		}
	}
}

// Delete forgets a container. Its snapshot is the client's to remove.
func (c Containers) Delete(id string) error {
	err := c.db.delete(func(tx *bolt.Tx) error {
		set := at(tx, c.ns, containers)
		if below(set, id) == nil {
			return notFound("container", id)
		}
		return set.DeleteBucket([]byte(id))
	})
	if err != nil {
		return err
	}
	c.db.publish(c.ns, "/containers/delete", &events.ContainerDelete{ID: id})
	c.db.collections.later()
	return nil
}

func checkContainer(c *api.Container) error {
	if err := CheckIdentifier("container", c.GetID()); err != nil {
		return err
	}
	if c.GetRuntime().GetName() == "" {
		return fmt.Errorf("container %q: no runtime name: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	if c.Spec == nil {
		return fmt.Errorf("container %q: no spec: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	if c.SnapshotKey != "" && c.Snapshotter == "" {
		return fmt.Errorf("container %q: snapshot key %q without a snapshotter: %w", c.ID, c.SnapshotKey, errdefs.ErrInvalidArgument)
	}
	if _, ok := c.Extensions[""]; ok {
		return fmt.Errorf("container %q: extension without a key: %w", c.ID, errdefs.ErrInvalidArgument)
	}
	return checkLabels(c.Labels)
}

func containerFields(c *api.Container) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return c.ID, true
		case "image":
			return c.Image, c.Image != ""
		case "runtime":
			return c.Runtime.GetName(), len(path) == 1 || path[1] == "name"
		case "sandbox_id", "sandbox":
			return c.Sandbox, c.Sandbox != ""
		case "labels":
			return filter.Labels(c.Labels, path[1:])
		}
		return "", false
	}
}

func readContainer(b *bolt.Bucket, id string) *api.Container {
	c := &api.Container{
		ID:          id,
		Labels:      labelsOf(b),
		Image:       string(b.Get(keyImage)),
		Runtime:     &api.Container_Runtime{},
		Spec:        readAny(b, keySpec),
		Snapshotter: string(b.Get(keySnapshotter)),
		SnapshotKey: string(b.Get(keySnapshotKey)),
		Sandbox:     string(b.Get(keySandboxID)),
		CreatedAt:   stampOf(b, keyCreatedAt),
		UpdatedAt:   stampOf(b, keyUpdatedAt),
	}
	if rb := b.Bucket(keyRuntime); rb != nil {
		c.Runtime.Name = string(rb.Get(keyName))
		c.Runtime.Options = readAny(rb, keyOptions)
	}
	if eb := b.Bucket(keyExtensions); eb != nil {
		c.Extensions = map[string]*anypb.Any{}
		eachKey(eb, func(k string) { c.Extensions[k] = readAny(eb, []byte(k)) })
	}
	return c
}

func writeContainer(b *bolt.Bucket, c *api.Container, now time.Time) error {
	if err := writeTime(b, keyUpdatedAt, now); err != nil {
		return err
	}
	if err := writeLabels(b, c.Labels); err != nil {
		return err
	}
	for _, f := range []struct {
		key   []byte
		value string
	}{{keyImage, c.Image}, {keySnapshotter, c.Snapshotter}, {keySnapshotKey, c.SnapshotKey}, {keySandboxID, c.Sandbox}} {
		if err := set(b, f.key, f.value); err != nil {
			return err
		}
	}
	if err := writeAny(b, keySpec, c.Spec); err != nil {
		return err
	}
	rb, err := b.CreateBucketIfNotExists(keyRuntime)
	if err != nil {
		return err
	}
	if err := set(rb, keyName, c.Runtime.Name); err != nil {
		return err
	}
	if err := writeAny(rb, keyOptions, c.Runtime.Options); err != nil {
		return err
	}
	return writeExtensions(b, c.Extensions)
}

// writeExtensions writes only what differs: an extension is the client's whole
// state of a container, and most updates change one.
func writeExtensions(b *bolt.Bucket, ext map[string]*anypb.Any) error {
	eb, err := b.CreateBucketIfNotExists(keyExtensions)
	if err != nil {
		return err
	}
	var gone []string
	eachKey(eb, func(k string) {
		if _, ok := ext[k]; !ok {
			gone = append(gone, k)
		}
	})
	for _, k := range gone {
		if err := eb.Delete([]byte(k)); err != nil {
			return err
		}
	}
	for k, v := range ext {
		if err := writeAny(eb, []byte(k), v); err != nil {
			return err
		}
	}
	return nil
}
