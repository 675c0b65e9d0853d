package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

func renameCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename CONTAINER NEW_NAME",
		Short: "Rename a container",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, to := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if from == "" || to == "" {
				return errors.New("Error: Neither old nor new names may be empty")
			}
			cl, err := c.engine()
			if err != nil {
				return err
			}
			if err := cl.Post(cmd.Context(), "/containers/"+url.PathEscape(from)+"/rename", url.Values{"name": {to}}, nil, nil); err != nil {
				fmt.Fprintln(c.std.Err, err)
				return fmt.Errorf("Error: failed to rename container named %s", from)
			}
			return nil
		},
	}
	aliases(cmd, "container rename", "rename")
	return cmd
}
