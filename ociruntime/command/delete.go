package command

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/ociruntime"
)

var deleteCommand = command{
	name: "delete", args: "CONTAINER…", least: 1, most: -1,
	about: "take a container apart that has stopped, or was never started",
	flags: func(f *flags) action {
		force := f.flag("force f", "kill its processes first; a container that is not there is no error")
		matching := f.flag("regex r", "CONTAINER is a regular expression: delete all whose id it matches")
		return func(s *session, args []string) (int, error) {
			var errs []error
			if *matching {
				var err error
				if args, err = s.matching(args); err != nil {
					return 1, err
				}
			}
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

// matching are the containers whose id one of the patterns matches.
func (s *session) matching(patterns []string) (ids []string, err error) {
	containers, err := ociruntime.List(s.root)
	if err != nil {
		return nil, err
	}
	for _, c := range containers {
		defer c.Close()
	}
	for _, p := range patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("--regex %q: %w", p, err)
		}
		for _, c := range containers {
			if re.MatchString(c.ID) && !slices.Contains(ids, c.ID) {
				ids = append(ids, c.ID)
			}
		}
	}
	return ids, nil
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
