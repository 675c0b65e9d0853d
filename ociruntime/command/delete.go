package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/ociruntime"
)

var deleteCommand = command{
	name: "delete", args: "CONTAINER…", least: 1, most: -1,
	about: "take a container apart that has stopped, or was never started",
	flags: func(f *flags) action {
		force := f.flag("force f", "kill its processes first; a container that is not there is no error")
		return func(s *session, args []string) (int, error) {
			var errs []error
			for _, id := range args {
				if err := s.delete(id, *force); err != nil {
					errs = append(errs, err)
				}
			}
			if len(errs) > 0 {
				return 1, errors.Join(errs...)
			}
			return 0, nil
		}
	},
}

func (s *session) delete(id string, force bool) error {
	c, err := s.load(id)
	if force && errors.Is(err, errNoContainer) {
		return ociruntime.Forget(s.root, id)
	}
	if err != nil {
		return err
	}
	defer c.Close()
	st, err := c.State()
	if err != nil && !force {
		return err
	}
	// A container that was created and is not wanted any more goes without force.
	err = c.Delete(context.Background(), force || st.Status == ociruntime.Created)
	if errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("cannot delete container %s that is not stopped: it is %s", id, st.Status)
	}
	return err
}
