package cli

import "github.com/spf13/cobra"

func pauseCommand(c *cli) *cobra.Command {
	return verb(c, "pause", "Pause all processes within one or more containers")
}

func unpauseCommand(c *cli) *cobra.Command {
	return verb(c, "unpause", "Unpause all processes within one or more containers")
}
