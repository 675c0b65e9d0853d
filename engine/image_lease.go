package engine

import (
	"context"
	"fmt"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// leaseTime is how long what a killed engine left half pulled is kept: a pull
// that is begun again goes on where it was cut off.
const leaseTime = 24 * time.Hour

// lease keeps containerd's garbage collection off what is made under the context
// that it gives, until done.
func (i *images) lease(ctx context.Context) (leased context.Context, done func(), err error) {
	resp, err := i.ctrd.Leases.Create(ctx, &leasesapi.CreateRequest{
		ID:     fmt.Sprintf("gantry-%d", time.Now().UnixNano()),
		Labels: map[string]string{"containerd.io/gc.expire": time.Now().Add(leaseTime).UTC().Format(time.RFC3339)},
	})
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
