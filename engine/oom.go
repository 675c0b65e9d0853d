package engine

import (
	"context"
	"time"

	taskevents "github.com/containerd/containerd/api/events"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	dockerevents "github.com/moby/moby/api/types/events"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// watchOOM marks the containers of which the kernel killed a process for memory.
func (c *containers) watchOOM() {
	c.goroutine(func(ctx context.Context) {
		for ctx.Err() == nil {
			c.readOOM(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(awaitAgain):
			}
		}
	})
}

// readOOM reads containerd's events until they end.
func (c *containers) readOOM(ctx context.Context) {
	s, err := c.ctrd.Events.Subscribe(ctx, &eventsapi.SubscribeRequest{
		Filters: []string{`namespace==` + c.cfg.Namespace + `,topic=="/tasks/oom"`},
	}, grpc.WaitForReady(true))
	if err != nil {
		return
	}
	for {
		env, err := s.Recv()
		if err != nil {
			return
		}
		var oom taskevents.TaskOOM
		if proto.Unmarshal(env.GetEvent().GetValue(), &oom) != nil {
			continue
		}
		k, err := c.find(oom.ContainerID)
		if err != nil {
			continue
		}
		k.edit(func(r *record) { r.State.OOMKilled = true })
		c.publish(k, dockerevents.ActionOOM, nil)
		c.persistSoon(k)
	}
}
