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

type imagesOptions struct {
	all, digests, noTrunc, quiet bool
	format                       string
	filters                      filters
}

func imagesCommand(c *cli) *cobra.Command {
	var o imagesOptions
	cmd := &cobra.Command{
		Use:   "images [OPTIONS] [REPOSITORY[:TAG]]",
		Short: "List images",
		Args:  maxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.filters.set("reference", args[0])
			}
			return c.images(cmd, &o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	f.BoolVar(&o.digests, "digests", false, "Show digests")
	filterFlag(cmd, &o.filters, "f", "Filter output based on conditions provided")
	f.StringVar(&o.format, "format", "", listFormatUsage)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	aliases(cmd, "image ls", "image list", "images")
	return cmd
}

func imageLsCommand(c *cli) *cobra.Command {
	cmd := imagesCommand(c)
	cmd.Use, cmd.Aliases = "ls [OPTIONS] [REPOSITORY[:TAG]]", []string{"list"}
	return cmd
}

// imageRow is one name of an image as lists show it.
type imageRow struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize string
}

func imageList(digests bool) format.List {
	l := format.List{
		Columns: []string{"Repository", "Tag", "ID", "CreatedSince", "Size"},
		Headers: map[string]string{
			"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
			"CreatedAt": "CREATED AT", "Size": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
			"VirtualSize": "VIRTUAL SIZE", "Containers": "CONTAINERS",
		},
	}
	if digests {
		l.Columns = []string{"Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"}
	}
	return l
}

func (c *cli) images(cmd *cobra.Command, o *imagesOptions) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	if o.all {
		q.Set("all", "1")
	}
	if err := o.filters.into(q); err != nil {
		return err
	}
	var list []image.Summary
	if err := cl.Get(cmd.Context(), "/images/json", q, &list); err != nil {
		return err
	}
	if o.format == "" {
		o.format = c.file().ImagesFormat
	}
	digests := o.digests || strings.Contains(o.format, ".Digest")
	var rows []imageRow
	for _, s := range list {
		rows = append(rows, imageRows(s, o.noTrunc, digests)...)
	}
	if o.quiet {
		for _, r := range rows {
			fmt.Fprintln(c.std.Out, r.ID)
		}
		return nil
	}
	return format.Write(c.std.Out, imageList(o.digests), o.format, rows)
}

// listedName is one way to call an image.
type listedName struct{ repository, tag, digest string }

// imageRows are the rows of one image: one for each of its names. A repository
// whose digest is known is shown with it where digests are shown.
func imageRows(s image.Summary, full, digests bool) []imageRow {
	row := imageRow{
		Containers: count(s.Containers), CreatedAt: time.Unix(s.Created, 0).String(), CreatedSince: format.Ago(s.Created),
		ID: format.ID(s.ID, full), SharedSize: size(s.SharedSize), Size: format.Size(s.Size), UniqueSize: "N/A",
		VirtualSize: units.HumanSize(float64(s.Size)),
	}
	if s.Created <= 0 {
		row.CreatedSince = "N/A"
	}
	if s.SharedSize >= 0 && s.Size >= 0 {
		row.UniqueSize = units.HumanSize(float64(s.Size - s.SharedSize))
	}
	var rows []imageRow
	for _, n := range imageNames(s, digests) {
		r := row
		r.Repository, r.Tag, r.Digest = n.repository, n.tag, n.digest
		rows = append(rows, r)
	}
	return rows
}

func imageNames(s image.Summary, digests bool) []listedName {
	const none = "<none>"
	known := map[string][]string{} // digests by repository
	var repos []string
	for _, d := range s.RepoDigests {
		if repo, digest, ok := strings.Cut(d, "@"); ok && repo != none {
			if known[repo] == nil {
				repos = append(repos, repo)
			}
			known[repo] = append(known[repo], digest)
		}
	}
	var out []listedName
	tagged := map[string]bool{}
	for _, t := range s.RepoTags {
		i := strings.LastIndexByte(t, ':')
		if i < 0 || t == none+":"+none {
			continue
		}
		repo, tag := t[:i], t[i+1:]
		tagged[repo] = true
		all := known[repo]
		if len(all) == 0 || !digests {
			all = []string{none}
		}
		for _, d := range all {
			out = append(out, listedName{repo, tag, d})
		}
	}
	for _, repo := range repos {
		if tagged[repo] {
			continue
		}
		all := known[repo]
		if !digests {
			all = all[:1]
		}
		for _, d := range all {
			out = append(out, listedName{repo, none, d})
		}
	}
	if len(out) == 0 {
		out = append(out, listedName{none, none, none})
	}
	return out
}

func count(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return strconv.FormatInt(n, 10)
}

func size(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return units.HumanSize(float64(n))
}
