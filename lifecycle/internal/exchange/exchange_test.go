package exchange

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
)

func publish(t testing.TB, x *Exchange, ns string, n int) {
	t.Helper()
	if err := x.Publish(ns, "/tasks/start", &events.TaskStart{ContainerID: fmt.Sprint(n)}); err != nil {
		t.Fatal(err)
	}
}

var errEnough = errors.New("enough")

// take gives the IDs of the first n events.
func take(t testing.TB, s Subscription, n int) (ids []string) {
	t.Helper()
	err := s.Each(t.Context(), func(e *types.Envelope) error {
		v, err := typeurl.UnmarshalAny(e.Event)
		if err != nil {
			return err
		}
		ids = append(ids, v.(*events.TaskStart).ContainerID)
		if len(ids) == n {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	return ids
}

func TestEverySubscriberHasItsEventsInOrder(t *testing.T) {
	var x Exchange
	publish(t, &x, "a", -1) // before anybody listens
	var subs []Subscription
	for _, filter := range []string{"", "namespace==a", `event.container_id~="[02468]$"`, "topic~=start,namespace!=a"} {
		s, err := x.Subscribe(filter)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		subs = append(subs, s)
	}
	for n := range 10 {
		publish(t, &x, []string{"a", "b"}[n%2], n)
	}
	for i, want := range []string{"[0 1 2 3 4 5 6 7 8 9]", "[0 2 4 6 8]", "[0 2 4 6 8]", "[1 3 5 7 9]"} {
		count := 5
		if i == 0 {
			count = 10
		}
		if got := fmt.Sprint(take(t, subs[i], count)); got != want {
			t.Errorf("subscriber %d has %s, want %s", i, got, want)
		}
	}
}

func TestASlowSubscriberEndsAndHoldsUpNobody(t *testing.T) {
	var x Exchange
	slow, err := x.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	body, err := typeurl.MarshalAnyToProto(&events.TaskStart{ContainerID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for range backlog + 1 {
		if err := x.PublishAny("a", "/tasks/start", body); err != nil {
			t.Fatal(err)
		}
	}
	err = slow.Each(t.Context(), func(*types.Envelope) error { return nil })
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("slow subscriber: %v", err)
	}
}

func TestASubscriptionEndsWithItsContext(t *testing.T) {
	var x Exchange
	s, err := x.Subscribe()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Each(ctx, func(*types.Envelope) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := x.Subscribe("topic=x"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("bad filter: %v", err)
	}
}
