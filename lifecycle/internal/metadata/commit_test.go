package metadata

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// idle is a database of which somebody has the turn to commit: what is asked for
// waits until gather has n changes together.
func idle(t *testing.T) (db *DB, gather func(n int)) {
	t.Helper()
	b, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	db = &DB{bolt: b, commits: commits{turn: make(chan struct{}, 1)}}
	if err := db.update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }); err != nil {
		t.Fatal(err)
	}
	db.commits.turn <- struct{}{}
	return db, func(n int) {
		for {
			db.commits.mu.Lock()
			waiting := len(db.commits.waiting)
			db.commits.mu.Unlock()
			if waiting == n {
				<-db.commits.turn
				return
			}
			runtime.Gosched()
		}
	}
}

func put1(key string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error { return tx.Bucket([]byte("b")).Put([]byte(key), []byte("x")) }
}

// transactions is how many were committed so far.
func transactions(t *testing.T, db *DB) (n int) {
	t.Helper()
	if err := db.bolt.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func has(t *testing.T, db *DB, key string) (found bool) {
	t.Helper()
	err := db.bolt.View(func(tx *bolt.Tx) error { found = tx.Bucket([]byte("b")).Get([]byte(key)) != nil; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestChangesThatWaitGoToDiskTogether(t *testing.T) {
	db, gather := idle(t)
	before := transactions(t, db)
	const n = 20
	answers := make(chan error, n)
	for i := range n {
		go func() { answers <- db.update(put1(fmt.Sprint(i))) }()
	}
	gather(n)
	for range n {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	for i := range n {
		if !has(t, db, fmt.Sprint(i)) {
			t.Errorf("change %d was answered and is not there", i)
		}
	}
	if took := transactions(t, db) - before; took != 1 {
		t.Errorf("%d changes took %d transactions, want 1", n, took)
	}
}

func TestAChangeThatFailsLeavesTheOthersAlone(t *testing.T) {
	db, gather := idle(t)
	refused := errors.New("refused")
	good, bad := make(chan error, 10), make(chan error, 1)
	for i := range 10 {
		go func() { good <- db.update(put1(fmt.Sprint(i))) }()
	}
	go func() {
		bad <- db.update(func(tx *bolt.Tx) error { return errors.Join(put1("half")(tx), refused) })
	}()
	gather(11)
	for range 10 {
		if err := <-good; err != nil {
			t.Errorf("a change got the error of another: %v", err)
		}
	}
	if err := <-bad; !errors.Is(err, refused) {
		t.Errorf("the change that was refused got %v", err)
	}
	for i := range 10 {
		if !has(t, db, fmt.Sprint(i)) {
			t.Errorf("change %d was answered and is not there", i)
		}
	}
	if has(t, db, "half") {
		t.Error("what the refused change had written is there")
	}
}
