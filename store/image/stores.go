package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/snapshot"
)

// Stores is where an image goes.
type Stores struct {
	Content   content.Store
	Snapshots snapshot.Snapshotter // only to unpack
	// Snapshotter is the name of Snapshots in labels; empty is "overlayfs".
	Snapshotter string
	Images      Images
	// Flights lets pulls and unpacks that run at the same time share layers; nil
	// shares none.
	Flights *Flights
}

func (s Stores) snapshotter() string {
	if s.Snapshotter == "" {
		return "overlayfs"
	}
	return s.Snapshotter
}

// name creates img, or moves its name to the new target. What an earlier import said of
// its end is said no more.
func (s Stores) name(ctx context.Context, img Image) (Image, error) {
	made, err := s.Images.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		fields := []string{"target", "labels.containerd.io/gc.expire", "labels.containerd.io/gc.bref.image"}
		for k := range img.Labels {
			fields = append(fields, "labels."+k)
		}
		made, err = s.Images.Update(ctx, img, fields...)
	}
	if err != nil {
		return Image{}, fmt.Errorf("name image %s: %w", img.Name, err)
	}
	return made, nil
}

// Flights knows which layers are being unpacked, so that each is by one at a
// time. The zero Flights is ready.
type Flights struct {
	mu  sync.Mutex
	all map[string]chan struct{}
}

// take waits until nobody works on key, and then does; done lets go.
func (f *Flights) take(ctx context.Context, key string) (done func(), err error) {
	if f == nil {
		return func() {}, nil
	}
	for {
		f.mu.Lock()
		other, busy := f.all[key]
		if !busy {
			break
		}
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	f.all[key] = mine
	return func() {
		f.mu.Lock()
		delete(f.all, key)
		f.mu.Unlock()
		close(mine)
	}, nil
}
