package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantryd/gantry/internal/mount"
)

// ctr is one container: its record, and what of it lives in this process alone.
type ctr struct {
	id      string
	created time.Time

	// life is held by what begins or ends a task (start, remove), and by what must
	// not meet either (update, rename, connect). A stop or kill does not hold it:
	// it asks, and the end comes by itself.
	life sync.Mutex
	// writing orders writes of the record.
	writing sync.Mutex
	dirty   atomic.Bool // a write is on its way

	mu      sync.Mutex
	rec     record
	run     *run          // the task that is or was last; nil before the first start
	pending []*attachment // opened before the task
	change  chan struct{} // closed, and made anew, whenever rec.State or run changes
	removed chan struct{} // closed when it is gone
	rootfs  []mount.Mount // of its snapshot, where they are known
	ready   *ready        // what its record has for the first start; nil if it has nothing
	restart *time.Timer   // the next start by the restart policy
	backoff backoff
	leaving bool // a removal by force is under way: nothing starts it again
}

func newCtr(id string, rec record) *ctr {
	return &ctr{
		id: id, created: rec.Created, rec: rec,
		change: make(chan struct{}), removed: make(chan struct{}),
	}
}

// run is one life of a task.
type run struct {
	number  int // 1 for the first start
	pid     int
	started time.Time
	exited  chan struct{} // closed when code and at are known
	code    int
	at      time.Time
	settled chan struct{} // closed when the task is deleted, its log whole, its network down
	// begun is closed when the task was started, or its start was given up.
	begun chan struct{}
}

// over reports whether the task has exited.
func (r *run) over() bool {
	select {
	case <-r.exited:
		return true
	default:
		return false
	}
}

// snapshot is the record of this moment.
func (k *ctr) snapshot() record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec.clone()
}

// edit changes the record, and wakes who waits for a change.
func (k *ctr) edit(f func(r *record)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.rec)
	k.wake()
}

// wake is called with mu held.
func (k *ctr) wake() {
	close(k.change)
	k.change = make(chan struct{})
}

// now is the state, the latest task, and a channel that is closed when either
// changes.
func (k *ctr) now() (state, *run, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec.State, k.run, k.change
}

// live is the task that runs now, or nil.
func (k *ctr) live() *run {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.run == nil || k.run.over() || k.rec.State.Phase != running {
		return nil
	}
	return k.run
}

// gone reports whether the container was removed.
func (k *ctr) gone() bool {
	select {
	case <-k.removed:
		return true
	default:
		return false
	}
}
