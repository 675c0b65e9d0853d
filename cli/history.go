package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/format"
)

type historyOptions struct {
	human, noTrunc, quiet bool
	format, platform      string
}

// historyRow is one layer of an image.
type historyRow struct {
	Comment, CreatedAt, CreatedBy, CreatedSince, ID, Size string
}

func historyCommand(c *cli) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] IMAGE",
		Short: "Show the history of an image",
		Args:  exactArgs(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return c.history(cmd, args[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", listFormatUsage)
	f.BoolVarP(&o.human, "human", "H", true, "Print sizes and dates in human readable format")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.StringVar(&o.platform, "platform", "", "Show history for the given platform. Formatted as\n\"os[/arch[/variant]]\" (e.g., \"linux/amd64\")")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	aliases(cmd, "image history", "history")
	return cmd
}

func (c *cli) history(cmd *cobra.Command, name string, o *historyOptions) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	if o.platform != "" {
		raw, err := platformJSON(o.platform)
		if err != nil {
			return err
		}
		q.Set("platform", raw)
	}
	var list []image.HistoryResponseItem
	if err := cl.Get(cmd.Context(), "/images/"+name+"/history", q, &list); err != nil {
		return err
	}
	rows := make([]historyRow, len(list))
	for i, h := range list {
		rows[i] = newHistoryRow(h, o)
	}
	if o.quiet {
		for _, r := range rows {
			fmt.Fprintln(c.std.Out, r.ID)
		}
		return nil
	}
	l := format.List{
		Columns: []string{"ID", "CreatedSince", "CreatedBy", "Size", "Comment"},
		Headers: map[string]string{
			"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
		},
	}
	if !o.human {
		l.Columns[1] = "CreatedAt"
	}
	return format.Write(c.std.Out, l, o.format, rows)
}

func newHistoryRow(h image.HistoryResponseItem, o *historyOptions) historyRow {
	by := strings.ReplaceAll(h.CreatedBy, "\t", " ")
	if !o.noTrunc {
		by = format.Ellipsis(by, 45)
	}
	r := historyRow{Comment: h.Comment, CreatedBy: by, ID: h.ID}
	if h.ID != "<missing>" {
		r.ID = format.ID(h.ID, o.noTrunc)
	}
	if h.Created > 0 || o.human {
		r.CreatedAt = time.Unix(h.Created, 0).Format(time.RFC3339)
	}
	if o.human {
		r.CreatedSince = format.Ago(h.Created)
		if h.Created <= 0 {
			r.CreatedSince = "N/A"
		}
		r.Size = units.HumanSizeWithPrecision(float64(h.Size), 3)
		return r
	}
	r.Size = strconv.FormatInt(h.Size, 10)
	return r
}
