package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
)

func rmCommand(c *cli) *cobra.Command {
	var force, link, vols bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more containers",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			q := url.Values{}
			for name, on := range map[string]bool{"force": force, "link": link, "v": vols} {
				if on {
					q.Set(name, "1")
				}
			}
			err = c.each(cmd.Context(), args, func(ctx context.Context, arg string) error {
				arg = strings.Trim(arg, "/")
				if arg == "" {
					return errors.New("container name cannot be empty")
				}
				return cl.Delete(ctx, "/containers/"+url.PathEscape(arg), q, nil)
			})
			if force {
				return c.forgiveMissing(err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	f.BoolVarP(&link, "link", "l", false, "Remove the specified link")
	f.BoolVarP(&vols, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	aliases(cmd, "container rm", "container remove", "rm")
	return cmd
}

// forgiveMissing says what was not found, and takes it as removed.
func (c *cli) forgiveMissing(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var rest []error
	for _, e := range joined.Unwrap() {
		if client.StatusOf(e) == http.StatusNotFound {
			fmt.Fprintln(c.std.Err, e)
			continue
		}
		rest = append(rest, e)
	}
	return errors.Join(rest...)
}
