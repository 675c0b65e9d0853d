package proxy_test

import (
	"context"
	"testing"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/content/contenttest"
	"github.com/gantryd/gantry/store/content/proxy"
	"github.com/gantryd/gantry/store/internal/stock"
)

func TestProxyToStockContainerdBehavesAsAStore(t *testing.T) {
	c := stock.StartContainerd(t)
	contenttest.Run(t, func(t *testing.T) (context.Context, content.Store) {
		return stock.Context(t), proxy.New(c.Conn)
	})
}
