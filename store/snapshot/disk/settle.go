package disk

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/store/snapshot"
)

// The files of a layer are not on disk yet when it is committed: to wait for that
// takes longer than to extract them. So a commit marks the layer with the boot that
// it is of, and the mark goes when the filesystem was synced, a little later:
//
//	gantry               (containerd passes over it)
//	└── unsynced
//	    └── id           as in snapshots → boot
//
// After a power cut the mark is still there, of a boot that is over: files of the
// layer may be empty, and it is not believed.
var (
	keyGantry   = []byte("gantry")
	keyUnsynced = []byte("unsynced")
)

// A sync waits until nothing was committed for quiet, but not longer than patience.
const (
	quiet    = time.Second
	patience = 10 * time.Second
)

// bootID names this boot of the machine.
func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

// mark notes that the layer id is not on disk.
func (t table) mark(id uint64, boot string) error {
	return t.unsynced.Put(binary.AppendUvarint(nil, id), []byte(boot))
}

func (t table) unmark(id uint64) error { return t.unsynced.Delete(binary.AppendUvarint(nil, id)) }

// marked lists the layers with a mark of which of says true of its boot.
func (t table) marked(of func(boot string) bool) (ids []uint64, err error) {
	if t.unsynced == nil {
		return nil, nil
	}
	err = t.unsynced.ForEach(func(k, boot []byte) error {
		if id, n := binary.Uvarint(k); n > 0 && of(string(boot)) {
			ids = append(ids, id)
		}
		return nil
	})
	return ids, err
}

// distrust removes the layers that a power cut may have torn, and remembers those that
// cannot be removed, since something stands on them. Directories are left to Cleanup.
func (s *Snapshotter) distrust() error {
	var doubtful []uint64
	err := s.view(func(t table) (err error) {
		doubtful, err = t.marked(func(boot string) bool { return boot != s.boot })
		return err
	})
	if err != nil || len(doubtful) == 0 {
		return err
	}
	err = s.update(func(t table) error {
		all := map[uint64]record{}
		if err := t.walk(func(r record) error { all[r.id] = r; return nil }); err != nil {
			return err
		}
		for removed := true; removed; { // children first, whose ids say nothing
			removed = false
			for i, id := range doubtful {
				r, there := all[id]
				if there && t.hasChild(id) {
					continue
				}
				if there {
					if err := t.drop(r); err != nil {
						return err
					}
					delete(all, id)
				}
				if err := t.unmark(id); err != nil {
					return err
				}
				doubtful, removed = slices.Delete(doubtful, i, i+1), true
				break
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove layers that were not on disk when the machine went down: %w", err)
	}
	s.doubtful = doubtful
	return nil
}

// remake makes the directories of snapshots in use anew that a power cut took with all
// that was in them: their records were on disk sooner. One on a layer that is gone too
// stays without.
func (s *Snapshotter) remake() error {
	lost := map[uint64]record{}
	below := map[uint64][]uint64{}
	err := s.view(func(t table) error {
		return t.walk(func(r record) (err error) {
			if _, serr := os.Lstat(s.dir(r.id)); r.Kind == snapshot.Committed || !errors.Is(serr, fs.ErrNotExist) {
				return nil
			}
			lost[r.id] = r
			below[r.id], err = t.chain(r.Parent)
			return err
		})
	})
	for id, r := range lost {
		made := filepath.Join(s.root, "snapshots", unborn+rand.Text())
		merr := os.Mkdir(made, 0o700)
		if merr == nil {
			merr = s.layout.make(context.Background(), made, r.Kind, s.dirs(below[id]))
		}
		if merr == nil {
			merr = os.Rename(made, s.dir(id))
		}
		if errors.Is(merr, fs.ErrNotExist) {
			merr = os.RemoveAll(made)
		}
		err = errors.Join(err, merr)
	}
	if err != nil {
		return fmt.Errorf("make directories anew that were not on disk when the machine went down: %w", err)
	}
	return nil
}

// whole is FailedPrecondition where one of the layers may be torn. Numbers are not given
// twice: a layer that was removed and made anew is another.
func (s *Snapshotter) whole(layers []uint64) error {
	if !slices.ContainsFunc(layers, func(id uint64) bool { return slices.Contains(s.doubtful, id) }) {
		return nil
	}
	return errs.Because(errdefs.ErrFailedPrecondition, "a layer below it was not on disk when the machine went down, and files may be empty: "+
		"remove the image and its containers, and pull the image again")
}

// Torn lists the snapshots in use whose layers may miss what was in their files: the
// machine went down before those were on disk. They are not mounted. Layers that
// nothing uses are removed instead, and made anew by the next who unpacks them.
func (s *Snapshotter) Torn() (names []string, err error) {
	if len(s.doubtful) == 0 {
		return nil, nil
	}
	err = s.view(func(t table) error {
		return t.walk(func(r record) error {
			below, err := t.chain(r.Parent)
			if err == nil && r.Kind != snapshot.Committed && s.whole(below) != nil {
				names = append(names, r.Name)
			}
			return err
		})
	})
	slices.Sort(names)
	return names, err
}

// settle syncs what was committed, until ctx ends, and then once more.
func (s *Snapshotter) settle(ctx context.Context) {
	for {
		select {
		case <-s.committed:
			s.calm(ctx)
		case <-ctx.Done():
			s.sync()
			return
		}
		s.sync()
	}
}

// calm waits for quiet.
func (s *Snapshotter) calm(ctx context.Context) {
	over := time.After(patience)
	for {
		select {
		case <-s.committed:
		case <-time.After(quiet):
			return
		case <-over:
			return
		case <-ctx.Done():
			return
		}
	}
}

// sync brings what is committed to disk, and takes the marks away. Where that fails
// they stay, and the next boot makes the layers anew.
func (s *Snapshotter) sync() {
	var ids []uint64
	err := s.view(func(t table) (err error) {
		ids, err = t.marked(func(boot string) bool { return boot == s.boot })
		return err
	})
	if err != nil || len(ids) == 0 {
		return
	}
	root, err := os.Open(s.root)
	if err != nil {
		return
	}
	defer root.Close()
	if unix.Syncfs(int(root.Fd())) != nil {
		return
	}
	_ = s.update(func(t table) error {
		for _, id := range ids {
			if err := t.unmark(id); err != nil {
				return err
			}
		}
		return nil
	})
}
