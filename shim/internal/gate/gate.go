// Package gate lets a process that is always at work be still for a moment, at a
// point where nothing is half done.
//
// Whoever takes something from one place and puts it into another (reads a
// connection and begins a call, reads a pipe and writes a log, waits for a child
// and notes its exit) is inside meanwhile. Who waits for something to take is
// outside. So with the gate closed and nobody inside, all there is to know is where
// it belongs: in the kernel, or in a field.
package gate

import (
	"sync"
	"time"
)

// Gate is open at first. A nil Gate is always open.
type Gate struct {
	mu     sync.Mutex
	inside int
	opened chan struct{} // closed when it opens; nil while it is open
	still  chan struct{} // closed when nobody is inside; nil unless Close waits
}

// Enter waits while the gate is closed, and then counts the caller in.
func (g *Gate) Enter() {
	if g == nil {
		return
	}
	g.mu.Lock()
	for g.opened != nil {
		opened := g.opened
		g.mu.Unlock()
		<-opened
		g.mu.Lock()
	}
	g.inside++
	g.mu.Unlock()
}

// Join counts in what a caller who is inside begins; it does not wait.
func (g *Gate) Join() {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.inside++
	g.mu.Unlock()
}

// Leave undoes one Enter or Join.
func (g *Gate) Leave() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.still != nil {
		close(g.still)
		g.still = nil
	}
}

// Close keeps everybody out and waits until nobody is inside. If that takes longer
// than limit, the gate is open again and the answer false: who is inside may wait
// for somebody who is kept out. One caller at a time; a success is undone by Open.
func (g *Gate) Close(limit time.Duration) bool {
	g.mu.Lock()
	g.opened = make(chan struct{})
	if g.inside == 0 {
		g.mu.Unlock()
		return true
	}
	still := make(chan struct{})
	g.still = still
	g.mu.Unlock()
	select {
	case <-still:
		return true
	case <-time.After(limit):
	}
	g.mu.Lock()
	g.still = nil
	g.mu.Unlock()
	g.Open()
	return false
}

// Open lets everybody in again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.opened = nil
}
