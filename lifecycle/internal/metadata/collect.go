package metadata

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/snapshot"
)

const (
	// collectDelay is how long after a deletion garbage is collected, so that one
	// collection serves a burst of them.
	collectDelay = 100 * time.Millisecond
	// collectShare keeps the database free for its users: a collection is followed
	// by a pause of this many times what it took.
	collectShare = 50
	// collectEvery looks for leases and ingests that expired.
	collectEvery = 10 * time.Minute
)

// collections is when garbage is collected, and what is known to be garbage in
// the stores below.
type collections struct {
	wake chan struct{} // capacity 1
	quit context.CancelFunc
	done chan struct{}

	running sync.Mutex // one collection at a time

	mu        sync.Mutex
	after     func(context.Context)
	blobs     map[digest.Digest]struct{} // perhaps linked nowhere
	snapshots map[string][]string        // by snapshotter, names without a record
}

func (c *collections) start(db *DB) {
	var ctx context.Context
	ctx, c.quit = context.WithCancel(context.Background())
	c.wake, c.done = make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(c.done)
		c.run(ctx, db)
	}()
}

func (c *collections) stop() {
	c.quit()
	<-c.done
}

func (c *collections) run(ctx context.Context, db *DB) {
	delay := collectDelay
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(collectEvery):
		case <-c.wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
		}
		begin := time.Now()
		db.collect(ctx)
		delay = max(collectDelay, collectShare*time.Since(begin))
	}
}

// later has garbage collected a little later.
func (c *collections) later() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// unlinked notes a blob that may be linked nowhere now; no digest is no blob.
func (c *collections) unlinked(dgst digest.Digest) {
	if dgst == "" {
		return
	}
	c.mu.Lock()
	if c.blobs == nil {
		c.blobs = map[digest.Digest]struct{}{}
	}
	c.blobs[dgst] = struct{}{}
	c.mu.Unlock()
	c.later()
}

// removed notes snapshots below whose records are gone.
func (c *collections) removed(snapshotter string, names ...string) {
	c.mu.Lock()
	if c.snapshots == nil {
		c.snapshots = map[string][]string{}
	}
	c.snapshots[snapshotter] = append(c.snapshots[snapshotter], names...)
	c.mu.Unlock()
	c.later()
}

func (c *collections) take() (blobs map[digest.Digest]struct{}, snapshots map[string][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	blobs, snapshots = c.blobs, c.snapshots
	c.blobs, c.snapshots = nil, nil
	return blobs, snapshots
}

// AfterCollect has fn called at the end of each collection, for what is kept by
// records here and lies elsewhere.
func (db *DB) AfterCollect(fn func(context.Context)) {
	db.collections.mu.Lock()
	defer db.collections.mu.Unlock()
	db.collections.after = fn
}

// Collect collects garbage now and returns when it is gone.
func (db *DB) Collect() { db.collect(context.Background()) }

func (db *DB) collect(ctx context.Context) {
	db.collections.running.Lock()
	defer db.collections.running.Unlock()
	if err := db.sweep(ctx); err != nil {
		db.log.Error("collect garbage", "err", err)
	}
	blobs, snapshots := db.collections.take()
	for dgst := range blobs {
		if err := db.deleteBlob(ctx, dgst); err != nil {
			db.log.Error("delete blob that nothing needs", "digest", dgst, "err", err)
		}
	}
	for sn, names := range snapshots {
		db.removeSnapshots(ctx, sn, names)
	}
	if err := db.reserve.take(); err != nil {
		db.log.Error("collect garbage", "err", err)
	}
	db.collections.mu.Lock()
	after := db.collections.after
	db.collections.mu.Unlock()
	if after != nil {
		after(ctx)
	}
}

// sweep deletes the records that nothing needs.
func (db *DB) sweep(ctx context.Context) error {
	var g garbage
	err := db.bolt.View(func(tx *bolt.Tx) error {
		g = db.garbageOf(tx)
		return nil
	})
	if err != nil || g.empty() {
		return err
	}
	// What was garbage may be needed now; only what still is goes.
	err = db.delete(func(tx *bolt.Tx) error {
		g = db.garbageOf(tx)
		return db.deleteRecords(tx, g)
	})
	if err != nil {
		return err
	}
	for _, i := range g.ingests {
		if err := db.content.Abort(ctx, i.below); err != nil && !errdefs.IsNotFound(err) {
			db.log.Error("abort ingest that expired", "ref", i.ref, "err", err)
		}
		db.collections.unlinked(i.expected)
	}
	for _, i := range g.images {
		db.publish(i.ns, "/images/delete", &events.ImageDelete{Name: i.key})
	}
	for _, b := range g.blobs {
		db.collections.unlinked(digest.Digest(b.key))
		db.publish(b.ns, "/content/delete", &events.ContentDelete{Digest: b.key})
	}
	for _, s := range g.snapshots {
		db.collections.removed(s.snapshotter, s.below)
		db.publish(s.ns, "/snapshot/remove", &events.SnapshotRemove{Key: s.key, Snapshotter: s.snapshotter})
	}
	return nil
}

func (db *DB) deleteRecords(tx *bolt.Tx, g garbage) error {
	for _, l := range g.leases {
		if err := at(tx, l.ns, leases).DeleteBucket([]byte(l.key)); err != nil {
			return err
		}
	}
	for _, i := range g.images {
		if err := at(tx, i.ns, images).DeleteBucket([]byte(i.key)); err != nil {
			return err
		}
	}
	for _, i := range g.ingests {
		if err := at(tx, i.ns, blobs, "ingests").DeleteBucket([]byte(i.ref)); err != nil {
			return err
		}
	}
	for _, b := range g.blobs {
		if err := at(tx, b.ns, blobs, "blob").DeleteBucket([]byte(b.key)); err != nil {
			return err
		}
	}
	for _, s := range g.snapshots {
		view := Snapshots{db: db, scope: Scope{Namespace: s.ns}, name: s.snapshotter}
		if err := view.disown(tx, s.key); err != nil {
			return err
		}
	}
	return nil
}

// deleteBlob deletes a blob that no namespace has. No blob is linked meanwhile.
func (db *DB) deleteBlob(ctx context.Context, dgst digest.Digest) error {
	db.linking.Lock()
	defer db.linking.Unlock()
	used := false
	err := db.bolt.View(func(tx *bolt.Tx) error {
		used = linked(tx, dgst)
		return nil
	})
	if err != nil || used {
		return err
	}
	if err := db.content.Delete(ctx, dgst); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// removeSnapshots removes names, which no record has, children before parents:
// it goes round until a round removes nothing.
func (db *DB) removeSnapshots(ctx context.Context, sn string, names []string) {
	below := db.snapshots[sn]
	if below == nil {
		return
	}
	for len(names) > 0 {
		var kept []string
		var last error
		for _, name := range slices.Backward(names) { // children are younger
			err := db.makingRoom(func() error { return below.Remove(ctx, name) })
			if err != nil && !errdefs.IsNotFound(err) {
				kept, last = append(kept, name), err
			}
		}
		if len(kept) == len(names) {
			db.log.Error("remove snapshots that nothing needs", "snapshotter", sn, "names", kept, "err", last)
			return
		}
		slices.Reverse(kept)
		names = kept
	}
	if c, ok := below.(snapshot.Cleaner); ok {
		if err := c.Cleanup(ctx); err != nil {
			db.log.Error("clean up snapshotter", "snapshotter", sn, "err", err)
		}
	}
}

// Repair makes the database and the stores agree after a crash: records whose
// snapshot is gone are deleted, and so is what the stores have without a record.
// It must run before anything else uses them.
func (db *DB) Repair(ctx context.Context) error {
	for sn, below := range db.snapshots {
		if err := db.repairSnapshots(ctx, sn, below); err != nil {
			return err
		}
		db.collections.removed(sn) // one may have been killed before its directories were
	}
	return db.repairBlobs(ctx)
}

func (db *DB) repairSnapshots(ctx context.Context, sn string, store snapshot.Snapshotter) error {
	there := map[string]struct{}{}
	var order []string
	err := store.Walk(ctx, func(i snapshot.Info) error {
		there[i.Name] = struct{}{}
		order = append(order, i.Name)
		return nil
	})
	if err != nil {
		return err
	}
	orphans := maps.Clone(there)
	var lost garbage
	err = db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx), func(ns string, nb *bolt.Bucket) error {
			return eachBucket(below(nb, snapshots, sn), func(key string, b *bolt.Bucket) error {
				name := string(b.Get(keyName))
				delete(orphans, name)
				if _, ok := there[name]; !ok {
					lost.snapshots = append(lost.snapshots, deadSnapshot{ns: ns, snapshotter: sn, key: key, below: name})
				}
				return nil
			})
		})
	})
	if err != nil {
		return err
	}
	if !lost.empty() {
		if err := db.update(func(tx *bolt.Tx) error { return db.deleteRecords(tx, lost) }); err != nil {
			return err
		}
	}
	for _, name := range order {
		if _, ok := orphans[name]; ok {
			db.collections.removed(sn, name)
		}
	}
	return nil
}

func (db *DB) repairBlobs(ctx context.Context) error {
	ingests := map[string]struct{}{}
	err := db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx), func(_ string, ns *bolt.Bucket) error {
			return eachBucket(below(ns, blobs, "ingests"), func(_ string, b *bolt.Bucket) error {
				ingests[string(b.Get(keyRef))] = struct{}{}
				return nil
			})
		})
	})
	if err != nil {
		return err
	}
	statuses, err := db.content.ListStatuses(ctx)
	if err != nil {
		return err
	}
	for _, st := range statuses {
		if _, ok := ingests[st.Ref]; !ok {
			if err := db.content.Abort(ctx, st.Ref); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
	}
	return db.content.Walk(ctx, func(i content.Info) error {
		db.collections.unlinked(i.Digest) // deleted later, unless it is linked
		return nil
	})
}
