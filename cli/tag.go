package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/name"
)

func tagCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := imageName(args[0]); err != nil {
				return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[0], err)
			}
			target, err := name.Parse(args[1])
			if err != nil {
				return fmt.Errorf("Error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
			}
			if target = target.Tagged(); target.Digest != "" {
				return fmt.Errorf("refusing to create a tag with a digest reference")
			}
			cl, err := c.engine()
			if err != nil {
				return err
			}
			q := url.Values{"repo": {target.Repository()}, "tag": {target.Tag}}
			return cl.Post(cmd.Context(), "/images/"+args[0]+"/tag", q, nil, nil)
		},
	}
	aliases(cmd, "image tag", "tag")
	return cmd
}
