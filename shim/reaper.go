package shim

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// reaper waits for every child of this process: containers, execs, and, because
// the shim is their subreaper, whatever they orphan.
//
// A child that is watched tells its end by its pidfd, in Go's poller. Of orphans
// only SIGCHLD tells, for which the Go runtime keeps three threads; so it is asked
// for only where a container has its processes among ours. One that came without
// (a hook that left something behind) is reaped with the next child.
//
// Children that somebody else waits for (a runtime's command line, its hooks)
// must not lose their status to us. Who makes such children holds the reaper
// meanwhile; a held reaper waits only for the processes that it watches.
type reaper struct {
	gate    *gate.Gate
	mu      sync.Mutex
	watched map[int]func(exit)
	held    int
	signals chan os.Signal // nil until listen
}

// exit is how a process ended: its status, 128 and the signal's number if it was
// killed, and when we saw it.
type exit struct {
	status uint32
	at     time.Time
}

// newReaper makes this process the subreaper of its descendants.
func newReaper(g *gate.Gate) (*reaper, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, os.NewSyscallError("become subreaper", err)
	}
	return &reaper{gate: g, watched: map[int]func(exit){}}, nil
}

// listen has the kernel tell of every child that ends, from now on and, of those
// before, now.
func (r *reaper) listen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.signals == nil {
		r.signals = make(chan os.Signal, 1)
		signal.Notify(r.signals, unix.SIGCHLD)
		go r.run()
	}
	r.sweep()
}

// run ends with the process.
func (r *reaper) run() {
	for range r.signals {
		r.gate.Enter()
		r.mu.Lock()
		r.sweep()
		r.mu.Unlock()
		r.gate.Leave()
	}
}

// hold keeps the reaper off children that it does not watch, until release.
func (r *reaper) hold() {
	r.mu.Lock()
	r.held++
	r.mu.Unlock()
}

// release undoes hold, and waits for what ended meanwhile.
func (r *reaper) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held--
	r.sweep()
}

// watch calls f, in a goroutine of its own and inside the gate, when pid has ended.
// The reaper is held while pid is made and watched, so that its exit cannot be missed.
func (r *reaper) watch(pid int, f func(exit)) {
	r.mu.Lock()
	r.watched[pid] = f
	r.mu.Unlock()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		r.listen() // before Linux 5.3, or no descriptor is left
		return
	}
	go r.await(stream.Pollable(fd, "pidfd")) // ends with pid
}

// await waits until the process of pidfd has ended.
func (r *reaper) await(pidfd *os.File) {
	err := stream.Await(pidfd, r.gate, func(fd int) (ended bool) {
		if ended = stream.Readable(fd); ended {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sweep()
		}
		return ended
	})
	if err = errors.Join(err, pidfd.Close()); err != nil {
		r.gate.Enter()
		defer r.gate.Leave()
		r.listen()
	}
}

// sweep waits for all that has ended. The caller holds r.mu and is inside the gate.
func (r *reaper) sweep() {
	for pid := range r.watched {
		r.wait(pid)
	}
	for r.held == 0 && r.wait(-1) {
	}
}

// wait waits for pid, or any child with -1, if it has ended.
func (r *reaper) wait(pid int) bool {
	var ws unix.WaitStatus
	var got int
	err := error(unix.EINTR)
	for err == unix.EINTR {
		got, err = unix.Wait4(pid, &ws, unix.WNOHANG, nil)
	}
	if err != nil || got <= 0 {
		return false
	}
	f, ok := r.watched[got]
	if !ok {
		return true
	}
	delete(r.watched, got)
	e := exit{status: uint32(ws.ExitStatus()), at: time.Now()}
	if ws.Signaled() {
		e.status = 128 + uint32(ws.Signal())
	}
	r.gate.Join()
	go func() {
		defer r.gate.Leave()
		f(e)
	}()
	return true
}

// kill signals a process that is watched. While it is, its pid is its own: it
// cannot have gone to another process. NotFound says that it has ended.
func (r *reaper) kill(pid int, sig unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.watched[pid]; !ok {
		return fmt.Errorf("process already finished: %w", errdefs.ErrNotFound)
	}
	return unix.Kill(pid, sig)
}
