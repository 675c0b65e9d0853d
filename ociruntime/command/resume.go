package command

import "github.com/gantryd/gantry/ociruntime"

var resumeCommand = command{
	name: "resume", args: "CONTAINER", least: 1, most: 1,
	about: "thaw a container that was paused",
	flags: plain(with(func(_ *session, c *ociruntime.Container) error { return c.Resume() })),
}
