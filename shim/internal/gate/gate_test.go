package gate

import (
	"sync"
	"testing"
	"time"
)

func TestACloseWaitsForWhoIsInsideAndForThoseTheySend(t *testing.T) {
	var g Gate
	g.Enter()
	done := make(chan bool)
	go func() { done <- g.Close(time.Minute) }()
	for closing := false; !closing; {
		g.mu.Lock()
		closing = g.opened != nil
		g.mu.Unlock()
	}
	g.Join()
	g.Leave()
	select {
	case <-done:
		t.Fatal("it is closed while one is inside")
	default:
	}
	g.Leave()
	if !<-done {
		t.Fatal("it is not closed although nobody is inside")
	}
	entered := make(chan struct{})
	go func() { g.Enter(); close(entered) }()
	select {
	case <-entered:
		t.Fatal("a closed gate let one in")
	case <-time.After(10 * time.Millisecond):
	}
	g.Open()
	<-entered
	g.Leave()
}

func TestACloseThatTakesTooLongIsUndone(t *testing.T) {
	var g Gate
	g.Enter()
	if g.Close(time.Millisecond) {
		t.Fatal("it is closed while one is inside")
	}
	g.Enter() // does not wait
	g.Leave()
	g.Leave()
	if !g.Close(time.Minute) {
		t.Fatal("nobody is inside")
	}
}

func TestNobodyIsInsideAClosedGate(t *testing.T) {
	var g Gate
	var inside int // unguarded: the race detector watches
	var work sync.WaitGroup
	end := make(chan struct{})
	for range 4 {
		work.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				g.Enter()
				g.Join()
				go g.Leave()
				g.Leave()
			}
		})
	}
	for range 100 {
		if !g.Close(time.Minute) {
			t.Fatal("it is not closed")
		}
		g.mu.Lock()
		inside += g.inside
		g.mu.Unlock()
		g.Open()
	}
	close(end)
	work.Wait()
	if inside != 0 {
		t.Errorf("%d were inside", inside)
	}
}
