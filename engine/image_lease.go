package engine

import (
	"context"
	"fmt"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

const (
	// leaseTime is how long what a killed engine left half pulled is kept, unless the
	// pull is done before: one that is begun again goes on where it was cut off.
	leaseTime = 24 * time.Hour
	// pullLabel is on the lease of a pull and names the image, runLabel the life of
	// an engine that pulls it.
	pullLabel = "gantry.engine/pull"
	runLabel  = "gantry.engine/run"
	// onceLabel is on the leases of what is not taken up again: the next engine
	// deletes them.
	onceLabel = "gantry.engine/once"
)

// lease keeps containerd's garbage collection off what is made under the context
// that it gives, until done or until the engine has died.
func (i *images) lease(ctx context.Context) (leased context.Context, done func(), err error) {
	return i.leaseWith(ctx, map[string]string{onceLabel: "true"})
}

// pullLease is lease for a pull of name, which may be taken up again.
func (i *images) pullLease(ctx context.Context, name string) (leased context.Context, done func(), err error) {
	return i.leaseWith(ctx, map[string]string{
		pullLabel: name, runLabel: i.run,
		"containerd.io/gc.expire": time.Now().Add(leaseTime).UTC().Format(time.RFC3339),
	})
}

func (i *images) leaseWith(ctx context.Context, labels map[string]string) (leased context.Context, done func(), err error) {
	resp, err := i.ctrd.Leases.Create(ctx, &leasesapi.CreateRequest{ID: fmt.Sprintf("gantry-%d", time.Now().UnixNano()), Labels: labels})
	if err != nil {
		return nil, nil, fmt.Errorf("lease: %w", err)
	}
	return ctrd.WithLease(ctx, resp.Lease.ID), func() {
		ctx := context.WithoutCancel(ctx)
		if _, err := i.ctrd.Leases.Delete(ctx, &leasesapi.DeleteRequest{ID: resp.Lease.ID}); err != nil {
			i.cfg.Log.Warn("delete lease", "id", resp.Lease.ID, "err", err)
		}
	}, nil
}

// sweepLeases deletes the leases of an engine that was killed, but for those of its
// pulls.
func (i *images) sweepLeases(ctx context.Context) error {
	return i.deleteLeases(ctx, fmt.Sprintf("labels.%q==true", onceLabel))
}

// pulled deletes the leases of pulls of name that were cut off: it was pulled now.
func (i *images) pulled(ctx context.Context, name string) error {
	return i.deleteLeases(ctx, fmt.Sprintf("labels.%q==%q,labels.%q!=%q", pullLabel, name, runLabel, i.run))
}

func (i *images) deleteLeases(ctx context.Context, filter string) error {
	resp, err := i.ctrd.Leases.List(ctx, &leasesapi.ListRequest{Filters: []string{filter}})
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range resp.Leases {
		if _, err := i.ctrd.Leases.Delete(ctx, &leasesapi.DeleteRequest{ID: l.ID}); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("delete lease %s: %w", l.ID, err)
		}
	}
	return nil
}
