package cli

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
)

func waitCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wait CONTAINER [CONTAINER...]",
		Short: "Block until one or more containers stop, then print their exit codes",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				var w container.WaitResponse
				err := cl.Post(cmd.Context(), "/containers/"+url.PathEscape(name)+"/wait", nil, nil, &w)
				switch {
				case err != nil:
					errs = append(errs, err)
				case w.Error != nil && w.Error.Message != "":
					errs = append(errs, errors.New(w.Error.Message))
				default:
					fmt.Fprintln(c.std.Out, w.StatusCode)
				}
			}
			return errors.Join(errs...)
		},
	}
	aliases(cmd, "container wait", "wait")
	return cmd
}
