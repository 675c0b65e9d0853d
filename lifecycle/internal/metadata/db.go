package metadata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/gantryd/gantry/lifecycle/internal/exchange"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/snapshot"
)

// schemaVersion is the minor version of schema v1 that we write, containerd
// 2.0's; older ones only lack what we do not need.
const schemaVersion = 4

// Scope is for whom an operation is done: a namespace, and the lease, if any,
// that is to hold what the operation makes.
type Scope struct {
	Namespace string
	Lease     string
}

// DB is the metadata store.
type DB struct {
	bolt      *bolt.DB
	content   content.Store
	snapshots map[string]snapshot.Snapshotter
	events    *exchange.Exchange
	log       *slog.Logger
	reserve   reserve

	commits     commits
	names       atomic.Uint64 // makes names in the stores unique
	collections collections

	// linking is held shared from a blob's commit in the content store until it
	// is linked here, and alone while an unlinked blob is deleted there.
	linking sync.RWMutex
}

// Open opens or makes the database at path, over the stores, and begins to
// collect garbage. It deletes nothing yet.
func Open(path string, blobs content.Store, snapshotters map[string]snapshot.Snapshotter, events *exchange.Exchange, log *slog.Logger) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open metadata: %w", err)
	}
	// A containerd that still runs on this directory holds the lock.
	b, err := bolt.Open(path, 0o644, &bolt.Options{Timeout: 10 * time.Second, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open metadata %s: %w", path, err)
	}
	db := &DB{
		bolt: b, reserve: reserve{path: filepath.Join(filepath.Dir(path), "reserve")}, commits: commits{turn: make(chan struct{}, 1)},
		content: blobs, snapshots: snapshotters, events: events, log: log,
	}
	db.names.Store(uint64(time.Now().UnixNano()))
	if err := b.Update(initSchema); err != nil {
		b.Close()
		return nil, fmt.Errorf("open metadata %s: %w", path, err)
	}
	if err := db.reserve.take(); err != nil {
		return nil, errors.Join(fmt.Errorf("open metadata: %w", err), b.Close())
	}
	db.collections.start(db)
	return db, nil
}

func initSchema(tx *bolt.Tx) error {
	root, err := tx.CreateBucketIfNotExists([]byte("v1"))
	if err != nil {
		return err
	}
	if v := root.Get([]byte("version")); v != nil {
		n, _ := binary.Varint(v)
		if n < 2 || n > schemaVersion {
			return fmt.Errorf("schema v1 version %d: want 2 to %d: %w", n, schemaVersion, errdefs.ErrNotImplemented)
		}
		return nil
	}
	return root.Put([]byte("version"), varint(schemaVersion))
}

// Close ends the collection of garbage and closes the database.
func (db *DB) Close() error {
	db.collections.stop()
	return db.bolt.Close()
}

func (db *DB) publish(ns, topic string, event proto.Message) {
	if err := db.events.Publish(ns, topic, event); err != nil {
		db.log.Error("publish event", "topic", topic, "err", err)
	}
}

// unique names a thing in a store below: containerd's form, NAMESPACE/NUMBER/KEY.
// The number only has to differ from every other; it counts up from the time at
// which the database was opened.
func (db *DB) unique(ns, key string) string {
	return fmt.Sprintf("%s/%d/%s", ns, db.names.Add(1), key)
}

// Snapshotters lists the names of the snapshotters.
func (db *DB) Snapshotters() []string {
	var names []string
	for n := range db.snapshots {
		names = append(names, n)
	}
	return names
}

// hold makes a resource belong to the scope's lease.
func (s Scope) hold(tx *bolt.Tx, path ...string) error {
	if s.Lease == "" {
		return nil
	}
	lease := at(tx, s.Namespace, leases, s.Lease)
	if lease == nil {
		return fmt.Errorf("lease %s: %w", s.Lease, errdefs.ErrNotFound)
	}
	b, err := makeBelow(lease, path[:len(path)-1]...)
	if err != nil {
		return err
	}
	return b.Put([]byte(path[len(path)-1]), nil)
}

// existing says whether the thing whose bucket is given is there, and, where the
// scope has a lease, makes it the lease's in the same step: it will not be
// collected before the client has found it.
func (db *DB) existing(s Scope, bucket func(*bolt.Tx) *bolt.Bucket, path ...string) (found bool, err error) {
	look := func(tx *bolt.Tx) error {
		if found = bucket(tx) != nil; found && tx.Writable() {
			return s.hold(tx, path...)
		}
		return nil
	}
	err = db.bolt.View(look)
	if err == nil && found && s.Lease != "" {
		err = db.update(look)
	}
	return found, err
}

// release takes a resource off the scope's lease, if both are there.
func (s Scope) release(tx *bolt.Tx, path ...string) error {
	if s.Lease == "" {
		return nil
	}
	b := at(tx, append([]string{s.Namespace, leases, s.Lease}, path[:len(path)-1]...)...)
	if b == nil {
		return nil
	}
	return b.Delete([]byte(path[len(path)-1]))
}
