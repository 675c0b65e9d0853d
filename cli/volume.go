package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/cli/internal/option"
)

func volumeCreateCommand(c *cli) *cobra.Command {
	v := volume.CreateRequest{DriverOpts: map[string]string{}}
	var labels []string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] [VOLUME]",
		Short: "Create a volume",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if v.Name != "" {
					return errors.New("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
				}
				v.Name = args[0]
			}
			v.Labels = option.Pairs(labels)
			cl, err := c.engine()
			if err != nil {
				return err
			}
			var made volume.Volume
			if err := cl.Post(cmd.Context(), "/volumes/create", nil, v, &made); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, made.Name)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&v.Driver, "driver", "d", "local", "Specify volume driver name")
	f.Var(newList(&labels, option.CheckLabel), "label", "Set metadata for a volume")
	f.StringVar(&v.Name, "name", "", "Specify volume name")
	f.Lookup("name").Hidden = true
	f.VarP(option.NewMap(&v.DriverOpts, nil), "opt", "o", "Set driver specific options")
	return cmd
}

// volumeRow is a volume as lists show it.
type volumeRow struct {
	Availability, Driver, Group, Labels, Links, Mountpoint, Name, Scope, Size, Status string
	labels                                                                            map[string]string
}

// Label is the value of one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

// newVolumeRow leaves "N/A" what is known of volumes of a cluster only, and what
// the engine was not asked for.
func newVolumeRow(v volume.Volume) volumeRow {
	const unknown = "N/A"
	r := volumeRow{
		Availability: unknown, Driver: v.Driver, Group: unknown, Labels: format.Labels(v.Labels), Links: unknown,
		Mountpoint: v.Mountpoint, Name: v.Name, Scope: v.Scope, Size: unknown, Status: unknown, labels: v.Labels,
	}
	if u := v.UsageData; u != nil {
		r.Links, r.Size = strconv.FormatInt(u.RefCount, 10), units.HumanSize(float64(u.Size))
	}
	return r
}

func volumeList() format.List {
	return format.List{
		Columns: []string{"Driver", "Name"},
		Headers: map[string]string{
			"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS", "Links": "LINKS",
			"Size": "SIZE", "Availability": "AVAILABILITY", "Group": "GROUP", "Status": "STATUS",
		},
	}
}

func volumeLsCommand(c *cli) *cobra.Command {
	var text string
	var quiet bool
	var filter filters
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List volumes",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if text == "" && !quiet {
				text = c.file().VolumesFormat
			}
			return c.volumes(cmd.Context(), filter, text, quiet)
		},
	}
	f := cmd.Flags()
	filterFlag(cmd, &filter, "f", "Provide filter values (e.g. \"dangling=true\")")
	f.StringVar(&text, "format", "", listFormatUsage)
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	aliases(cmd, "volume ls", "volume list")
	return cmd
}

func (c *cli) volumes(ctx context.Context, filter filters, text string, quiet bool) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	if err := filter.into(q); err != nil {
		return err
	}
	var list volume.ListResponse
	if err := cl.Get(ctx, "/volumes", q, &list); err != nil {
		return err
	}
	sortByName(list.Volumes, func(v volume.Volume) string { return v.Name })
	rows := make([]volumeRow, len(list.Volumes))
	for i, v := range list.Volumes {
		rows[i] = newVolumeRow(v)
	}
	if quiet {
		for _, r := range rows {
			fmt.Fprintln(c.std.Out, r.Name)
		}
		return nil
	}
	return format.Write(c.std.Out, volumeList(), text, rows)
}

func volumeRmCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] VOLUME [VOLUME...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more volumes",
		Long:    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			q := url.Values{}
			if force {
				q.Set("force", "1")
			}
			return c.each(cmd.Context(), args, func(ctx context.Context, arg string) error {
				return cl.Delete(ctx, "/volumes/"+url.PathEscape(arg), q, nil)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of one or more volumes")
	aliases(cmd, "volume rm", "volume remove")
	return cmd
}
