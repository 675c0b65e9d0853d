package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/format"
)

// diskUsage is the answer of GET /system/df up to API 1.51.
type diskUsage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []build.CacheRecord
}

func dfCommand(c *cli) *cobra.Command {
	var text string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "df [OPTIONS]",
		Short: "Show docker disk usage",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.df(cmd.Context(), text, verbose)
		},
	}
	cmd.Flags().StringVar(&text, "format", "", listFormatUsage)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	return cmd
}

func (c *cli) df(ctx context.Context, text string, verbose bool) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	var u diskUsage
	if err := cl.Get(ctx, "/system/df", nil, &u); err != nil {
		return err
	}
	if verbose {
		return c.dfVerbose(&u, text)
	}
	return format.Write(c.std.Out, format.List{
		Columns: []string{"Type", "TotalCount", "Active", "Size", "Reclaimable"},
		Headers: map[string]string{"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE"},
	}, text, dfRows(&u))
}

// dfRow is how much room one sort of thing takes.
type dfRow struct{ Active, Reclaimable, Size, TotalCount, Type string }

func dfRows(u *diskUsage) []dfRow {
	return []dfRow{imagesUse(u), containersUse(u), volumesUse(u), cacheUse(u)}
}

func newDfRow(name string, total, active int, size, free int64, percent bool) dfRow {
	r := dfRow{
		Type: name, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active),
		Size: units.HumanSize(float64(size)), Reclaimable: units.HumanSize(float64(free)),
	}
	if percent && size > 0 {
		r.Reclaimable += fmt.Sprintf(" (%d%%)", free*100/size)
	}
	return r
}

// imagesUse counts as reclaimable what no container uses; layers that several
// images share are in the total once.
func imagesUse(u *diskUsage) dfRow {
	active, used := 0, int64(0)
	for _, i := range u.Images {
		if i.Containers == 0 {
			continue
		}
		active++
		if i.Size != -1 && i.SharedSize != -1 {
			used += i.Size - i.SharedSize
		}
	}
	return newDfRow("Images", len(u.Images), active, u.LayersSize, u.LayersSize-used, true)
}

func containersUse(u *diskUsage) dfRow {
	active, size, free := 0, int64(0), int64(0)
	for _, s := range u.Containers {
		size += s.SizeRw
		switch s.State {
		case container.StateRunning, container.StatePaused, container.StateRestarting:
			active++
		default:
			free += s.SizeRw
		}
	}
	return newDfRow("Containers", len(u.Containers), active, size, free, true)
}

func volumesUse(u *diskUsage) dfRow {
	active, size, free := 0, int64(0), int64(0)
	for _, v := range u.Volumes {
		if v.UsageData == nil {
			continue
		}
		if v.UsageData.RefCount > 0 {
			active++
		}
		if v.UsageData.Size != -1 {
			size += v.UsageData.Size
			if v.UsageData.RefCount == 0 {
				free += v.UsageData.Size
			}
		}
	}
	return newDfRow("Local Volumes", len(u.Volumes), active, size, free, true)
}

func cacheUse(u *diskUsage) dfRow {
	active, size, free := 0, int64(0), int64(0)
	for _, b := range u.BuildCache {
		if b.InUse {
			active++
		}
		if !b.Shared {
			size += b.Size
			if !b.InUse {
				free += b.Size
			}
		}
	}
	return newDfRow("Build Cache", len(u.BuildCache), active, size, free, false)
}

// dfContainerRow shows sizes of a container that lists leave out.
func dfContainerRows(u *diskUsage, full bool) []containerRow {
	rows := make([]containerRow, len(u.Containers))
	for i, s := range u.Containers {
		s.SizeRootFs = 0 // only what the container has written is its own
		rows[i] = newContainerRow(s, full)
	}
	return rows
}

func dfImageRows(u *diskUsage, full bool) []imageRow {
	var rows []imageRow
	for _, s := range u.Images {
		r := imageRows(s, full, false)[0] // its size counts once
		r.Digest = ""
		rows = append(rows, r)
	}
	return rows
}

func dfVolumeRows(u *diskUsage) []volumeRow {
	rows := make([]volumeRow, len(u.Volumes))
	for i, v := range u.Volumes {
		rows[i] = newVolumeRow(v)
	}
	return rows
}

// cacheRow is one part of the build cache.
type cacheRow struct{ CacheType, CreatedAt, CreatedSince, Description, ID, InUse, LastUsedAt, LastUsedSince, Parent, Shared, Size, UsageCount string }

func dfCacheRows(u *diskUsage, full bool) []cacheRow {
	rows := make([]cacheRow, len(u.BuildCache))
	for i, b := range u.BuildCache {
		r := cacheRow{
			CacheType: b.Type, CreatedAt: b.CreatedAt.String(), CreatedSince: format.Ago(b.CreatedAt.Unix()), Description: b.Description,
			ID: format.ID(b.ID, full), InUse: strconv.FormatBool(b.InUse), Parent: strings.Join(b.Parents, ", "),
			Shared: strconv.FormatBool(b.Shared), Size: units.HumanSizeWithPrecision(float64(b.Size), 3), UsageCount: strconv.Itoa(b.UsageCount),
		}
		if b.LastUsedAt != nil {
			r.LastUsedAt, r.LastUsedSince = b.LastUsedAt.String(), format.Ago(b.LastUsedAt.Unix())
		}
		rows[i] = r
	}
	return rows
}

func (c *cli) dfVerbose(u *diskUsage, text string) error {
	if text != "" && text != "table" {
		return c.dfTemplate(u, text)
	}
	w := c.std.Out
	images := imageList(false)
	images.Columns = append(images.Columns, "SharedSize", "UniqueSize", "Containers")
	containers := containerList(false)
	containers.Columns = []string{"ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"}
	volumes := volumeList()
	volumes.Columns = []string{"Name", "Links", "Size"}
	caches := format.List{
		Columns: []string{"ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"},
		Headers: map[string]string{
			"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED", "LastUsedSince": "LAST USED",
			"UsageCount": "USAGE", "Shared": "SHARED",
		},
	}
	fmt.Fprint(w, "Images space usage:\n\n")
	if err := format.Write(w, images, "", dfImageRows(u, false)); err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	if err := format.Write(w, containers, "", dfContainerRows(u, false)); err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	if err := format.Write(w, volumes, "", dfVolumeRows(u)); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", cacheUse(u).Size)
	return format.Write(w, caches, "", dfCacheRows(u, false))
}

// dfTemplate shows everything to a template at once.
func (c *cli) dfTemplate(u *diskUsage, text string) error {
	all := struct {
		Images     []imageRow
		Containers []containerRow
		Volumes    []volumeRow
		BuildCache []cacheRow
	}{dfImageRows(u, true), dfContainerRows(u, true), dfVolumeRows(u), dfCacheRows(u, true)}
	if text == "json" {
		enc := json.NewEncoder(c.std.Out)
		enc.SetEscapeHTML(false)
		return enc.Encode(all)
	}
	t, err := format.Parse(text)
	if err != nil {
		return &statusError{code: exitUsage, err: err}
	}
	if err := t.Execute(c.std.Out, all); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	_, err = io.WriteString(c.std.Out, "\n")
	return err
}
