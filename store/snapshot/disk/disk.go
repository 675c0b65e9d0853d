// Package disk keeps snapshots as directories, with the layouts and the database
// of containerd's snapshotters overlayfs and native, so that a containerd can be
// started on them, and back:
//
//	metadata.db
//	snapshots/ID         what Overlay or Native makes of a snapshot
//
// The database is the truth. A directory comes before its record and goes after
// it; what a crash leaves between is an orphan, which Cleanup removes.
package disk

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/labels"
	"github.com/gantryd/gantry/store/snapshot"
)

// Snapshotter keeps snapshots below a directory. It is safe for concurrent use;
// the database is locked against other processes.
type Snapshotter struct {
	root   string
	db     *bolt.DB
	layout layout
	making sync.Map // names of directories that are being filled

	boot      string
	doubtful  []uint64      // layers that may be torn, and that something stands on
	committed chan struct{} // there is something to sync
	end       context.CancelFunc
	settling  sync.WaitGroup
}

// layout is what a snapshotter makes of the directories of its snapshots. Parents
// are directories too, the nearest first.
type layout interface {
	// files is where the files of the snapshot in dir are.
	files(dir string) string
	// make fills dir, which is new and empty, for an active snapshot or a view.
	make(ctx context.Context, dir string, kind snapshot.Kind, parents []string) error
	mounts(dir string, kind snapshot.Kind, parents []string) []mount.Mount
	// rebases says whether a snapshot can find its parent when it is committed.
	rebases() bool
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Rebaser     = (*Snapshotter)(nil)
	_ snapshot.Cleaner     = (*Snapshotter)(nil)
)

// lockTimeout is how long New waits for a process that has the database open.
const lockTimeout = 10 * time.Second

// open opens, or makes, the snapshotter in root. Call Cleanup once it is open, to
// remove what a crash left.
func open(root string, layout layout) (*Snapshotter, error) {
	if err := os.MkdirAll(filepath.Join(root, "snapshots"), 0o700); err != nil {
		return nil, fmt.Errorf("open snapshotter: %w", err)
	}
	db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{Timeout: lockTimeout, NoFreelistSync: true})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open snapshotter %s: another process has it open", root)
	}
	if err != nil {
		return nil, fmt.Errorf("open snapshotter %s: %w", root, err)
	}
	s := &Snapshotter{root: root, db: db, layout: layout, committed: make(chan struct{}, 1)}
	if s.boot, err = bootID(); err == nil {
		err = errors.Join(s.distrust(), s.remake())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshotter %s: %w", root, err), db.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.end = cancel
	s.committed <- struct{}{} // a process that was killed may have left something
	s.settling.Go(func() { s.settle(ctx) })
	return s, nil
}

// Close brings what was committed to disk and closes the database.
func (s *Snapshotter) Close() error {
	s.end()
	s.settling.Wait()
	return s.db.Close()
}

func (s *Snapshotter) dir(id uint64) string {
	return filepath.Join(s.root, "snapshots", strconv.FormatUint(id, 10))
}

func (s *Snapshotter) dirs(ids []uint64) []string {
	dirs := make([]string, len(ids))
	for i, id := range ids {
		dirs[i] = s.dir(id)
	}
	return dirs
}

// Stat tells what is known of key.
func (s *Snapshotter) Stat(_ context.Context, key string) (info snapshot.Info, err error) {
	err = s.view(func(t table) error {
		r, err := t.record(key)
		info = r.Info
		return err
	})
	return info, err
}

// Update writes labels.
func (s *Snapshotter) Update(_ context.Context, info snapshot.Info, fieldpaths ...string) (out snapshot.Info, err error) {
	err = s.update(func(t table) error {
		r, err := t.record(info.Name)
		if err != nil {
			return err
		}
		r.Labels, err = labels.Merge(r.Labels, info.Labels, fieldpaths)
		if err != nil {
			return fmt.Errorf("update snapshot %s: %w", info.Name, err)
		}
		r.Updated = time.Now().UTC()
		out = r.Info
		return t.put(r)
	})
	return out, err
}

// Walk calls fn for every snapshot that a filter chooses. The filters know name,
// parent, kind and labels.
func (s *Snapshotter) Walk(ctx context.Context, fn func(snapshot.Info) error, filters ...string) error {
	f, err := filter.Parse(filters...)
	if err != nil {
		return err
	}
	var all []snapshot.Info // fn may call the snapshotter: no transaction is open then
	if err := s.view(func(t table) error {
		return t.walk(func(r record) error {
			if f.Match(r.Field) {
				all = append(all, r.Info)
			}
			return ctx.Err()
		})
	}); err != nil {
		return err
	}
	for _, info := range all {
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// Prepare makes an active snapshot on parent; on one that a power cut may have torn:
// FailedPrecondition.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, snapshot.Active, key, parent, labels)
}

// View makes a read-only snapshot of parent.
func (s *Snapshotter) View(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(ctx, snapshot.View, key, parent, labels)
}

func (s *Snapshotter) create(ctx context.Context, kind snapshot.Kind, key, parent string, labels map[string]string) (mounts []mount.Mount, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make snapshot %s: %w", key, err)
		}
	}()
	// The directory is filled before the database is locked: that may take long.
	var below []uint64
	if err := s.view(func(t table) error { below, err = t.chain(parent); return err }); err != nil {
		return nil, fmt.Errorf("parent: %w", err)
	}
	if err := s.whole(below); err != nil {
		return nil, err
	}
	name := unborn + rand.Text()
	s.making.Store(name, nil)
	defer s.making.Delete(name)
	made := filepath.Join(s.root, "snapshots", name)
	if err := os.Mkdir(made, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(made) // it has moved where all is well
	if err := s.layout.make(ctx, made, kind, s.dirs(below)); err != nil {
		return nil, err
	}
	err = s.update(func(t table) error {
		now := time.Now().UTC()
		r := record{Info: snapshot.Info{Kind: kind, Name: key, Parent: parent, Labels: labels, Created: now, Updated: now}}
		if err := t.create(&r); err != nil {
			return err
		}
		parents, err := t.chain(parent)
		if err != nil {
			return err
		}
		if !slices.Equal(parents, below) {
			return fmt.Errorf("parent %s was made anew meanwhile: %w", parent, errdefs.ErrUnavailable)
		}
		// A directory that has the number already was made by a process that died
		// before its own commit.
		if err := s.discard(r.id); err != nil {
			return err
		}
		mounts = s.layout.mounts(s.dir(r.id), kind, s.dirs(parents))
		return os.Rename(made, s.dir(r.id))
	})
	return mounts, err
}

// Mounts tells how to mount an active snapshot or a view. What stands on a layer that
// a power cut may have torn is FailedPrecondition.
func (s *Snapshotter) Mounts(_ context.Context, key string) (mounts []mount.Mount, err error) {
	err = s.view(func(t table) error {
		r, err := t.record(key)
		if err != nil {
			return err
		}
		if r.Kind == snapshot.Committed {
			return fmt.Errorf("mounts of snapshot %s: it is committed: %w", key, errdefs.ErrFailedPrecondition)
		}
		parents, err := t.chain(r.Parent)
		if err != nil {
			return err
		}
		if err := s.whole(parents); err != nil {
			return fmt.Errorf("mounts of snapshot %s, whose own files are in %s: %w", key, s.layout.files(s.dir(r.id)), err)
		}
		mounts = s.layout.mounts(s.dir(r.id), r.Kind, s.dirs(parents))
		return nil
	})
	return mounts, err
}

// bind mounts dir itself.
func bind(dir, mode string) []mount.Mount {
	return []mount.Mount{{Type: "bind", Source: dir, Options: []string{mode, "rbind"}}}
}

// Usage of key itself: counted now, or when it was committed.
func (s *Snapshotter) Usage(ctx context.Context, key string) (usage snapshot.Usage, err error) {
	var r record
	err = s.view(func(t table) error {
		r, err = t.record(key)
		return err
	})
	if err != nil || r.Kind != snapshot.Active {
		return r.usage, err
	}
	usage, err = diskUsage(ctx, s.layout.files(s.dir(r.id)))
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return usage, nil
}

// Commit turns active key into committed name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	return s.commit(ctx, name, key, labels, func(table, *record) error { return nil })
}

// Rebases says whether CommitOnto works here.
func (s *Snapshotter) Rebases() bool { return s.layout.rebases() }

// CommitOnto is Commit that gives a snapshot without parent its parent.
func (s *Snapshotter) CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error {
	if !s.Rebases() {
		return fmt.Errorf("commit snapshot %s on %s: this snapshotter copies a parent when it prepares: %w", key, parent, errdefs.ErrNotImplemented)
	}
	return s.commit(ctx, name, key, labels, func(t table, r *record) error {
		if r.Parent != "" && r.Parent != parent {
			return fmt.Errorf("it has the parent %s: %w", r.Parent, errdefs.ErrFailedPrecondition)
		}
		if parent != "" {
			if _, err := t.parent(parent); err != nil {
				return err
			}
		}
		r.Parent = parent
		return nil
	})
}

func (s *Snapshotter) commit(ctx context.Context, name, key string, labels map[string]string, change func(table, *record) error) error {
	// Counting takes long: not while the database is locked.
	usage, err := s.Usage(ctx, key)
	if err != nil {
		return err
	}
	err = s.update(func(t table) error {
		r, err := t.record(key)
		if err != nil {
			return err
		}
		if r.Kind != snapshot.Active {
			return fmt.Errorf("it is not active: %w", errdefs.ErrFailedPrecondition)
		}
		if err := change(t, &r); err != nil {
			return err
		}
		if err := t.drop(r); err != nil {
			return err
		}
		now := time.Now().UTC()
		r.Kind, r.Name, r.Labels, r.Created, r.Updated = snapshot.Committed, name, labels, now, now
		r.usage = usage
		if err := t.mark(r.id, s.boot); err != nil {
			return err
		}
		return t.insert(r)
	})
	if err != nil {
		return fmt.Errorf("commit snapshot %s as %s: %w", key, name, err)
	}
	select {
	case s.committed <- struct{}{}:
	default:
	}
	return nil
}

// Remove removes key, which must not be a parent. Its directories go after its
// record: what of them cannot be removed is left to Cleanup.
func (s *Snapshotter) Remove(_ context.Context, key string) error {
	var r record
	err := s.update(func(t table) error {
		var err error
		if r, err = t.record(key); err != nil {
			return err
		}
		if t.hasChild(r.id) {
			return fmt.Errorf("it has children: %w", errdefs.ErrFailedPrecondition)
		}
		if err := t.unmark(r.id); err != nil {
			return err
		}
		return t.drop(r)
	})
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	_ = os.RemoveAll(s.dir(r.id))
	return nil
}

// Names of directories that begin so are of no snapshot: one is being made, as
// containerd names it too, or only waits for its removal.
const (
	unborn    = "new-"
	discarded = "rm-"
)

// discard renames the directory of id away, if there is one.
func (s *Snapshotter) discard(id uint64) error {
	aside := filepath.Join(s.root, "snapshots", discarded+strconv.FormatUint(id, 10)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(s.dir(id), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// orphans are the directories of snapshots that have no record.
func (s *Snapshotter) orphans(t table) (ids []uint64, err error) {
	known := map[uint64]bool{}
	if err := t.walk(func(r record) error { known[r.id] = true; return nil }); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	for _, e := range entries {
		if id, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && !known[id] {
			ids = append(ids, id)
		}
	}
	return ids, err
}

// Cleanup removes the directories that have no record.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	var orphans []uint64
	err := s.view(func(t table) (err error) { orphans, err = s.orphans(t); return err })
	if len(orphans) > 0 {
		// Again in a write transaction, as Prepare makes its directory in one: what has
		// no record then will have none.
		err = s.update(func(t table) error {
			ids, err := s.orphans(t)
			for _, id := range ids {
				err = errors.Join(err, s.discard(id))
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("clean snapshots up: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
	if err != nil {
		return fmt.Errorf("clean snapshots up: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, busy := s.making.Load(e.Name()); busy {
			continue
		}
		if strings.HasPrefix(e.Name(), discarded) || strings.HasPrefix(e.Name(), unborn) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.root, "snapshots", e.Name())))
		}
	}
	return err
}
