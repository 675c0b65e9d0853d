package command

import (
	"context"

	"github.com/gantryd/gantry/ociruntime"
)

var startCommand = command{
	name: "start", args: "CONTAINER", least: 1, most: 1,
	about: "run the program of a container that was created",
	flags: plain(with(func(s *session, c *ociruntime.Container) error {
		n, err := listenForReady(c)
		if err != nil {
			return err
		}
		return s.startReady(c, n, c.Pid)
	})),
}

// startReady starts a container and waits until its program is ready, where
// somebody wants to know. From there on it runs, whoever was told.
func (s *session) startReady(c *ociruntime.Container, n *notifier, mainPid int) error {
	if err := c.Start(context.Background()); err != nil {
		n.close()
		return err
	}
	if err := n.pass(c.PidFD, mainPid); err != nil {
		s.log.Warn(untold, "error", err)
	}
	return nil
}
