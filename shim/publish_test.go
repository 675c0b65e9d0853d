package shim_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	eventsapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestEventsWaitForADaemonThatIsAway(t *testing.T) {
	d := newDaemon(t)
	d.server.Close()
	c := d.newTask("one", spec("sleep", "1000"))
	c.create("/usr/sbin/runc", uris{})
	c.run("")
	want := []string{"create", "start"}
	for i := range 20 {
		id := fmt.Sprint("e", i)
		c.exec(id, uris{}, "true")
		c.run(id)
		c.wait(id)
		c.delete(id)
		want = append(want, "exec-added", "exec-started", "exit")
	}
	d.listen()
	d.wantTopics(want...)
	d.server.Close() // and away once more, with the connection open
	c.kill("", 9)
	c.wait("")
	c.delete("")
	d.listen()
	d.wantTopics(append(want, "exit", "delete")...)
	if !slices.IsSortedFunc(d.events, func(a, b *types.Envelope) int {
		return a.Timestamp.AsTime().Compare(b.Timestamp.AsTime())
	}) {
		t.Error("the events' times are not in order")
	}
	for _, e := range d.events {
		if e.Namespace != "test" {
			t.Errorf("namespace of %s is %q", e.Topic, e.Namespace)
		}
	}
}

func TestEventsAreTriedAgainWhileADaemonStarts(t *testing.T) {
	d := newDaemon(t)
	refusals := 3
	d.refuse = func() error {
		if refusals == 0 {
			return nil
		}
		refusals--
		return status.Error(codes.Unavailable, "starting")
	}
	c := d.newTask("one", spec("true"))
	c.create("/usr/sbin/runc", uris{})
	c.run("")
	c.wait("")
	c.delete("")
	d.wantTopics("create", "start", "exit", "delete")
}

func TestAnEventThatIsRefusedHoldsUpNoOther(t *testing.T) {
	d := newDaemon(t)
	first := true
	d.refuse = func() error {
		if !first {
			return nil
		}
		first = false
		return status.Error(codes.InvalidArgument, "never")
	}
	c := d.newTask("one", spec("true"))
	c.create("/usr/sbin/runc", uris{})
	c.run("")
	c.wait("")
	c.delete("")
	d.wantTopics("start", "exit", "delete")
}

func TestADaemonThatHangsHoldsUpNoContainer(t *testing.T) {
	d := newDaemon(t)
	hang := make(chan struct{})
	d.refuse = func() error { <-hang; return nil }
	c := d.newTask("one", spec("true"))
	begin := time.Now()
	c.create("/usr/sbin/runc", uris{})
	c.run("")
	if got := c.wait(""); got != 0 {
		t.Errorf("exit status is %d", got)
	}
	c.delete("")
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	close(hang)
	d.wantTopics("create", "start", "exit", "delete")
}

// Forward is the daemon's side of an event.
func (d *daemon) Forward(_ context.Context, r *eventsapi.ForwardRequest) (*emptypb.Empty, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		if err := d.refuse(); err != nil {
			return nil, err
		}
	}
	d.events = append(d.events, r.Envelope)
	return &emptypb.Empty{}, nil
}
