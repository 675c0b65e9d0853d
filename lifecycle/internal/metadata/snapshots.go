package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/snapshot"
)

// Snapshots is one namespace's view of a snapshotter. It implements
// snapshot.Snapshotter and its optional abilities.
type Snapshots struct {
	db    *DB
	scope Scope
	name  string
	below snapshot.Snapshotter
}

// Snapshots gives the view of s on the snapshotter name, "overlayfs" if empty;
// what is made through it belongs to s's lease.
func (db *DB) Snapshots(s Scope, name string) (*Snapshots, error) {
	if name == "" {
		name = "overlayfs"
	}
	sn, ok := db.snapshots[name]
	if !ok {
		return nil, fmt.Errorf("snapshotter %q is not here: %w", name, errdefs.ErrInvalidArgument)
	}
	return &Snapshots{db: db, scope: s, name: name, below: sn}, nil
}

// record is what the database knows of one snapshot.
type record struct {
	name   string // in the snapshotter below
	parent string // in this namespace
	info   snapshot.Info
}

func (s *Snapshots) bucket(tx *bolt.Tx, key string) *bolt.Bucket {
	return at(tx, s.scope.Namespace, snapshots, s.name, key)
}

func readSnapshot(b *bolt.Bucket, key string) record {
	r := record{name: string(b.Get(keyName)), parent: string(b.Get(keyParent))}
	r.info = snapshot.Info{
		Name: key, Parent: r.parent, Labels: labelsOf(b),
		Created: readTime(b, keyCreatedAt), Updated: readTime(b, keyUpdatedAt),
	}
	return r
}

func (s *Snapshots) read(key string) (r record, err error) {
	err = s.db.bolt.View(func(tx *bolt.Tx) error {
		b := s.bucket(tx, key)
		if b == nil {
			return notFound("snapshot", key)
		}
		r = readSnapshot(b, key)
		return nil
	})
	return r, err
}

// Stat reads what is known of a snapshot.
func (s *Snapshots) Stat(ctx context.Context, key string) (snapshot.Info, error) {
	r, err := s.read(key)
	if err != nil {
		return snapshot.Info{}, err
	}
	is, err := s.below.Stat(ctx, r.name)
	if err != nil {
		return snapshot.Info{}, err
	}
	r.info.Kind = is.Kind
	return r.info, nil
}

// Update writes labels.
func (s *Snapshots) Update(ctx context.Context, next snapshot.Info, paths ...string) (snapshot.Info, error) {
	if err := checkPaths(paths, "labels."); err != nil {
		return snapshot.Info{}, err
	}
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	err := s.db.update(func(tx *bolt.Tx) error {
		b := s.bucket(tx, next.Name)
		if b == nil {
			return notFound("snapshot", next.Name)
		}
		if err := writeTime(b, keyUpdatedAt, time.Now()); err != nil {
			return err
		}
		return writeLabels(b, editLabels(labelsOf(b), next.Labels, paths))
	})
	if err != nil {
		return snapshot.Info{}, err
	}
	return s.Stat(ctx, next.Name)
}

// Usage of the snapshot itself.
func (s *Snapshots) Usage(ctx context.Context, key string) (snapshot.Usage, error) {
	r, err := s.read(key)
	if err != nil {
		return snapshot.Usage{}, err
	}
	return s.below.Usage(ctx, r.name)
}

// Mounts of an active snapshot or a view.
func (s *Snapshots) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	r, err := s.read(key)
	if err != nil {
		return nil, err
	}
	return s.below.Mounts(ctx, r.name)
}

// Prepare makes an active snapshot.
func (s *Snapshots) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, s.below.Prepare, key, parent, labels)
}

// View makes a view.
func (s *Snapshots) View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, s.below.View, key, parent, labels)
}

type maker func(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error)

// create makes the snapshot below and records it at the same time. A crash leaves
// one without the other, which is removed when the daemon starts.
func (s *Snapshots) create(ctx context.Context, mk maker, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	if key == "" {
		return nil, fmt.Errorf("snapshot without a key: %w", errdefs.ErrInvalidArgument)
	}
	if err := checkLabels(labels); err != nil {
		return nil, err
	}
	below := ""
	if parent != "" {
		r, err := s.read(parent)
		if err != nil {
			return nil, fmt.Errorf("parent: %w", err)
		}
		below = r.name
	}
	// An unpacker says with the target what it is about to make of the new snapshot.
	for _, taken := range []string{labels[labelTarget], key} {
		if err := s.refuseExisting(taken); err != nil {
			return nil, err
		}
	}
	name := s.db.unique(s.scope.Namespace, key)
	recorded := make(chan error, 1)
	go func() {
		recorded <- s.db.update(func(tx *bolt.Tx) error {
			return s.record(tx, key, record{name: name, parent: parent}, labels)
		})
	}()
	mounts, err := mk(ctx, name, below, passed(labels))
	if err := s.settle(ctx, key, name, err, <-recorded); err != nil {
		return nil, err
	}
	s.db.publish(s.scope.Namespace, "/snapshot/prepare", &events.SnapshotPrepare{Key: key, Parent: parent, Snapshotter: s.name})
	return mounts, nil
}

// settle leaves nothing of a new snapshot where it was not made below or not
// recorded, or where it was collected in the moment between.
func (s *Snapshots) settle(ctx context.Context, key, name string, made, recorded error) error {
	ours := func(tx *bolt.Tx) bool {
		b := s.bucket(tx, key)
		return b != nil && string(b.Get(keyName)) == name
	}
	if made == nil && recorded == nil {
		recorded = s.db.bolt.View(func(tx *bolt.Tx) error {
			if !ours(tx) {
				return notFound("snapshot", key)
			}
			return nil
		})
	}
	switch {
	case made == nil && recorded == nil:
		return nil
	case made == nil:
		return errors.Join(recorded, s.below.Remove(context.WithoutCancel(ctx), name))
	case recorded != nil:
		return made
	}
	return errors.Join(made, s.db.delete(func(tx *bolt.Tx) error {
		if !ours(tx) {
			return nil
		}
		if err := s.disown(tx, key); err != nil {
			return err
		}
		return s.scope.release(tx, snapshots, s.name, key)
	}))
}

// refuseExisting answers AlreadyExists for a snapshot that is there: the client goes
// on as if it had made it.
func (s *Snapshots) refuseExisting(key string) error {
	found, err := s.db.existing(s.scope, func(tx *bolt.Tx) *bolt.Bucket { return s.bucket(tx, key) }, snapshots, s.name, key)
	if err == nil && found {
		err = fmt.Errorf("snapshot %q: %w", key, errdefs.ErrAlreadyExists)
	}
	return err
}

// record writes a new snapshot below its parent.
func (s *Snapshots) record(tx *bolt.Tx, key string, r record, labels map[string]string) error {
	set, err := makeAt(tx, s.scope.Namespace, snapshots, s.name)
	if err != nil {
		return err
	}
	b, err := makeNew(set, "snapshot", key)
	if err != nil {
		return err
	}
	if err := stamp(b, time.Now()); err != nil {
		return err
	}
	if err := put(b, [2][]byte{keyName, []byte(r.name)}, [2][]byte{keyParent, []byte(r.parent)}); err != nil {
		return err
	}
	if err := writeLabels(b, labels); err != nil {
		return err
	}
	if err := s.adopt(tx, r.parent, key); err != nil {
		return err
	}
	return s.scope.hold(tx, snapshots, s.name, key)
}

// adopt records key as a child of parent, which may be none.
func (s *Snapshots) adopt(tx *bolt.Tx, parent, key string) error {
	if parent == "" {
		return nil
	}
	pb := s.bucket(tx, parent)
	if pb == nil {
		return notFound("parent snapshot", parent)
	}
	cb, err := pb.CreateBucketIfNotExists(keyChildren)
	if err != nil {
		return err
	}
	return cb.Put([]byte(key), nil)
}

// disown takes key off its parent's children and deletes its record.
func (s *Snapshots) disown(tx *bolt.Tx, key string) error {
	set := at(tx, s.scope.Namespace, snapshots, s.name)
	if below(set, key) == nil {
		return nil
	}
	parent := string(below(set, key).Get(keyParent))
	if pb := below(set, parent); parent != "" && pb != nil {
		if cb := pb.Bucket(keyChildren); cb != nil {
			if err := cb.Delete([]byte(key)); err != nil {
				return err
			}
		}
	}
	return set.DeleteBucket([]byte(key))
}

// Commit turns active key into committed name.
func (s *Snapshots) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	return s.commit(ctx, name, key, "", labels)
}

// Rebases says whether CommitOnto works with this snapshotter.
func (s *Snapshots) Rebases() bool {
	r, ok := s.below.(snapshot.Rebaser)
	return ok && r.Rebases()
}

// CommitOnto is Commit for a snapshot made without a parent.
func (s *Snapshots) CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error {
	return s.commit(ctx, name, key, parent, labels)
}

// commit commits below first, outside the transaction, because it may walk the
// whole snapshot. A crash in between leaves a record without a snapshot and a
// snapshot without a record; Repair removes both.
func (s *Snapshots) commit(ctx context.Context, name, key, onto string, labels map[string]string) error {
	if err := checkLabels(labels); err != nil {
		return err
	}
	old, err := s.read(key)
	if err != nil {
		return err
	}
	if err := s.refuseExisting(name); err != nil {
		return err
	}
	next := record{name: s.db.unique(s.scope.Namespace, name), parent: old.parent}
	if onto == "" || onto == old.parent {
		err = s.below.Commit(ctx, next.name, old.name, passed(labels))
	} else {
		next.parent = onto
		err = s.rebase(ctx, next, old, passed(labels))
	}
	if err != nil {
		return err
	}
	err = s.db.update(func(tx *bolt.Tx) error { return s.rename(tx, key, name, next, labels) })
	if err != nil {
		forget := func(tx *bolt.Tx) error { return s.disown(tx, key) }
		return errors.Join(err, s.below.Remove(context.WithoutCancel(ctx), next.name), s.db.update(forget))
	}
	s.db.publish(s.scope.Namespace, "/snapshot/commit", &events.SnapshotCommit{Key: key, Name: name, Snapshotter: s.name})
	return nil
}

// rename replaces the record of key by that of name.
func (s *Snapshots) rename(tx *bolt.Tx, key, name string, next record, labels map[string]string) error {
	if s.bucket(tx, key) == nil {
		return notFound("snapshot", key)
	}
	if err := s.record(tx, name, next, labels); err != nil {
		return err
	}
	if err := s.scope.release(tx, snapshots, s.name, key); err != nil {
		return err
	}
	return s.disown(tx, key)
}

// rebase commits old below onto next's parent.
func (s *Snapshots) rebase(ctx context.Context, next, old record, labels map[string]string) error {
	on, err := s.read(next.parent)
	if err != nil {
		return fmt.Errorf("parent: %w", err)
	}
	r, ok := s.below.(snapshot.Rebaser)
	if !ok || !r.Rebases() || old.parent != "" {
		return fmt.Errorf("snapshot %q: put on parent %q: %w", old.info.Name, next.parent, errdefs.ErrNotImplemented)
	}
	return r.CommitOnto(ctx, next.name, old.name, on.name, labels)
}

// Remove forgets a snapshot that has no children. It is removed below a little
// later.
func (s *Snapshots) Remove(_ context.Context, key string) error {
	var r record
	err := s.db.delete(func(tx *bolt.Tx) error {
		b := s.bucket(tx, key)
		if b == nil {
			return notFound("snapshot", key)
		}
		if cb := b.Bucket(keyChildren); cb != nil {
			if child, _ := cb.Cursor().First(); child != nil {
				return fmt.Errorf("remove snapshot %q: it has child %q: %w", key, child, errdefs.ErrFailedPrecondition)
			}
		}
		r = readSnapshot(b, key)
		if err := s.disown(tx, key); err != nil {
			return err
		}
		return s.scope.release(tx, snapshots, s.name, key)
	})
	if err != nil {
		return err
	}
	s.db.collections.removed(s.name, r.name)
	s.db.publish(s.scope.Namespace, "/snapshot/remove", &events.SnapshotRemove{Key: key, Snapshotter: s.name})
	return nil
}

// Walk calls fn for every snapshot that matches one of the filters.
func (s *Snapshots) Walk(ctx context.Context, fn func(snapshot.Info) error, filters ...string) error {
	f, err := filter.Parse(filters...)
	if err != nil {
		return err
	}
	kinds := map[string]snapshot.Kind{}
	err = s.below.Walk(ctx, func(i snapshot.Info) error {
		kinds[i.Name] = i.Kind
		return nil
	})
	if err != nil {
		return err
	}
	var all []snapshot.Info
	err = s.db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx, s.scope.Namespace, snapshots, s.name), func(key string, b *bolt.Bucket) error {
			r := readSnapshot(b, key)
			kind, ok := kinds[r.name]
			if r.info.Kind = kind; ok && f.Match(snapshotFields(r.info)) {
				all = append(all, r.info)
			}
			return nil
		})
	})
	for _, i := range all {
		if err != nil {
			break
		}
		err = fn(i)
	}
	return err
}

// Cleanup frees what removed snapshots left behind.
func (s *Snapshots) Cleanup(ctx context.Context) error {
	s.db.Collect()
	if c, ok := s.below.(snapshot.Cleaner); ok {
		return c.Cleanup(ctx)
	}
	return nil
}

// Close does nothing: the snapshotter below is the daemon's.
func (s *Snapshots) Close() error { return nil }

// labelTarget names the snapshot as which a new one is to be committed.
const labelTarget = "containerd.io/snapshot.ref"

// passed gives the labels that a snapshotter itself reads.
func passed(labels map[string]string) map[string]string {
	var out map[string]string
	for k, v := range labels {
		if strings.HasPrefix(k, "containerd.io/snapshot/") || k == labelTarget {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}

var kindNames = map[snapshot.Kind]string{snapshot.View: "view", snapshot.Active: "active", snapshot.Committed: "committed"}

func snapshotFields(i snapshot.Info) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return i.Name, true
		case "parent":
			return i.Parent, i.Parent != ""
		case "kind":
			return kindNames[i.Kind], true
		case "labels":
			return filter.Labels(i.Labels, path[1:])
		}
		return "", false
	}
}
