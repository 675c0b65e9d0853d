package cli

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
)

func rmiCommand(c *cli) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use:   "rmi [OPTIONS] IMAGE [IMAGE...]",
		Short: "Remove one or more images",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			q := url.Values{}
			if force {
				q.Set("force", "1")
			}
			if noPrune {
				q.Set("noprune", "1")
			}
			for _, p := range platforms {
				raw, err := platformJSON(p)
				if err != nil {
					return err
				}
				q.Add("platforms", raw)
			}
			var errs []error
			fatal := false
			for _, name := range args {
				var gone []image.DeleteResponse
				if err := cl.Delete(cmd.Context(), "/images/"+name, q, &gone); err != nil {
					fatal = fatal || client.StatusOf(err) != http.StatusNotFound
					errs = append(errs, err)
					continue
				}
				for _, g := range gone {
					if g.Deleted != "" {
						fmt.Fprintln(c.std.Out, "Deleted: "+g.Deleted)
					} else {
						fmt.Fprintln(c.std.Out, "Untagged: "+g.Untagged)
					}
				}
			}
			if err := errors.Join(errs...); err != nil && force && !fatal {
				fmt.Fprintln(c.std.Err, err)
				return nil
			} else if err != nil {
				return err
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	f.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	f.StringSliceVar(&platforms, "platform", nil, "Remove only the given platform variant. Formatted\nas \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	aliases(cmd, "image rm", "image remove", "rmi")
	return cmd
}

func imageRmCommand(c *cli) *cobra.Command {
	cmd := rmiCommand(c)
	cmd.Use, cmd.Aliases = "rm [OPTIONS] IMAGE [IMAGE...]", []string{"rmi", "remove"}
	return cmd
}
