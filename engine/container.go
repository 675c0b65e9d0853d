package engine

import (
	"context"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// containers is every container, by ID and by name.
type containers struct {
	cfg    Config
	ctrd   *ctrd.Client
	events *events

	images   *images
	volumes  *volumes
	networks *networks
	execs    *execs
}

func newContainers(life context.Context, cfg Config, client *ctrd.Client, ev *events) *containers {
	return &containers{cfg: cfg, ctrd: client, events: ev}
}

func (c *containers) routes() []route { return nil }

func (c *containers) restore(ctx context.Context) error { return nil }
func (c *containers) settle()                           {}

// execs is every process started beside a container's first.
type execs struct{ containers *containers }

func newExecs(c *containers) *execs { return &execs{containers: c} }

func (x *execs) routes() []route { return nil }
