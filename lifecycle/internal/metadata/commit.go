package metadata

import (
	"sync"

	bolt "go.etcd.io/bbolt"
)

// commits brings changes to disk. Those that come while others are on their way
// there wait, and go together in one transaction: the disk is waited for once.
type commits struct {
	turn chan struct{} // capacity 1; full while somebody commits

	mu      sync.Mutex
	waiting []*change
}

type change struct {
	do   func(*bolt.Tx) error
	done chan error // capacity 1
}

// update runs do in a transaction, which is on disk when it returns. do may run
// twice, and in another goroutine than the caller's.
func (db *DB) update(do func(*bolt.Tx) error) error {
	c := &change{do: do, done: make(chan error, 1)}
	db.commits.mu.Lock()
	db.commits.waiting = append(db.commits.waiting, c)
	db.commits.mu.Unlock()
	select {
	case err := <-c.done: // somebody took it along
		return err
	case db.commits.turn <- struct{}{}:
	}
	db.commit()
	<-db.commits.turn
	return <-c.done
}

// commit commits all that waits. An error of one does not touch the others: each
// runs alone then.
func (db *DB) commit() {
	db.commits.mu.Lock()
	all := db.commits.waiting
	db.commits.waiting = nil
	db.commits.mu.Unlock()
	if len(all) == 0 {
		return // taken along in the moment before our turn
	}
	err := db.bolt.Update(func(tx *bolt.Tx) error {
		for _, c := range all {
			if err := c.do(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range all {
		if err != nil && len(all) > 1 {
			c.done <- db.bolt.Update(c.do)
		} else {
			c.done <- err
		}
	}
}
