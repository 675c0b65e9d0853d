package network

import (
	"fmt"
	"sync"
	"time"

	"github.com/gantryd/gantry/internal/errs"
)

// prepared is a namespace that nobody uses yet, wired or not. It is pinned
// nowhere, so it ends with this process.
type prepared struct {
	ns   *namespace
	wire wire // zero if it has none
}

// close lets the kernel take the namespace apart, and the veth pair with it.
func (p *prepared) close() { p.ns.close() }

// newBare makes a namespace that has loopback alone.
func (n *Networks) newBare() (*prepared, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	return &prepared{ns: ns}, nil
}

// newPrepared makes a namespace with a veth pair that is up and on no bridge.
func (n *Networks) newPrepared() (_ *prepared, err error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { ns.close(); return nil })
	w, err := n.newWire(ns, "eth0")
	if err != nil {
		return nil, fmt.Errorf("wire network namespace: %w", err)
	}
	return &prepared{ns: ns, wire: w}, nil
}

// pool keeps a few prepared namespaces, as making one takes longer than all the
// rest of a Join. A burst that empties it makes its own.
type pool struct {
	n     *Networks
	make  func() (*prepared, error)
	size  int
	wake  chan struct{}
	quit  chan struct{}
	done  sync.WaitGroup
	start sync.Once

	mu    sync.Mutex
	ready []*prepared
}

func newPool(n *Networks, one func() (*prepared, error), size int) *pool {
	return &pool{n: n, make: one, size: max(size, 0), wake: make(chan struct{}, 1), quit: make(chan struct{})}
}

// fill begins to keep the pool full, or goes on with it. It is called once there
// is nothing left to sweep away.
func (p *pool) fill() {
	p.start.Do(func() { p.done.Go(p.run) })
	p.poke()
}

func (p *pool) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take gives a prepared namespace, nil if there is none.
func (p *pool) take() *prepared {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return nil
	}
	first := p.ready[0]
	p.ready = p.ready[1:]
	p.poke()
	return first
}

// lull is how long the pool waits before it refills, so that it does not compete
// for the processor with the start of the container that took from it.
const lull = 25 * time.Millisecond

func (p *pool) run() {
	for {
		select {
		case <-p.quit:
			return
		case <-p.wake:
		}
		for p.lacks() {
			select {
			case <-p.quit:
				return
			case <-time.After(lull):
			}
			if err := p.refill(); err != nil {
				p.n.log.Error("a network namespace cannot be prepared", "error", err)
				break // until the next take
			}
		}
	}
}

func (p *pool) lacks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready) < p.size
}

func (p *pool) refill() error {
	for p.lacks() {
		one, err := p.make()
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.ready = append(p.ready, one)
		p.mu.Unlock()
	}
	return nil
}

// close ends the pool and what is in it.
func (p *pool) close() {
	close(p.quit)
	p.done.Wait()
	var links []string
	for one := p.take(); one != nil; one = p.take() {
		if one.wire.name != "" {
			links = append(links, one.wire.name)
		}
		one.close()
	}
	p.n.reaper.add(debris{links: links})
}
