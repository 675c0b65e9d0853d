package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/cli/internal/name"
)

type psOptions struct {
	all, latest, noTrunc, quiet, size bool
	last                              int
	format                            string
	filters                           filters
}

func psCommand(c *cli) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.ps(cmd, &o) },
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	filterFlag(cmd, &o.filters, "f", "Filter output based on conditions provided")
	f.StringVar(&o.format, "format", "", listFormatUsage)
	f.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all\nstates)")
	f.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all\nstates)")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	aliases(cmd, "container ls", "container list", "container ps", "ps")
	return cmd
}

// containerLsCommand is ps under its other names.
func containerLsCommand(c *cli) *cobra.Command {
	cmd := psCommand(c)
	cmd.Use, cmd.Aliases = "ls [OPTIONS]", []string{"ps", "list"}
	return cmd
}

// containerRow is a container as lists show it.
type containerRow struct {
	Command, CreatedAt, ID, Image, Labels, LocalVolumes, Mounts, Names, Networks string
	Platform                                                                     *string
	Ports, RunningFor, Size, State, Status                                       string
	labels                                                                       map[string]string
}

// Label is the value of one label.
func (r containerRow) Label(name string) string { return r.labels[name] }

func containerList(size bool) format.List {
	l := format.List{
		Columns: []string{"ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"},
		Headers: map[string]string{
			"ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT", "RunningFor": "CREATED",
			"Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE", "Names": "NAMES", "Labels": "LABELS",
			"Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
		},
	}
	if size {
		l.Columns = append(l.Columns, "Size")
	}
	return l
}

func (c *cli) ps(cmd *cobra.Command, o *psOptions) error {
	if o.format == "" {
		o.format = c.file().PsFormat
	}
	if err := format.Check(o.format); err != nil {
		return err
	}
	// Sizes are costly for the engine: ask only where they are shown.
	size := o.size || strings.Contains(o.format, ".Size")
	list, err := c.containers(cmd, o, size)
	if err != nil {
		return err
	}
	rows := make([]containerRow, len(list))
	for i, s := range list {
		rows[i] = newContainerRow(s, o.noTrunc)
	}
	if o.quiet {
		for _, r := range rows {
			fmt.Fprintln(c.std.Out, r.ID)
		}
		return nil
	}
	return format.Write(c.std.Out, containerList(o.size), o.format, rows)
}

func (c *cli) containers(cmd *cobra.Command, o *psOptions, size bool) ([]container.Summary, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if o.latest && o.last == -1 {
		o.last = 1
	}
	if o.all {
		q.Set("all", "1")
	}
	if o.last > 0 {
		q.Set("limit", strconv.Itoa(o.last))
	}
	if size {
		q.Set("size", "1")
	}
	if err := o.filters.into(q); err != nil {
		return nil, err
	}
	var list []container.Summary
	return list, cl.Get(cmd.Context(), "/containers/json", q, &list)
}

func newContainerRow(s container.Summary, full bool) containerRow {
	created := time.Unix(s.Created, 0)
	command := s.Command
	if !full {
		command = format.Ellipsis(command, 20)
	}
	r := containerRow{
		Command: strconv.Quote(command), CreatedAt: created.String(), ID: format.ID(s.ID, full), Image: imageOf(s, full),
		Labels: format.Labels(s.Labels), Names: names(s.Names, full), Ports: ports(s.Ports), RunningFor: format.Ago(s.Created),
		Size: containerSize(s), State: string(s.State), Status: s.Status, labels: s.Labels,
	}
	local := 0
	var mounts []string
	for _, m := range s.Mounts {
		if m.Driver == "local" {
			local++
		}
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if !full {
			name = format.Ellipsis(name, 15)
		}
		mounts = append(mounts, name)
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(local)
	if s.NetworkSettings != nil {
		r.Networks = strings.Join(sortedKeys(s.NetworkSettings.Networks), ",")
	}
	if d := s.ImageManifestDescriptor; d != nil && d.Platform != nil {
		p := d.Platform.OS + "/" + d.Platform.Architecture
		if d.Platform.Variant != "" {
			p += "/" + d.Platform.Variant
		}
		r.Platform = &p
	}
	return r
}

// imageOf is the image's name, or its short ID where the name has gone.
func imageOf(s container.Summary, full bool) string {
	switch {
	case s.Image == "":
		return "<no image>"
	case full:
		return s.Image
	}
	if id := format.ID(s.ImageID, false); id != "" && id == format.ID(s.Image, false) {
		return id
	}
	n, err := name.Parse(s.Image)
	if err != nil || n.Tag == "" || n.Digest == "" {
		return s.Image
	}
	n.Digest = "" // NAME:TAG@DIGEST is long
	return n.Familiar()
}

// names leaves out the names by which linked containers know this one.
func names(all []string, full bool) string {
	var out []string
	for _, n := range all {
		n = strings.TrimPrefix(n, "/")
		if full || !strings.Contains(n, "/") {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

func containerSize(s container.Summary) string {
	text := units.HumanSizeWithPrecision(float64(s.SizeRw), 3)
	if s.SizeRootFs > 0 {
		text += " (virtual " + units.HumanSizeWithPrecision(float64(s.SizeRootFs), 3) + ")"
	}
	return text
}
