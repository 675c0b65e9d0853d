package engine

import (
	"context"
	"fmt"
	"maps"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

const (
	// leaseTime is how long what a killed engine left half pulled is kept if no engine
	// comes after it.
	leaseTime = 24 * time.Hour
	// pullGrace is how long the next engine keeps it, unless the pull is done before: one
	// that is begun again goes on where it was cut off.
	pullGrace = time.Hour
	// pullLabel is on the lease of a pull and names the image, runLabel the life of
	// an engine that pulls it.
	pullLabel = "gantry.engine/pull"
	runLabel  = "gantry.engine/run"
	// onceLabel is on the leases of what is not taken up again: the next engine
	// deletes them.
	onceLabel = "gantry.engine/once"
	// expireLabel is containerd's: when a lease ends by itself.
	expireLabel = "containerd.io/gc.expire"
)

// lease keeps containerd's garbage collection off what is made under the context
// that it gives, until done or until the engine has died.
func (i *images) lease(ctx context.Context) (leased context.Context, done func(), err error) {
	return i.leaseWith(ctx, map[string]string{onceLabel: "true"})
}

// pullLease is lease for a pull of name, which may be taken up again.
func (i *images) pullLease(ctx context.Context, name string) (leased context.Context, done func(), err error) {
	return i.leaseWith(ctx, map[string]string{pullLabel: name, runLabel: i.run, expireLabel: in(leaseTime)})
}

// in is a time from now, as expireLabel has it.
func in(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }

func (i *images) makeLease(ctx context.Context, labels map[string]string) (*leasesapi.CreateResponse, error) {
	return i.ctrd.Leases.Create(ctx, &leasesapi.CreateRequest{ID: fmt.Sprintf("gantry-%d", time.Now().UnixNano()), Labels: labels})
}

func (i *images) leaseWith(ctx context.Context, labels map[string]string) (leased context.Context, done func(), err error) {
	resp, err := i.makeLease(ctx, labels)
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

// sweepLeases deletes the leases of an engine that was killed; those of its pulls end
// soon.
func (i *images) sweepLeases(ctx context.Context) error {
	if err := i.deleteLeases(ctx, fmt.Sprintf("labels.%q==true", onceLabel)); err != nil {
		return err
	}
	resp, err := i.ctrd.Leases.List(ctx, &leasesapi.ListRequest{Filters: []string{fmt.Sprintf("labels.%q", pullLabel)}})
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range resp.Leases {
		end, err := time.Parse(time.RFC3339, l.Labels[expireLabel])
		if err == nil && end.Before(time.Now().Add(pullGrace)) {
			continue
		}
		if err := i.expireSoon(ctx, l); err != nil {
			return fmt.Errorf("shorten lease %s: %w", l.ID, err)
		}
	}
	return nil
}

// expireSoon replaces a lease by one with the same things that ends after pullGrace:
// labels of a lease do not change.
func (i *images) expireSoon(ctx context.Context, l *leasesapi.Lease) error {
	held, err := i.ctrd.Leases.ListResources(ctx, &leasesapi.ListResourcesRequest{ID: l.ID})
	if err != nil {
		return err
	}
	labels := maps.Clone(l.Labels)
	labels[expireLabel] = in(pullGrace)
	short, err := i.makeLease(ctx, labels)
	if err != nil {
		return err
	}
	for _, r := range held.Resources {
		if _, err := i.ctrd.Leases.AddResource(ctx, &leasesapi.AddResourceRequest{ID: short.Lease.ID, Resource: r}); err != nil {
			return err
		}
	}
	_, err = i.ctrd.Leases.Delete(ctx, &leasesapi.DeleteRequest{ID: l.ID})
	return err
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
