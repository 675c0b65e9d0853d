package shim

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// Config is what `start` tells the shim that it leaves behind.
type Config struct {
	ID        string // of the container or pod that the shim was started for
	Namespace string // containerd namespace of all its containers
	// Address is the daemon's gRPC socket, TTRPCAddress its ttrpc socket; each
	// stays the same when the daemon is replaced.
	Address      string
	TTRPCAddress string
	Publisher    string   // program that publishes events where there is no TTRPCAddress
	Socket       *os.File // listening; owned by the shim
	SocketPath   string   // removed by Shutdown
	Debug        bool
}

// Shim serves the Task API for its containers.
type Shim struct {
	cfg    Config
	gate   *gate.Gate // closed while the shim hands itself over
	reaper *reaper
	events *publisher
	server *ttrpc.Server

	mu         sync.Mutex
	containers map[string]*container // nil while one is being created
	settled    *sync.Cond            // on mu: a creation ended
	sandbox    *sandbox              // nil where the shim was not made one
	delivered  sync.WaitGroup        // attach clients that still get output
	execs      atomic.Int64          // started so far
	handing    sync.Mutex            // held by handOver
}

// New makes this process a shim: it becomes the reaper of all its descendants.
func New(cfg Config) (*Shim, error) {
	g := &gate.Gate{}
	r, err := newReaper(g)
	if err != nil {
		return nil, err
	}
	s := &Shim{cfg: cfg, gate: g, reaper: r, containers: map[string]*container{}}
	s.events = &publisher{
		namespace: cfg.Namespace,
		address:   cfg.TTRPCAddress,
		binary:    cfg.Publisher,
		grpc:      cfg.Address,
		reaper:    r,
		gate:      g,
	}
	s.settled = sync.NewCond(&s.mu)
	s.server = ttrpc.NewServer(cfg.Socket, s.handle, g)
	return s, nil
}

// How long Shutdown leaves what is under way, for its answer, for events that the
// daemon has not taken, and for attach clients that are slow.
const (
	answerGrace = time.Second
	eventGrace  = 5 * time.Second
	clientGrace = time.Minute
)

// Run serves until Shutdown is called without a container.
func (s *Shim) Run() error {
	if err := s.server.Serve(); err != nil {
		return err
	}
	s.server.Close(answerGrace)
	s.events.flush(eventGrace)
	delivered := make(chan struct{})
	go func() { s.delivered.Wait(); close(delivered) }()
	select {
	case <-delivered:
	case <-time.After(clientGrace):
	}
	return nil
}

// close lets go of a process's streams; attach clients that are behind still get
// what waits for them.
func (s *Shim) close(st *streams) error {
	if st == nil {
		return nil
	}
	if st.attach != nil {
		s.gate.Join()
		s.delivered.Go(func() {
			defer s.gate.Leave()
			st.attach.Wait()
		})
	}
	return st.close()
}

func (s *Shim) owner(id string, uid, gid uint32) owner {
	return owner{s.cfg.Namespace, id, s.reaper, s.gate, int(uid), int(gid)}
}

// stateDir is where the linked runtime and others keep what they know: beside
// the daemon's socket, so that daemons do not share it.
func (s *Shim) stateDir() string {
	if s.cfg.Address == "" {
		return "/run/gantry"
	}
	return filepath.Dir(strings.TrimPrefix(s.cfg.Address, "unix://"))
}

// find finds a container.
func (s *Shim) find(id string) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[id]
	if c == nil {
		return nil, fmt.Errorf("container %s: %w", id, errdefs.ErrNotFound)
	}
	return c, nil
}

// reserve keeps id for a container that is being created.
func (s *Shim) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.containers[id]; ok {
		return fmt.Errorf("container %s: %w", id, errdefs.ErrAlreadyExists)
	}
	s.containers[id] = nil
	return nil
}

func (s *Shim) put(id string, c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		delete(s.containers, id)
	} else {
		s.containers[id] = c
	}
	s.settled.Broadcast()
}

// awaitCreation waits while id is being created. A daemon that was started in the
// middle of it, and is told that there is no such container, would leave it behind.
func (s *Shim) awaitCreation(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if c, ok := s.containers[id]; !ok || c != nil {
			return
		}
		s.settled.Wait()
	}
}

// all are the containers that are made.
func (s *Shim) all() []*container {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*container, 0, len(s.containers))
	for _, c := range s.containers {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// trim gives back to the kernel what a creation needed and waiting does not. Each
// collection has the Go runtime keep a list for every size of object that is in
// use, which is a good part of what a quiet shim has; so there is none before
// this one, and after it not the one of every two minutes, but only when memory
// has grown by headroom.
func (s *Shim) trim() {
	for _, c := range s.all() {
		c.runtime.rest()
	}
	debug.SetGCPercent(100) // a collection without a goal would count on a big heap: huge pages
	debug.SetMemoryLimit(math.MaxInt64)
	debug.FreeOSMemory()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	debug.SetMemoryLimit(int64(m.Sys-m.HeapReleased) + headroom)
	debug.SetGCPercent(-1)
}

const headroom = 4 << 20

func unmarshal(b []byte, m wire.Message) error {
	if err := wire.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return nil
}
