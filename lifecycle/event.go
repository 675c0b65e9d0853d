package lifecycle

import (
	"context"
	"fmt"

	api "github.com/containerd/containerd/api/services/events/v1"
	ttrpcapi "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// events is containerd.services.events.v1.Events.
type events struct {
	api.UnimplementedEventsServer
	l *Lifecycle
}

func (e *events) Publish(ctx context.Context, r *api.PublishRequest) (*emptypb.Empty, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, e.l.events.PublishAny(s.Namespace, r.Topic, r.Event)
}

func (e *events) Forward(_ context.Context, r *api.ForwardRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, e.l.shims.Forward(r.Envelope)
}

// Subscribe sends the events of every namespace: a filter chooses. The headers
// go out first, so that a client knows that it misses nothing from now on.
func (e *events) Subscribe(r *api.SubscribeRequest, srv api.Events_SubscribeServer) error {
	sub, err := e.l.events.Subscribe(r.Filters...)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := srv.SendHeader(nil); err != nil {
		return err
	}
	err = sub.Each(srv.Context(), func(env *types.Envelope) error { return srv.Send(env) })
	if srv.Context().Err() != nil {
		return nil
	}
	return fmt.Errorf("subscribe: %w", err)
}

// forwarder is containerd.services.events.ttrpc.v1.Events, to which shims send.
type forwarder struct{ l *Lifecycle }

func (f forwarder) Forward(_ context.Context, r *ttrpcapi.ForwardRequest) (*emptypb.Empty, error) {
	if err := f.l.shims.Forward(r.Envelope); err != nil {
		return nil, errgrpc.ToGRPC(err)
	}
	return &emptypb.Empty{}, nil
}
