package proxy_test

import (
	"context"
	"testing"

	"github.com/gantryd/gantry/store/internal/stock"
	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/proxy"
	"github.com/gantryd/gantry/store/snapshot/snapshottest"
)

func TestProxyToStockContainerdBehavesAsASnapshotter(t *testing.T) {
	c := stock.StartContainerd(t)
	snapshottest.Run(t, func(t *testing.T) (context.Context, snapshot.Snapshotter) {
		return stock.Context(t), proxy.New(c.Conn, "overlayfs")
	})
}
