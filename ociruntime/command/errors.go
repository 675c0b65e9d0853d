package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/ociruntime"
)

// Words that callers of runc search for: podman and containerd take a container
// for gone when an error has the first, containerd a process for ended by the
// second.
var (
	errNoContainer = errors.New("container does not exist")
	errNotRunning  = errors.New("container not running")
)

// oneLine is the text of err in one line, for people.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// load finds a container by its id.
func (s *session) load(id string) (*ociruntime.Container, error) {
	c, err := ociruntime.Load(s.root, id)
	if errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("%s: %w", id, errNoContainer)
	}
	if err == nil {
		c.LogTo(s.log)
	}
	return c, err
}

// with makes a command of what is done to one container.
func with(do func(s *session, c *ociruntime.Container) error) action {
	return func(s *session, args []string) (int, error) {
		c, err := s.load(args[0])
		if err != nil {
			return 1, err
		}
		defer c.Close()
		if err := do(s, c); err != nil {
			return 1, err
		}
		return 0, nil
	}
}

// plain is a command without flags of its own.
func plain(a action) func(*flags) action { return func(*flags) action { return a } }
