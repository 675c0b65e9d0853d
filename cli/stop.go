package cli

import (
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

func stopCommand(c *cli) *cobra.Command {
	return stopper(c, "stop", "Stop one or more running containers")
}

func restartCommand(c *cli) *cobra.Command {
	return stopper(c, "restart", "Restart one or more containers")
}

// stopper is stop or restart: both take a signal and a timeout.
func stopper(c *cli, name, short string) *cobra.Command {
	var signal string
	var timeout int
	cmd := &cobra.Command{
		Use:   name + " [OPTIONS] CONTAINER [CONTAINER...]",
		Short: short,
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if signal != "" {
				q.Set("signal", signal)
			}
			if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
				q.Set("t", strconv.Itoa(timeout))
			}
			return c.postEach(cmd.Context(), args, name, q)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(&timeout, "time", 0, "Seconds to wait before killing the container")
	f.Lookup("time").Hidden = true
	aliases(cmd, "container "+name, name)
	return cmd
}
