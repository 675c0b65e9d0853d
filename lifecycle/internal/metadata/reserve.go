package metadata

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// reserve is room that is set aside for deleting: a record is deleted by writing
// pages elsewhere, so on a full disk nothing could be deleted to make room. It is
// a file beside the database, given up when it is needed and taken again when
// there is room.
type reserve struct {
	path string

	mu sync.Mutex
	is bool
}

const reserveSize = 1 << 20

// take sets the room aside, if it is there and was not before.
func (r *reserve) take() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.is {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if full(err) {
		return nil // later
	} else if err != nil {
		return fmt.Errorf("set room aside for deleting: %w", err)
	}
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, reserveSize), f.Close())
	if err == nil {
		r.is = true
		return nil
	}
	if full(err) || errors.Is(err, unix.EOPNOTSUPP) { // later; or such a file system sets none aside
		err = nil
	}
	return errors.Join(err, os.Remove(r.path))
}

// giveUp gives the room up, and says whether there was any.
func (r *reserve) giveUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) || !r.is {
		return false
	}
	r.is = false
	return true
}

func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// delete is Update for what makes room. fn may run twice.
func (db *DB) delete(fn func(*bolt.Tx) error) error {
	return db.makingRoom(func() error { return db.update(fn) })
}

// makingRoom does what makes room, if need be in the room that is set aside.
func (db *DB) makingRoom(do func() error) error {
	err := do()
	if full(err) && db.reserve.giveUp() {
		db.log.Warn("the disk is full: deleting in the room that was set aside", "err", err)
		err = do()
	}
	return err
}
