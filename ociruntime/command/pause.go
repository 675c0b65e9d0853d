package command

import "github.com/gantryd/gantry/ociruntime"

var pauseCommand = command{
	name: "pause", args: "CONTAINER", least: 1, most: 1,
	about: "freeze every process of a container",
	flags: plain(with(func(_ *session, c *ociruntime.Container) error { return c.Pause() })),
}
