// Package exchange hands events of containerd's API from those who publish to
// those who subscribe. A publisher never waits: what a slow subscriber has not
// taken yet is kept for it, up to a bound at which its subscription ends.
package exchange

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/filter"
)

// backlog is how many events are kept for one subscriber.
const backlog = 1 << 17

// Exchange is where events pass. The zero Exchange is ready for use.
type Exchange struct {
	mu   sync.Mutex
	subs map[*subscription]struct{}
}

type subscription struct {
	filter filter.Filter
	wake   chan struct{} // capacity 1
	mu     sync.Mutex
	queue  []*types.Envelope
	full   bool
}

// Publish sends event, now, in namespace ns under topic ("/tasks/exit").
func (x *Exchange) Publish(ns, topic string, event proto.Message) error {
	body, err := typeurl.MarshalAnyToProto(event)
	if err != nil {
		return fmt.Errorf("publish %s: %w", topic, err)
	}
	return x.PublishAny(ns, topic, body)
}

// PublishAny is Publish for an event that is marshalled already.
func (x *Exchange) PublishAny(ns, topic string, event *anypb.Any) error {
	return x.Forward(&types.Envelope{Timestamp: timestamppb.Now(), Namespace: ns, Topic: topic, Event: event})
}

// Forward sends an event that another stamped. The kind of its errors is
// InvalidArgument.
func (x *Exchange) Forward(e *types.Envelope) error {
	if err := validate(e); err != nil {
		return fmt.Errorf("forward event: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.subs) == 0 {
		return nil
	}
	fields := fieldsOf(e)
	for s := range x.subs {
		if s.filter.Match(fields) {
			s.put(e)
		}
	}
	return nil
}

func validate(e *types.Envelope) error {
	switch {
	case e.GetNamespace() == "":
		return fmt.Errorf("no namespace")
	case !strings.HasPrefix(e.Topic, "/") || len(e.Topic) == 1:
		return fmt.Errorf("topic %q: want /NOUN/VERB", e.Topic)
	case e.Timestamp == nil || e.Timestamp.AsTime().Equal(time.Time{}):
		return fmt.Errorf("no timestamp")
	}
	return nil
}

// fieldsOf opens an envelope to filters; the event is decoded when one asks.
func fieldsOf(e *types.Envelope) filter.Fields {
	decode := sync.OnceValue(func() any {
		v, err := typeurl.UnmarshalAny(e.Event)
		if err != nil {
			return nil
		}
		return v
	})
	return func(path []string) (string, bool) {
		switch path[0] {
		case "namespace":
			return e.Namespace, true
		case "topic":
			return e.Topic, true
		case "event":
			if f, ok := decode().(interface {
				Field([]string) (string, bool)
			}); ok && len(path) > 1 {
				return f.Field(path[1:])
			}
		}
		return "", false
	}
}

func (s *subscription) put(e *types.Envelope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) >= backlog {
		s.full, s.queue = true, nil
	}
	if !s.full {
		s.queue = append(s.queue, e)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) take() ([]*types.Envelope, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return nil, fmt.Errorf("subscribe: more than %d events not taken: %w", backlog, errdefs.ErrResourceExhausted)
	}
	q := s.queue
	s.queue = nil
	return q, nil
}

// Subscription is a place in the exchange, held from Subscribe to Close.
type Subscription struct {
	x *Exchange
	s *subscription
}

// Subscribe begins to keep the events that match one of the filters.
func (x *Exchange) Subscribe(filters ...string) (Subscription, error) {
	f, err := filter.Parse(filters...)
	if err != nil {
		return Subscription{}, err
	}
	s := &subscription{filter: f, wake: make(chan struct{}, 1)}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.subs == nil {
		x.subs = map[*subscription]struct{}{}
	}
	x.subs[s] = struct{}{}
	return Subscription{x, s}, nil
}

// Each calls fn for every event, in order, until ctx ends or fn fails.
func (s Subscription) Each(ctx context.Context, fn func(*types.Envelope) error) error {
	for {
		events, err := s.s.take()
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := fn(e); err != nil {
				return err
			}
		}
		select {
		case <-s.s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close gives the place up.
func (s Subscription) Close() {
	s.x.mu.Lock()
	defer s.x.mu.Unlock()
	delete(s.x.subs, s.s)
}
