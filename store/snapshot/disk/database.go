package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/store/snapshot"
)

// The database is containerd's, version 1:
//
//	v1
//	├── snapshots            (its sequence is the last id given out)
//	│   └── NAME
//	│       ├── id           unsigned varint
//	│       ├── parent       name; absent without
//	│       ├── kind         one byte
//	│       ├── inodes size  varints, of a committed snapshot
//	│       ├── createdat updatedat   time.Time's binary form
//	│       └── labels       bucket of NAME → value
//	└── parents
//	    └── id of parent, 0, id of child → name of the child
var (
	keyVersion   = []byte("v1")
	keySnapshots = []byte("snapshots")
	keyParents   = []byte("parents")
	keyID        = []byte("id")
	keyParent    = []byte("parent")
	keyKind      = []byte("kind")
	keyInodes    = []byte("inodes")
	keySize      = []byte("size")
	keyCreated   = []byte("createdat")
	keyUpdated   = []byte("updatedat")
	keyLabels    = []byte("labels")
)

// record is a snapshot in the database.
type record struct {
	snapshot.Info
	id    uint64
	usage snapshot.Usage
}

// table is the database in a transaction; both buckets are nil before the first
// snapshot.
type table struct {
	snapshots, parents *bolt.Bucket
	unsynced           *bolt.Bucket // marks; see settle
}

func (s *Snapshotter) view(fn func(table) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		var t table
		if v1 := tx.Bucket(keyVersion); v1 != nil {
			t.snapshots, t.parents = v1.Bucket(keySnapshots), v1.Bucket(keyParents)
		}
		if own := tx.Bucket(keyGantry); own != nil {
			t.unsynced = own.Bucket(keyUnsynced)
		}
		return fn(t)
	})
}

func (s *Snapshotter) update(fn func(table) error) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		v1, err := tx.CreateBucketIfNotExists(keyVersion)
		if err != nil {
			return err
		}
		var t table
		if t.snapshots, err = v1.CreateBucketIfNotExists(keySnapshots); err != nil {
			return err
		}
		if t.parents, err = v1.CreateBucketIfNotExists(keyParents); err != nil {
			return err
		}
		own, err := tx.CreateBucketIfNotExists(keyGantry)
		if err != nil {
			return err
		}
		if t.unsynced, err = own.CreateBucketIfNotExists(keyUnsynced); err != nil {
			return err
		}
		return fn(t)
	})
	return errs.Disk(err)
}

// record reads the snapshot of that name.
func (t table) record(name string) (record, error) {
	if t.snapshots == nil || name == "" || t.snapshots.Bucket([]byte(name)) == nil {
		return record{}, fmt.Errorf("snapshot %s: %w", name, errdefs.ErrNotFound)
	}
	return decode(name, t.snapshots.Bucket([]byte(name)))
}

func decode(name string, b *bolt.Bucket) (r record, err error) {
	r.Name = name
	r.id, _ = binary.Uvarint(b.Get(keyID))
	r.Parent = string(b.Get(keyParent))
	if k := b.Get(keyKind); len(k) == 1 {
		r.Kind = snapshot.Kind(k[0])
	}
	r.usage.Inodes, _ = binary.Varint(b.Get(keyInodes))
	r.usage.Size, _ = binary.Varint(b.Get(keySize))
	if r.Created, err = decodeTime(b.Get(keyCreated)); err != nil {
		return r, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	if r.Updated, err = decodeTime(b.Get(keyUpdated)); err != nil {
		return r, fmt.Errorf("read snapshot %s: %w", name, err)
	}
	if lb := b.Bucket(keyLabels); lb != nil {
		r.Labels = map[string]string{}
		err = lb.ForEach(func(k, v []byte) error { r.Labels[string(k)] = string(v); return nil })
	}
	return r, err
}

func decodeTime(b []byte) (t time.Time, err error) {
	if len(b) > 0 {
		err = t.UnmarshalBinary(b)
	}
	return t, err
}

// parent reads a snapshot that can be one.
func (t table) parent(name string) (record, error) {
	r, err := t.record(name)
	if err != nil {
		return r, fmt.Errorf("parent: %w", err)
	}
	if r.Kind != snapshot.Committed {
		return r, fmt.Errorf("parent %s is not committed: %w", name, errdefs.ErrInvalidArgument)
	}
	return r, nil
}

// chain gives the ids of name and of all below it, name's first.
func (t table) chain(name string) (ids []uint64, err error) {
	for name != "" {
		r, err := t.record(name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, r.id)
		name = r.Parent
	}
	return ids, nil
}

// create inserts a new record and gives it its id.
func (t table) create(r *record) error {
	if r.Name == "" {
		return fmt.Errorf("empty name: %w", errdefs.ErrInvalidArgument)
	}
	if r.Parent != "" {
		if _, err := t.parent(r.Parent); err != nil {
			return err
		}
	}
	id, err := t.snapshots.NextSequence()
	if err != nil {
		return err
	}
	r.id = id
	return t.insert(*r)
}

// insert adds a record whose name is free, and the way to it from its parent.
func (t table) insert(r record) error {
	if r.Name == "" {
		return fmt.Errorf("empty name: %w", errdefs.ErrInvalidArgument)
	}
	if t.snapshots.Bucket([]byte(r.Name)) != nil {
		return fmt.Errorf("snapshot %s: %w", r.Name, errdefs.ErrAlreadyExists)
	}
	if r.Parent != "" {
		p, err := t.record(r.Parent)
		if err != nil {
			return err
		}
		if err := t.parents.Put(parentKey(p.id, r.id), []byte(r.Name)); err != nil {
			return err
		}
	}
	return t.put(r)
}

// put writes a record under its name.
func (t table) put(r record) error {
	b, err := t.snapshots.CreateBucketIfNotExists([]byte(r.Name))
	if err != nil {
		return err
	}
	fields := map[string][]byte{
		string(keyID):   binary.AppendUvarint(nil, r.id),
		string(keyKind): {byte(r.Kind)},
	}
	if r.Parent != "" {
		fields[string(keyParent)] = []byte(r.Parent)
	}
	if r.Kind == snapshot.Committed {
		fields[string(keyInodes)] = binary.AppendVarint(nil, r.usage.Inodes)
		fields[string(keySize)] = binary.AppendVarint(nil, r.usage.Size)
	}
	if fields[string(keyCreated)], err = r.Created.MarshalBinary(); err != nil {
		return err
	}
	if fields[string(keyUpdated)], err = r.Updated.MarshalBinary(); err != nil {
		return err
	}
	for k, v := range fields {
		if err := b.Put([]byte(k), v); err != nil {
			return err
		}
	}
	return putLabels(b, r.Labels)
}

func putLabels(b *bolt.Bucket, labels map[string]string) error {
	if b.Bucket(keyLabels) != nil {
		if err := b.DeleteBucket(keyLabels); err != nil {
			return err
		}
	}
	if len(labels) == 0 {
		return nil
	}
	lb, err := b.CreateBucket(keyLabels)
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if err := lb.Put([]byte(k), []byte(labels[k])); err != nil {
			return err
		}
	}
	return nil
}

// drop deletes a record, and the way to it from its parent.
func (t table) drop(r record) error {
	if r.Parent != "" {
		if p, err := t.record(r.Parent); err == nil {
			if err := t.parents.Delete(parentKey(p.id, r.id)); err != nil {
				return err
			}
		}
	}
	return t.snapshots.DeleteBucket([]byte(r.Name))
}

func (t table) hasChild(id uint64) bool {
	prefix := append(binary.AppendUvarint(nil, id), 0)
	k, _ := t.parents.Cursor().Seek(prefix)
	return bytes.HasPrefix(k, prefix)
}

func (t table) walk(fn func(record) error) error {
	if t.snapshots == nil {
		return nil
	}
	return t.snapshots.ForEachBucket(func(name []byte) error {
		r, err := decode(string(name), t.snapshots.Bucket(name))
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// parentKey orders the children of a parent after each other.
func parentKey(parent, child uint64) []byte {
	return binary.AppendUvarint(append(binary.AppendUvarint(nil, parent), 0), child)
}
