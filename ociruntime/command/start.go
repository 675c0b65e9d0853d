package command

import (
	"context"

	"github.com/gantryd/gantry/ociruntime"
)

var startCommand = command{
	name: "start", args: "CONTAINER", least: 1, most: 1,
	about: "run the program of a container that was created",
	flags: plain(with(func(s *session, c *ociruntime.Container) error { return c.Start(context.Background()) })),
}
