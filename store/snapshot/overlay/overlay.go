// Package overlay keeps snapshots as directories for overlayfs, with the layout
// and the database of containerd's overlayfs snapshotter, so that a containerd
// can be started on it, and back:
//
//	metadata.db
//	snapshots/ID/fs      the layer, an upper or lower directory
//	snapshots/ID/work    overlayfs's own, beside fs
//
// The database is the truth. A directory comes before its record and goes after
// it; what a crash leaves between is an orphan, which Cleanup removes.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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
	root    string
	db      *bolt.DB
	options []string // of every overlay mount
}

var (
	_ snapshot.Snapshotter = (*Snapshotter)(nil)
	_ snapshot.Rebaser     = (*Snapshotter)(nil)
	_ snapshot.Cleaner     = (*Snapshotter)(nil)
)

// lockTimeout is how long New waits for a process that has the database open.
const lockTimeout = 10 * time.Second

// New opens, or makes, the snapshotter in root. Call Cleanup once it is open, to
// remove what a crash left.
func New(root string) (*Snapshotter, error) {
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
	s := &Snapshotter{root: root, db: db}
	// Lower directories are shared by many mounts and copied between machines: an
	// index of their inodes would refuse both (kernel: overlayfs.rst, "Inode index").
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		s.options = append(s.options, "index=off")
	}
	if inUserNamespace() {
		s.options = append(s.options, "userxattr") // trusted.* is for the initial one (5.11)
	}
	return s, nil
}

// inUserNamespace says whether this process is root of a part of the ids only.
func inUserNamespace() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(data))
	return err == nil && len(f) >= 3 && f[2] != "4294967295"
}

// Close closes the database.
func (s *Snapshotter) Close() error { return s.db.Close() }

func (s *Snapshotter) dir(id uint64) string {
	return filepath.Join(s.root, "snapshots", strconv.FormatUint(id, 10))
}
func (s *Snapshotter) fs(id uint64) string   { return filepath.Join(s.dir(id), "fs") }
func (s *Snapshotter) work(id uint64) string { return filepath.Join(s.dir(id), "work") }

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

// Prepare makes an active snapshot on parent.
func (s *Snapshotter) Prepare(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(snapshot.Active, key, parent, labels)
}

// View makes a read-only snapshot of parent.
func (s *Snapshotter) View(_ context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	return s.create(snapshot.View, key, parent, labels)
}

func (s *Snapshotter) create(kind snapshot.Kind, key, parent string, labels map[string]string) (mounts []mount.Mount, err error) {
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
		mounts = s.mounts(r, parents)
		return s.makeDirs(r, parents)
	})
	if err != nil {
		return nil, fmt.Errorf("make snapshot %s: %w", key, err)
	}
	return mounts, nil
}

// makeDirs makes the directories of a new record, which is not committed yet. One
// that has its number already was made by a process that died before its own commit.
func (s *Snapshotter) makeDirs(r record, parents []uint64) error {
	if err := s.discard(r.id); err != nil {
		return err
	}
	if err := os.Mkdir(s.dir(r.id), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(s.fs(r.id), 0o755); err != nil {
		return err
	}
	if r.Kind == snapshot.Active {
		if err := os.Mkdir(s.work(r.id), 0o711); err != nil {
			return err
		}
	}
	if len(parents) == 0 {
		return nil
	}
	// The root directory of the merged tree is that of the upper directory.
	fi, err := os.Stat(s.fs(parents[0]))
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 && st.Gid == 0 {
		return nil
	}
	return os.Chown(s.fs(r.id), int(st.Uid), int(st.Gid))
}

// Mounts tells how to mount an active snapshot or a view.
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
		mounts = s.mounts(r, parents)
		return err
	})
	return mounts, err
}

// mounts is a bind where one directory is all there is, else an overlay; parents
// are the ids below r, nearest first.
func (s *Snapshotter) mounts(r record, parents []uint64) []mount.Mount {
	if r.Kind == snapshot.Active && len(parents) == 0 {
		return bind(s.fs(r.id), "rw")
	}
	if len(parents) == 0 {
		return bind(s.fs(r.id), "ro")
	}
	if r.Kind == snapshot.View && len(parents) == 1 {
		return bind(s.fs(parents[0]), "ro")
	}
	options := append([]string(nil), s.options...)
	if r.Kind == snapshot.Active {
		options = append(options, "workdir="+s.work(r.id), "upperdir="+s.fs(r.id))
	}
	lower := make([]string, len(parents))
	for i, id := range parents {
		lower[i] = s.fs(id)
	}
	options = append(options, "lowerdir="+strings.Join(lower, ":"))
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: options}}
}

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
	usage, err = diskUsage(ctx, s.fs(r.id))
	if err != nil {
		return snapshot.Usage{}, fmt.Errorf("usage of snapshot %s: %w", key, err)
	}
	return usage, nil
}

// Commit turns active key into committed name.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, labels map[string]string) error {
	return s.commit(ctx, name, key, labels, func(table, *record) error { return nil })
}

// CommitOnto is Commit that gives a snapshot without parent its parent.
func (s *Snapshotter) CommitOnto(ctx context.Context, name, key, parent string, labels map[string]string) error {
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
		return t.insert(r)
	})
	if err != nil {
		return fmt.Errorf("commit snapshot %s as %s: %w", key, name, err)
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
		return t.drop(r)
	})
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", key, err)
	}
	_ = os.RemoveAll(s.dir(r.id))
	return nil
}

// discarded begins the names of directories that only wait for their removal.
const discarded = "rm-"

// discard renames the directory of id away, if there is one.
func (s *Snapshotter) discard(id uint64) error {
	aside := filepath.Join(s.root, "snapshots", discarded+strconv.FormatUint(id, 10)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(s.dir(id), aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Cleanup removes the directories that have no record.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	// In a write transaction, as Prepare makes its directory in one: what has no
	// record now will have none.
	err := s.update(func(t table) error {
		known := map[string]bool{}
		if err := t.walk(func(r record) error { known[strconv.FormatUint(r.id, 10)] = true; return nil }); err != nil {
			return err
		}
		entries, err := os.ReadDir(filepath.Join(s.root, "snapshots"))
		if err != nil {
			return err
		}
		for _, e := range entries {
			id, err := strconv.ParseUint(e.Name(), 10, 64)
			if err != nil || known[e.Name()] {
				continue
			}
			if err := s.discard(id); err != nil {
				return err
			}
		}
		return nil
	})
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
		// "new-" is how containerd names a directory that is being made.
		if strings.HasPrefix(e.Name(), discarded) || strings.HasPrefix(e.Name(), "new-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.root, "snapshots", e.Name())))
		}
	}
	return err
}
