package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
)

// pruneReport is what an engine has removed. Each route fills its own part.
type pruneReport struct {
	ContainersDeleted []string
	NetworksDeleted   []string
	VolumesDeleted    []string
	ImagesDeleted     []image.DeleteResponse
	CachesDeleted     []string
	SpaceReclaimed    uint64
}

// pruneOptions are the options of every prune command.
type pruneOptions struct {
	all, force bool
	filter     filters
}

// pruneCommand is prune of one noun: the question, if it is not forced, and then do.
func pruneCommand(c *cli, short string, o *pruneOptions, warning func() string, do func(ctx context.Context) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.force {
				if ok, err := c.confirm("WARNING! This will remove" + warning() + "\nAre you sure you want to continue?"); !ok {
					return err
				}
			}
			return do(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

// confirm asks the user; the answer is no unless it is y.
func (c *cli) confirm(question string) (bool, error) {
	fmt.Fprint(c.std.Out, question+" [y/N] ")
	answer, err := bufio.NewReader(c.std.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return strings.EqualFold(strings.TrimSpace(answer), "y"), nil
}

func containerPruneCommand(c *cli) *cobra.Command {
	var o pruneOptions
	cmd := pruneCommand(c, "Remove all stopped containers", &o,
		func() string { return " all stopped containers." },
		func(ctx context.Context) error {
			r, err := c.prune(ctx, "/containers/prune", o.filter)
			if err != nil {
				return err
			}
			c.showPruned("Deleted Containers:", r.ContainersDeleted)
			return c.reclaimed(r.SpaceReclaimed)
		})
	filterFlag(cmd, &o.filter, "", "Provide filter values (e.g. \"until=<timestamp>\")")
	return cmd
}

func imagePruneCommand(c *cli) *cobra.Command {
	var o pruneOptions
	cmd := pruneCommand(c, "Remove unused images", &o,
		func() string { return " " + imageWarning(o.all) + "." },
		func(ctx context.Context) error {
			o.filter.set("dangling", danglingOnly(o.all))
			r, err := c.prune(ctx, "/images/prune", o.filter)
			if err != nil {
				return err
			}
			c.showPrunedImages(r.ImagesDeleted)
			return c.reclaimed(r.SpaceReclaimed)
		})
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "Remove all unused images, not just dangling ones")
	filterFlag(cmd, &o.filter, "", "Provide filter values (e.g. \"until=<timestamp>\")")
	return cmd
}

func imageWarning(all bool) string {
	if all {
		return "all images without at least one container associated to them"
	}
	return "all dangling images"
}

func danglingOnly(all bool) string {
	if all {
		return "false"
	}
	return "true"
}

func networkPruneCommand(c *cli) *cobra.Command {
	var o pruneOptions
	cmd := pruneCommand(c, "Remove all unused networks", &o,
		func() string { return " all custom networks not used by at least one container." },
		func(ctx context.Context) error {
			r, err := c.prune(ctx, "/networks/prune", o.filter)
			if err != nil {
				return err
			}
			c.showPruned("Deleted Networks:", r.NetworksDeleted)
			return nil
		})
	filterFlag(cmd, &o.filter, "", "Provide filter values (e.g. \"until=<timestamp>\")")
	return cmd
}

func volumePruneCommand(c *cli) *cobra.Command {
	var o pruneOptions
	cmd := pruneCommand(c, "Remove unused local volumes", &o,
		func() string {
			if !o.all && c.atLeast("1.42") {
				return " anonymous local volumes not used by at least one container."
			}
			return " all local volumes not used by at least one container."
		},
		func(ctx context.Context) error {
			if o.all {
				if err := c.requires(ctx, "--all", "1.42"); err != nil {
					return err
				}
				o.filter.set("all", "true")
			}
			r, err := c.prune(ctx, "/volumes/prune", o.filter)
			if err != nil {
				return err
			}
			c.showPruned("Deleted Volumes:", r.VolumesDeleted)
			return c.reclaimed(r.SpaceReclaimed)
		})
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	filterFlag(cmd, &o.filter, "", "Provide filter values (e.g. \"label=<label>\")")
	return cmd
}

// atLeast reports whether the engine speaks an API version; an engine that does
// not answer says so at the request that follows.
func (c *cli) atLeast(version string) bool {
	cl, err := c.engine()
	if err != nil {
		return true
	}
	v, err := cl.Version(context.Background())
	return err != nil || !client.Less(v, version)
}

// requires refuses an option that the engine is too old for.
func (c *cli) requires(ctx context.Context, option, version string) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	v, err := cl.Version(ctx)
	if err != nil {
		return err
	}
	if client.Less(v, version) {
		return fmt.Errorf("%q requires API version %s, but the Docker daemon API version is %s", option, version, v)
	}
	return nil
}

func systemPruneCommand(c *cli) *cobra.Command {
	var o pruneOptions
	var vols bool
	cmd := pruneCommand(c, "Remove unused data", &o,
		func() string { return systemWarning(&o, vols) },
		func(ctx context.Context) error { return c.pruneSystem(ctx, &o, vols) })
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Remove all unused images not just dangling ones")
	filterFlag(cmd, &o.filter, "", "Provide filter values (e.g. \"label=<key>=<value>\")")
	f.BoolVar(&vols, "volumes", false, "Prune anonymous volumes")
	return cmd
}

func systemWarning(o *pruneOptions, vols bool) string {
	lines := []string{"all stopped containers", "all networks not used by at least one container"}
	if vols {
		lines = append(lines, "all anonymous volumes not used by at least one container")
	}
	lines = append(lines, imageWarning(o.all))
	if o.all {
		lines = append(lines, "all build cache")
	} else {
		lines = append(lines, "unused build cache")
	}
	var b strings.Builder
	b.WriteString(":\n")
	for _, l := range lines {
		b.WriteString("  - " + l + "\n")
	}
	if len(o.filter) > 0 {
		b.WriteString("\n  Items to be pruned will be filtered with:\n")
		for _, k := range sortedKeys(o.filter) {
			for _, v := range sortedKeys(o.filter[k]) {
				b.WriteString("  - " + k + "=" + v + "\n")
			}
		}
	}
	return b.String()
}

// pruneSystem goes from what uses to what is used: a container that is gone uses
// no network, volume or image.
func (c *cli) pruneSystem(ctx context.Context, o *pruneOptions, vols bool) error {
	if vols && len(o.filter["until"]) > 0 {
		return errors.New(`ERROR: The "until" filter is not supported with "--volumes"`)
	}
	var space uint64
	prune := func(path string, f filters, show func(*pruneReport)) error {
		r, err := c.prune(ctx, path, f)
		if err != nil {
			return err
		}
		space += r.SpaceReclaimed
		show(r)
		return nil
	}
	if err := prune("/containers/prune", o.filter, func(r *pruneReport) {
		c.showPruned("Deleted Containers:", r.ContainersDeleted)
	}); err != nil {
		return err
	}
	if err := prune("/networks/prune", o.filter, func(r *pruneReport) { c.showPruned("Deleted Networks:", r.NetworksDeleted) }); err != nil {
		return err
	}
	if vols {
		if err := prune("/volumes/prune", o.filter, func(r *pruneReport) { c.showPruned("Deleted Volumes:", r.VolumesDeleted) }); err != nil {
			return err
		}
	}
	images := o.filter.clone()
	images.set("dangling", danglingOnly(o.all))
	if err := prune("/images/prune", images, func(r *pruneReport) { c.showPrunedImages(r.ImagesDeleted) }); err != nil {
		return err
	}
	if err := c.pruneCache(ctx, o, &space); err != nil {
		return err
	}
	return c.reclaimed(space)
}

// pruneCache is for engines that build; one that does not has no such route.
func (c *cli) pruneCache(ctx context.Context, o *pruneOptions, space *uint64) error {
	q := url.Values{}
	if o.all {
		q.Set("all", "1")
	}
	if err := o.filter.into(q); err != nil {
		return err
	}
	var r pruneReport
	err := c.client.Post(ctx, "/build/prune", q, nil, &r)
	if s := client.StatusOf(err); s == http.StatusNotFound || s == http.StatusNotImplemented {
		return nil
	}
	if err != nil {
		return err
	}
	*space += r.SpaceReclaimed
	c.showPruned("Deleted build cache objects:", r.CachesDeleted)
	return nil
}

func (c *cli) prune(ctx context.Context, path string, f filters) (*pruneReport, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if err := f.into(q); err != nil {
		return nil, err
	}
	var r pruneReport
	return &r, cl.Post(ctx, path, q, nil, &r)
}

func (c *cli) showPruned(title string, names []string) {
	if len(names) == 0 {
		return
	}
	fmt.Fprintf(c.std.Out, "%s\n%s\n\n", title, strings.Join(names, "\n"))
}

func (c *cli) showPrunedImages(list []image.DeleteResponse) {
	var lines []string
	for _, d := range list {
		if d.Untagged != "" {
			lines = append(lines, "untagged: "+d.Untagged)
		} else {
			lines = append(lines, "deleted: "+d.Deleted)
		}
	}
	c.showPruned("Deleted Images:", lines)
}

func (c *cli) reclaimed(space uint64) error {
	_, err := fmt.Fprintln(c.std.Out, "Total reclaimed space:", units.HumanSize(float64(space)))
	return err
}
