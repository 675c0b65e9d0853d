package cli

import (
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/format"
)

// changeRow is one path that a container has changed.
type changeRow struct{ Path, Type string }

func diffCommand(c *cli) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "diff CONTAINER",
		Short: "Inspect changes to files or directories on a container's filesystem",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			var changes []container.FilesystemChange
			if err := cl.Get(cmd.Context(), "/containers/"+url.PathEscape(args[0])+"/changes", nil, &changes); err != nil {
				return err
			}
			rows := make([]changeRow, len(changes))
			for i, ch := range changes {
				rows[i] = changeRow{ch.Path, ch.Kind.String()}
			}
			if text == "" {
				for _, r := range rows {
					fmt.Fprintln(c.std.Out, r.Type, r.Path)
				}
				return nil
			}
			l := format.List{Columns: []string{"Type", "Path"}, Headers: map[string]string{"Type": "CHANGE TYPE", "Path": "PATH"}}
			return format.Write(c.std.Out, l, text, rows)
		},
	}
	cmd.Flags().StringVar(&text, "format", "", listFormatUsage)
	aliases(cmd, "container diff", "diff")
	return cmd
}
