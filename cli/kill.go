package cli

import (
	"net/url"

	"github.com/spf13/cobra"
)

func killCommand(c *cli) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:   "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Kill one or more running containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if signal != "" {
				q.Set("signal", signal)
			}
			return c.postEach(cmd.Context(), args, "kill", q)
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	aliases(cmd, "container kill", "kill")
	return cmd
}
